"""Notices cancels of paused jobs: Orthanc cancels a paused job, or one in its queue, without telling the job.

(Tried on 1.10.1 and 1.12.7.) What such a job has sent or received would stay until it expires; so the state
of jobs that are paused or queued is polled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.host.job_states import CANCELED, ENDED, FAILURE
from orthanc_transfers.runtime.threads import Periodic

PERIOD = 1.0
"""Seconds between two polls."""

LOOK = 0.01
"""Seconds for each job, at least."""

PAUSED = "Paused"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _PausedJob:
    canceled: Callable[[], None]
    alive: bool
    paused: bool


class PausedJobs:
    """Tells each job that was canceled while it was paused or queued. Thread-safe; a thread runs while there are any.

    ``state_of`` returns the state of a job by its identifier (see ``job_states``), ``None`` if it is not known.
    """

    def __init__(self, state_of: Callable[[str], str | None], period: float = PERIOD) -> None:
        self._state_of = state_of
        self._period = period
        self._lock = threading.Lock()
        self._jobs: dict[str, _PausedJob] = {}
        self._ended: set[str] = set()
        """Jobs that had ended at a poll, and have not begun anew since."""
        self._polling = Periodic("paused-jobs", self._delay, self._poll)

    def watch(self, identifier: str, canceled: Callable[[], None], *, alive: bool, paused: bool) -> None:
        """A job is paused or queued from now on. ``alive``: it is known not to have ended before."""
        with self._lock:
            self._jobs[identifier] = _PausedJob(canceled, alive, paused)
        self._polling.start()

    def is_paused(self, identifier: str) -> bool:
        """Whether a job is paused, as far as is known since the last poll: not in Orthanc's queue."""
        job = self._jobs.get(identifier)
        return job is not None and job.paused

    def has_ended(self, identifier: str) -> bool:
        """Whether a job that was paused, queued or reloaded turned out to have ended."""
        return identifier in self._ended

    def resumed(self, identifier: str) -> None:
        """A job is in the queue again."""
        self._ended.discard(identifier)
        job = self._jobs.get(identifier)
        if job is not None:
            job.paused = False

    def forget(self, identifier: str) -> None:
        """A job runs, or is gone."""
        with self._lock:
            self._jobs.pop(identifier, None)
            self._ended.discard(identifier)

    def close(self) -> None:
        """Stop polling."""
        self._polling.close()

    def _delay(self) -> float | None:
        # Many are looked at more seldom: each look is a request to Orthanc.
        return max(self._period, len(self._jobs) * LOOK) if self._jobs else None

    def _poll(self) -> None:
        with self._lock:
            jobs = dict(self._jobs)
        for identifier, job in jobs.items():
            self._check(identifier, job)

    def _check(self, identifier: str, job: _PausedJob) -> None:
        state = self._state_of(identifier)
        if state not in ENDED:
            job.alive = job.alive or state is not None
            job.paused = state == PAUSED
            return
        with self._lock:
            if self._jobs.get(identifier) is not job:
                return  # resumed meanwhile
            del self._jobs[identifier]
            self._ended.add(identifier)
        # One that was canceled before a restart may not know it yet. A paused one cannot fail.
        if state == CANCELED or (state == FAILURE and job.alive):
            log.info("job %s was canceled while it was paused", identifier)
            job.canceled()
