"""Parks jobs that wait for their peer: Orthanc pauses them, so that none of its few threads is held, and resumes them.

Orthanc's engine has one thread per running job (``ConcurrentJobs``, 2), and a plugin's job cannot be put off, only be
paused (tried on 1.10.1 and 1.12.7). So that a user's own pause or cancel is told from ours, these two commands pass
through here. See docs/decisions/0026-waiting-jobs-are-parked.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.job_states import ENDED
from orthanc_transfers.interfaces import Job, StopReason
from orthanc_transfers.runtime.threads import Periodic

PERIOD = 0.1
"""Seconds between two looks for jobs that need not wait any more."""

PAUSE = "pause"
CANCEL = "cancel"
_RESUME = "resume"


@dataclass(slots=True)
class _Parked:
    job: Job
    canceled: bool = False
    """While our pause was under way, which makes Orthanc forget a cancel."""


@dataclass(slots=True)
class _Command:
    name: str
    steps: int = 0
    """Steps that began since."""


class Parking:
    """Jobs by their identifiers in Orthanc. Thread-safe.

    ``post`` sends an empty ``POST`` to Orthanc and returns its response, or raises ``HostError``. ``state_of`` returns
    the state of a job, ``None`` if it is not known.
    """

    def __init__(self, post: Callable[[str], bytes], state_of: Callable[[str], str | None]) -> None:
        self._post = post
        self._state_of = state_of
        # Held while Orthanc is asked to pause or resume: so no command of a user comes in between. Never taken where
        # Orthanc may hold its own lock: by ``holds`` and ``forget``, which are single operations of a dict.
        self._lock = threading.Lock()
        self._parking: dict[str, bool] = {}
        """Jobs that Orthanc was asked to pause, and has not yet."""
        self._parked: dict[str, _Parked] = {}
        self._commands: dict[str, _Command] = {}
        """What users asked of jobs that were not parked, until Orthanc has stopped them."""
        self._polling = Periodic("parked-jobs", lambda: PERIOD if self._parked else None, self._poll)

    def holds(self, identifier: str) -> bool:
        """Whether the job is paused, or about to be, by us."""
        return identifier in self._parked or identifier in self._parking

    def restore(self, identifier: str, job: Job) -> None:
        """A reloaded job was parked when it was saved; it is resumed after ``started``."""
        self._parked[identifier] = _Parked(job)

    def started(self) -> None:
        """Orthanc has started, its REST API can be used."""
        self._polling.start()

    def step_begins(self, identifier: str, job: Job) -> None:
        """To be called before each step."""
        with self._lock:
            resumed_by_user = self._parked.pop(identifier, None) is not None
            command = self._commands.get(identifier)
            if command is not None:
                command.steps += 1
                # Orthanc stops a running job before its next step but one: this job was not running then.
                if command.steps > 1:
                    del self._commands[identifier]
        if resumed_by_user:
            job.hurry()

    def park(self, identifier: str, job: Job) -> None:
        """To be called after a step, of a job that waits."""
        with self._lock:
            if identifier in self._commands:
                return
            self._parking[identifier] = True
            try:
                self._post(paths.job_command(identifier, PAUSE))
            except HostError:
                self._parking.pop(identifier, None)
                return
            job.rest()

    def stopped(self, identifier: str, job: Job, reason: StopReason) -> bool:
        """To be called when Orthanc stops a job; whether that is our pause, of which the job must not know."""
        with self._lock:
            ours = self._parking.pop(identifier, False)
            command = self._commands.pop(identifier, None)
            if not ours or reason is not StopReason.PAUSED or (command and command.name == PAUSE):
                return False
            self._parked[identifier] = _Parked(job, canceled=command is not None)
        self._polling.start()
        return True

    def command(self, identifier: str, name: str) -> bytes:
        """A user's ``PAUSE`` or ``CANCEL`` of one of our jobs; returns Orthanc's response. Raises ``HostError``."""
        with self._lock:
            parked = self._parked.get(identifier)
            if parked is None or name != PAUSE:
                if parked is None:
                    self._commands[identifier] = _Command(name)
                response = self._post(paths.job_command(identifier, name))
            else:
                response = self._pause_again(identifier)
                parked.job.stop(StopReason.PAUSED)
            if parked is not None:
                self._parked.pop(identifier, None)
            return response

    def forget(self, identifier: str) -> None:
        """A job is gone, or starts over."""
        for known in (self._parked, self._parking, self._commands):
            known.pop(identifier, None)

    def close(self) -> None:
        """Resume nothing any more: Orthanc stops."""
        self._polling.close()

    def _pause_again(self, identifier: str) -> bytes:
        # A user may have resumed it, and it is still in the queue.
        try:
            return self._post(paths.job_command(identifier, PAUSE))
        except HostError:
            return b"{}"

    def _poll(self) -> None:
        for identifier, parked in list(self._parked.items()):
            if parked.canceled or not parked.job.waits:
                self._wake(identifier, parked)

    def _wake(self, identifier: str, parked: _Parked) -> None:
        with self._lock:
            if self._parked.get(identifier) is not parked:
                return
            try:
                self._post(paths.job_command(identifier, CANCEL if parked.canceled else _RESUME))
            except HostError:
                # Orthanc is about to pause it, or a user has resumed or canceled it.
                if self._state_of(identifier) not in ENDED:
                    return
            self._parked.pop(identifier, None)
