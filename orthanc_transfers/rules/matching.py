"""Whether a rule takes a resource, by its filter."""

from __future__ import annotations

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.interfaces import ResourceFacts

ABSENT = "absent"
"""It is not stored any more."""


class Matching:
    """Thread-safe."""

    def __init__(self, facts: ResourceFacts) -> None:
        self._facts = facts

    def mismatch(self, rule: Rule, resource: Resource) -> str | None:
        """The key of the filter that does not fit, or ``ABSENT``; ``None``: it is to be sent. Raises ``HostError``."""
        facts = self._facts.facts(resource, rule.filter.wanted)
        return ABSENT if facts is None else rule.filter.mismatch(facts)

    def why_unusable(self, rule: Rule) -> str | None:
        """Why the filter of a rule can fit nothing here, one sentence."""
        return self._facts.why_unusable(rule.filter.wanted)
