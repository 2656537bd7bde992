"""Carries the items of a plan with several workers: while one compresses, others read and send.

The one place that decides how many requests run at once and which piece of work comes next: items are
taken from their plan when a worker is free, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from orthanc_transfers.pipeline.concurrency import BucketSize, Concurrency
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Carried:
    """One item that arrived whole: bytes before the codec, bytes on the network, the codec, its seconds."""

    size: int
    wire: int
    codec: Codec
    encoding: float = 0.0


@dataclass(frozen=True, slots=True)
class BucketExecutor:
    """Carries with as many workers as ``connections`` wants, counting into ``progress``.

    ``bucket_size`` and ``encoding`` learn from what is carried, for those who ask them.
    """

    name: str
    connections: Concurrency
    bucket_size: BucketSize
    encoding: AutoCompression
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
            seconds = self.clock.monotonic() - began
            self.connections.settle(carried.wire, seconds)
            self.bucket_size.settle(carried.size, seconds)
            self.encoding.settle(carried.size, seconds, carried.encoding)
            settled(item)
            self.progress.settle(carried.size, carried.wire, carried.codec)

        self.progress.start()
        try:
            threads.run_all(self.name, self.connections, items, carry_one, self.cancellation)
        finally:
            self.progress.stop()
