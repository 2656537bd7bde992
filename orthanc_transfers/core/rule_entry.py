"""One entry of the queue of the rules: a resource that is to be sent, or was."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orthanc_transfers.core.model import Level, Resource


class EntryState(enum.Enum):
    """State of an entry."""

    WAITING = "Waiting"
    """For its turn, its window, its peer."""
    RUNNING = "Running"
    """A job of Orthanc sends it."""
    FINISHING = "Finishing"
    """It was sent; what its rule says for afterwards is being done."""
    DONE = "Done"
    FAILED = "Failed"
    """The receiver refused it again and again."""
    GIVEN_UP = "GivenUp"
    """Its peer was not there for as long as the rule tries."""
    DROPPED = "Dropped"
    """It is not to be sent any more: deleted, canceled, the rule changed."""


ACTIVE = (EntryState.WAITING, EntryState.RUNNING, EntryState.FINISHING)
ENDED = (EntryState.DONE, EntryState.FAILED, EntryState.GIVEN_UP, EntryState.DROPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """``first_try``, ``next_try`` and ``queued_at`` in queue time; ``queued``, ``ended`` in seconds since the epoch."""

    id: int
    rule: str
    destination: str
    """A peer; empty: the destinations of the rule in turn."""
    resource: Resource
    origin: str
    """The change that triggered it, ``Time``, ``Manual``."""
    state: EntryState
    checked: bool
    """Whether the filter of the rule was asked."""
    attempts: int
    refusals: int
    """Attempts that failed although its peer was there."""
    turn: int
    """Which destination of the rule is the next."""
    peer: str | None
    """Where it was sent to last."""
    transfer: str | None
    """``SenderTransferID`` of its last job."""
    job: str | None
    held: bool
    """Its job was paused since its window closed."""
    first_try: float | None
    next_try: float
    queued: float
    queued_at: float
    ended: float | None
    said: str | None
    """The last error, or how it ended."""
    stamp: str | None = None
    """When its resource had last changed, as it was when the filter was asked last."""

    @property
    def level(self) -> Level:
        """Of the resource."""
        return self.resource.level
