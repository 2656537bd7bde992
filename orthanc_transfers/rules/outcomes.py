"""What the end of a job means for the entry that it was for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.rule import FIRST, Rule
from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.rules.holds import Holds
from orthanc_transfers.rules.queue import Changes

MAX_REFUSALS = 6
"""Attempts that failed although the peer was there: what it refuses so often it will refuse."""

REFUSED = Backoff(retries=0, first=10.0, ceiling=900.0)


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How the job of an entry ended."""

    succeeded: bool = False
    canceled: bool = False
    recalled: bool = False
    """Canceled by us: the entry is to wait."""
    peer_failed: bool = False
    """Its peer was not there."""
    lost: bool = False
    """Its job is gone, and nobody knows how it ended: sending it again finds out."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What becomes of an entry: its state, which may be no end, and what is said of it."""

    state: EntryState
    said: str | None = None


class Outcomes:
    """Used by one thread. ``now`` is the queue time."""

    def __init__(
        self, holds: Holds, now: Callable[[], float], jitter: Callable[[], float] = random.random
    ) -> None:
        self._holds = holds
        self._now = now
        self._jitter = jitter

    def record(
        self,
        changes: Changes,
        entry: Entry,
        rule: Rule | None,
        end: JobEnd,
        *,
        stored: bool,
        unreadable: bool = False,
    ) -> Ended:
        """Write down what becomes of an entry, and return it. ``stored``: its resource is here still.

        Without a ``rule`` that was deleted; unless it is ``unreadable``, and may be mended.
        """
        peer = entry.peer or ""
        if end.succeeded:
            self._holds.there(peer)
            changes.set(entry.id, state=EntryState.FINISHING.value, held=0, said=None)
            return Ended(EntryState.FINISHING)
        if end.canceled:
            self._holds.untold(peer)
            return self._end(changes, entry, EntryState.DROPPED, f"job {entry.job} was canceled by a user")
        if end.peer_failed or end.recalled:
            self._holds.failed(peer)
        elif end.lost:
            self._holds.untold(peer)
        elif not stored:
            self._holds.there(peer)
            return self._end(changes, entry, EntryState.DROPPED, "it was deleted here before it was sent")
        else:
            self._holds.there(peer)
        if rule is None and unreadable:
            changes.set(entry.id, state=EntryState.WAITING.value, held=0, said=end.error)
            return Ended(EntryState.WAITING, end.error)
        if rule is None:
            return self._end(
                changes, entry, EntryState.DROPPED, f"its rule was deleted; the last attempt: {end.error}"
            )
        return self._again(changes, entry, rule, end)

    def _again(self, changes: Changes, entry: Entry, rule: Rule, end: JobEnd) -> Ended:
        peer_failed = end.peer_failed or end.recalled
        refusals = entry.refusals + (0 if peer_failed or end.lost else 1)
        if refusals >= MAX_REFUSALS:
            return self._end(changes, entry, EntryState.FAILED, end.error)
        if self.is_late(entry, rule):
            return self._end(changes, entry, EntryState.GIVEN_UP, given_up(rule, end.error))
        in_turn = rule.deliver == FIRST and len(rule.destinations) > 1
        delay = 0.0 if peer_failed or end.lost else REFUSED.seconds(refusals - 1, self._jitter())
        changes.set(
            entry.id,
            state=EntryState.WAITING.value,
            held=0,
            said=end.error,
            refusals=refusals,
            turn=entry.turn + 1 if in_turn else entry.turn,
            next_try=self._now() + delay,
        )
        return Ended(EntryState.WAITING, end.error)

    def is_late(self, entry: Entry, rule: Rule) -> bool:
        """Whether it was tried for as long as its rule says."""
        return entry.first_try is not None and self._now() - entry.first_try >= rule.retry

    def _end(self, changes: Changes, entry: Entry, state: EntryState, said: str | None) -> Ended:
        changes.end(entry.id, state, said)
        return Ended(state, said)


def given_up(rule: Rule, error: str | None) -> str:
    """What is said of an entry that is given up."""
    retry = rule.body.get("Retry", "7d")
    return f"given up after {retry}, the last attempt failed: {error}"
