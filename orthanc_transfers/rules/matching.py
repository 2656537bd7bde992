"""Whether a rule takes a resource, by its filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_filter import came_from
from orthanc_transfers.interfaces import ResourceFacts

ABSENT = "absent"
"""It is not stored any more."""

COPY = "copy"
"""It was made by a rule, to be sent by that one only."""


class Matching:
    """Thread-safe."""

    def __init__(
        self,
        facts: ResourceFacts,
        is_copy: Callable[[Resource], bool] = lambda _: False,
        processes: Callable[[Iterable[str]], frozenset[str]] = lambda _: frozenset(),
    ) -> None:
        """``processes``: those of peers, by their names here, as far as they can be asked."""
        self._facts = facts
        self._is_copy = is_copy
        self._processes = processes

    def mismatch(self, rule: Rule, resource: Resource) -> str | None:
        """The key of the filter that does not fit, ``ABSENT``, or ``COPY``; ``None``: it is to be sent.

        Raises ``HostError``.
        """
        if self._is_copy(resource):
            return COPY
        facts = self._facts.facts(resource, rule.filter.wanted)
        if facts is None:
            return ABSENT
        found = rule.filter.mismatch(facts)
        if found is None and rule.filter.not_from and facts.sources and all(facts.sources):
            # The sender calls itself by another name, or the peer has two here: it is known by its process.
            processes = self._processes(rule.filter.not_from)
            return "NotFrom" if came_from(facts, rule.filter.not_from | processes) else None
        return found

    def why_unusable(self, rule: Rule) -> str | None:
        """Why the filter of a rule can fit nothing here, one sentence."""
        return self._facts.why_unusable(rule.filter.wanted)
