"""Jobs that rest: Orthanc cancels a paused job, or one in its queue, without a word to the job.

(Tried on 1.10.1 and 1.12.7.) What such a job has sent or received would stay until it expires; so the state
of those that rest is looked at now and then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.runtime.threads import Periodic

PERIOD = 1.0
"""Seconds between two looks."""

CANCELED = "Failure"
"""What ``GET /jobs/{id}`` says of a canceled job, and of a failed one: a job that rests cannot fail."""

_OVER = frozenset({CANCELED, "Success"})

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Resting:
    canceled: Callable[[], None]
    alive: bool


class PausedJobs:
    """Tells each job that it was canceled while it rested. Thread-safe; a thread runs while any rests.

    ``state_of`` answers the state of a job by its identifier, ``None`` if that cannot be said.
    """

    def __init__(self, state_of: Callable[[str], str | None], period: float = PERIOD) -> None:
        self._state_of = state_of
        self._period = period
        self._lock = threading.Lock()
        self._jobs: dict[str, _Resting] = {}
        self._looks = Periodic(
            "resting-jobs", lambda: self._period if self._jobs else None, self._look_at_all
        )

    def watch(self, identifier: str, canceled: Callable[[], None], *, alive: bool) -> None:
        """A job rests from now on. ``alive``: it is known that it has not ended before."""
        with self._lock:
            self._jobs[identifier] = _Resting(canceled, alive)
        self._looks.start()

    def forget(self, identifier: str) -> None:
        """A job does not rest, or not any more."""
        with self._lock:
            self._jobs.pop(identifier, None)

    def close(self) -> None:
        """Look no more."""
        self._looks.close()

    def _look_at_all(self) -> None:
        with self._lock:
            jobs = dict(self._jobs)
        for identifier, job in jobs.items():
            self._look(identifier, job)

    def _look(self, identifier: str, job: _Resting) -> None:
        state = self._state_of(identifier)
        if state not in _OVER:
            job.alive = job.alive or state is not None
            return
        with self._lock:
            if self._jobs.get(identifier) is not job:
                return  # it went on meanwhile
            del self._jobs[identifier]
        if state == CANCELED and job.alive:
            log.info("job %s was canceled while it was paused", identifier)
            job.canceled()
