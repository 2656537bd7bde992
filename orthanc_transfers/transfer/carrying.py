"""Carries the items of a plan with several workers: while one compresses, others read and send.

The one place that decides how many requests run at once and which piece of work comes next: items are
taken from their plan when a worker is free, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.transfer import workers
from orthanc_transfers.transfer.adapting import Connections
from orthanc_transfers.transfer.cancellation import Cancellation
from orthanc_transfers.transfer.ports import Clock
from orthanc_transfers.transfer.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Carried:
    """One item that arrived whole: bytes before the codec, bytes on the network, the codec."""

    size: int
    wire: int
    codec: Codec


@dataclass(frozen=True, slots=True)
class Carrier:
    """Carries with as many workers as ``connections`` wants, counting into ``progress``."""

    name: str
    connections: Connections
    progress: Progress
    cancellation: Cancellation
    clock: Clock

    def carry(
        self,
        items: Iterable[T],
        work: Callable[[T], Carried],
        settled: Callable[[T], None] = lambda item: None,
    ) -> None:
        """Do ``work`` for every item; ``settled`` is told of each that is done, before it is counted.

        The first error ends it and is raised once all workers have ended; a cancellation is ``Canceled``.
        """

        def carry_one(item: T) -> None:
            began = self.clock.monotonic()
            carried = work(item)
            self.connections.settle(carried.wire, self.clock.monotonic() - began)
            settled(item)
            self.progress.settle(carried.size, carried.wire, carried.codec)

        self.progress.start()
        try:
            workers.run_all(self.name, self.connections, items, carry_one, self.cancellation)
        finally:
            self.progress.stop()
