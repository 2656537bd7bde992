"""Runs the buckets of a plan on several workers: while one compresses, others read and send.

The only place that decides how many requests run at once and which bucket comes next: a bucket is taken from its
plan when a worker is free, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from orthanc_transfers.pipeline.bucket_size import BucketSize
from orthanc_transfers.pipeline.concurrency import Concurrency
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moved:
    """One bucket that arrived: bytes before the codec, bytes on the network, the codec, and its seconds."""

    size: int
    wire: int
    codec: Codec
    encoding_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class BucketExecutor:
    """Runs as many workers as ``concurrency`` wants and counts what they move into ``progress``.

    ``concurrency``, ``bucket_size`` and ``compression`` learn from each bucket. ``name`` is that of the threads.
    """

    name: str
    concurrency: Concurrency
    bucket_size: BucketSize
    compression: AutoCompression
    progress: Progress
    cancellation: Cancellation
    clock: Clock

    def run(
        self,
        buckets: Iterable[T],
        move: Callable[[T], Moved],
        on_moved: Callable[[T], None] = lambda bucket: None,
    ) -> None:
        """Call ``move`` for every bucket; ``on_moved`` gets each that arrived, before it is counted.

        The first error ends the run and is raised once all workers have ended. Raises ``Canceled``.
        """

        def work(bucket: T) -> None:
            began = self.clock.monotonic()
            moved = move(bucket)
            seconds = self.clock.monotonic() - began
            self.concurrency.record(moved.wire, seconds)
            self.bucket_size.record(moved.size, seconds)
            encoded = moved.codec is not Codec.NONE
            self.compression.record(moved.size, seconds, moved.encoding_seconds, encoded=encoded)
            on_moved(bucket)
            self.progress.bucket_done(moved.size, moved.wire, moved.codec)

        self.progress.start()
        try:
            threads.run_all(self.name, self.concurrency, buckets, work, self.cancellation)
        finally:
            self.progress.stop()
