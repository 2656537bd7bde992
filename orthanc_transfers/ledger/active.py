"""The transfers that run, wait or are paused: jobs of this Orthanc, and pushes that it receives."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from orthanc_transfers.core.transfer_record import ENDED_STATES, TransferRecord, TransferState
from orthanc_transfers.interfaces import Clock, JobQueue, QueuedJob
from orthanc_transfers.ledger.received import active_pushes, push_record
from orthanc_transfers.receiver.registry import Registry

WINDOW = 20.0
"""Seconds over which the speed of a push is measured, by those who ask for it: as ``pipeline.progress`` does."""

# Samples of a push; who asks more often than every second gets no better speed.
_SPACING = 0.9


class ActiveTransfers:
    """Thread-safe; never blocks."""

    def __init__(self, jobs: JobQueue, registry: Registry, clock: Clock) -> None:
        self._jobs = jobs
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def records(self) -> list[TransferRecord]:
        """The newest first."""
        found = [record for job in self._jobs.jobs() if (record := job_record(job)) is not None]
        found += self._pushes()
        return sorted(found, key=lambda record: record.created or 0.0, reverse=True)

    def _pushes(self) -> list[TransferRecord]:
        found = []
        with self._lock:
            before, self._samples = self._samples, {}
            for push in active_pushes(self._registry.all()):
                self._samples[push.id] = samples = before.get(push.id, deque())
                record = push_record(push)
                speed = self._speed(samples, push.wire_size, self._clock.now() - push.created)
                left = (record.size or 0) - (record.done_size or 0)
                # Of the bytes before the codecs, of which ``speed`` counts those after.
                seconds = left / (record.ratio or 1.0) / speed if speed else None
                found.append(
                    replace(
                        record,
                        speed=round(speed),
                        seconds_left=None if seconds is None else round(seconds),
                    )
                )
        return found

    def _speed(self, samples: deque[tuple[float, int]], wire: int, age: float) -> float:
        now = self._clock.monotonic()
        while samples and now - samples[0][0] > WINDOW:
            samples.popleft()
        speed = wire / max(age, 1.0)
        if samples:
            since, before = samples[0]
            if now > since:
                speed = (wire - before) / (now - since)
        if not samples or now - samples[-1][0] >= _SPACING:
            samples.append((now, wire))
        return speed


def job_record(queued: QueuedJob) -> TransferRecord | None:
    """The record of a job that has not ended, in the state that Orthanc's queue gives it."""
    record = queued.job.record()
    if record is None or record.state in ENDED_STATES:
        return None
    if queued.parked:
        return replace(record, state=TransferState.WAITING)
    if record.state is TransferState.PENDING and queued.paused:
        return replace(record, state=TransferState.PAUSED)
    return record
