"""Why rules cannot work on this Orthanc now: shown with each rule, and named in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from orthanc_transfers.interfaces import Clock
from orthanc_transfers.rules.book import KnownRule
from orthanc_transfers.rules.matching import Matching

LOOK = 60.0
"""Seconds between two looks for what has changed around the rules: peers, say."""

log = logging.getLogger(__name__)


class Problems:
    """``peers`` returns all names of peers."""

    def __init__(self, matching: Matching, peers: Callable[[], Sequence[str]], clock: Clock) -> None:
        self._matching = matching
        self._peers = peers
        self._clock = clock
        self._named: dict[str, str] = {}
        self._next_look = 0.0

    def of(self, known: KnownRule) -> str | None:
        """One sentence; ``None``: it works."""
        if known.problem is not None or known.rule is None:
            return known.problem
        unusable = self._matching.why_unusable(known.rule)
        if unusable is not None:
            return unusable
        missing = set(known.rule.destinations).difference(self._peers())
        if not missing:
            return None
        name = next(one for one in known.rule.destinations if one in missing)
        return f'"Destinations" names {name!r}, which is no peer of this Orthanc: add it, or change the rule'

    def name_in_log(self, rules: Iterable[KnownRule]) -> None:
        """Each that cannot work, once for each reason."""
        self._next_look = self._clock.monotonic() + LOOK
        found = {}
        for known in rules:
            problem = self.of(known)
            if problem is None:
                continue
            found[known.name] = problem
            # What cannot be read as a rule was named when it was read.
            if known.rule is not None and problem != self._named.get(known.name):
                log.warning("rule %s cannot work, the others do: %s", known.name, problem)
        self._named = found

    def look(self, rules: Iterable[KnownRule]) -> None:
        """To be called now and then."""
        if self._clock.monotonic() >= self._next_look:
            self.name_in_log(rules)
