"""Whether a rule takes a resource, by its filter."""

from __future__ import annotations

from collections.abc import Callable

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.interfaces import ResourceFacts

ABSENT = "absent"
"""It is not stored any more."""

COPY = "copy"
"""It was made by a rule, to be sent by that one only."""


class Matching:
    """Thread-safe."""

    def __init__(self, facts: ResourceFacts, is_copy: Callable[[Resource], bool] = lambda _: False) -> None:
        self._facts = facts
        self._is_copy = is_copy

    def mismatch(self, rule: Rule, resource: Resource) -> str | None:
        """The key of the filter that does not fit, ``ABSENT``, or ``COPY``; ``None``: it is to be sent.

        Raises ``HostError``.
        """
        if self._is_copy(resource):
            return COPY
        facts = self._facts.facts(resource, rule.filter.wanted)
        return ABSENT if facts is None else rule.filter.mismatch(facts)

    def why_unusable(self, rule: Rule) -> str | None:
        """Why the filter of a rule can fit nothing here, one sentence."""
        return self._facts.why_unusable(rule.filter.wanted)
