"""Our jobs as jobs of Orthanc's own engine."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import ABSENT, BadRequest, HostError, NotFound, TransferError
from orthanc_transfers.host.job_states import CANCELED, FAILURE
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.parking import CANCEL, PAUSE, Parking
from orthanc_transfers.host.paused_jobs import PAUSED, PausedJobs
from orthanc_transfers.interfaces import Job, QueuedJob, StepOutcome, StopReason
from orthanc_transfers.runtime import threads

logger = logging.getLogger(__name__)

JOB_TYPES = ("PushTransfer", "PullTransfer")

RELEASE_TIMEOUT = 2.0
"""Seconds that a stop of Orthanc may wait for our jobs."""

# Seconds between two steps of a job that was released because Orthanc stops.
_IDLE_STEP = 0.05

# Key of a saved job for its identifier, which Orthanc does not tell to a job that it reloads. It saves a running job as
# of its last step, and no more often than each 10 s: one that has just begun, before it is known (1.10.1 to 1.12.9).
_IDENTIFIER = "JobID"

# How often, and after how many seconds, jobs without an identifier are looked for.
_ATTEMPTS, _AGAIN = 5, 1.0

# Key of a saved job that was parked, so that its pause is no user's.
_PARKED = "Parked"


class _Texts:
    """Texts that Orthanc may still be reading: a thread reads the one that it got before it asks for another.

    So there is one for each thread of Orthanc that ever asked, however many jobs it keeps and however often they are
    looked at.
    """

    def __init__(self) -> None:
        # Needs no lock: each use is a single operation of a dict.
        self._last: dict[int, bytes] = {}

    def keep(self, value: dict[str, Any]) -> int | None:
        """The address of a JSON text, which lives until the calling thread calls again."""
        text = json.dumps(value).encode()
        self._last[threading.get_ident()] = text
        return ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value


class _Entry:
    """A job, and its identifier in Orthanc."""

    def __init__(self, job: Job, identifier: str | None = None) -> None:
        self.job = job
        self.identifier = identifier
        self.reloaded = False
        self.released = False
        self.stepped = False

    def release(self) -> None:
        """Once, and whatever happens: the job may be finalized while everything is being released."""
        if not self.released:
            self.released = True
            self.job.release()


@contextlib.contextmanager
def _unknown_is_not_found(identifier: str) -> Iterator[None]:
    try:
        yield
    except HostError as error:
        if error.code in ABSENT:
            raise NotFound(f"Orthanc knows no job {identifier}") from None
        raise


class JobEngine:
    """Implements ``interfaces.JobQueue``. Reloads saved jobs through ``reload(type, serialized)``.

    ``on_submitted`` is called after each submission.
    To be created while Orthanc loads its plugins: saved jobs are reloaded soon after.
    """

    def __init__(
        self,
        sdk: Sdk,
        reload: Callable[[str, dict[str, Any]], Job],
        on_submitted: Callable[[], None] = lambda: None,
        types: Collection[str] = JOB_TYPES,
    ) -> None:
        self._sdk = sdk
        self._reload = reload
        self._on_submitted = on_submitted
        self._types = frozenset(types)
        self._handles = itertools.count(1)
        # Needs no lock: each use is a single operation of a dict.
        self._entries: dict[int, _Entry] = {}
        self._texts = _Texts()
        self._callbacks = sdk.job_callbacks(
            finalize=self._finalize,
            progress=self._progress,
            content=self._content,
            serialized=self._serialized,
            step=self._step,
            stop=self._stop,
            reset=self._reset,
        )
        self._paused = PausedJobs(self._state_of)
        self._parking = Parking(lambda uri: sdk.rest_post(uri, b""), self._state_of)
        sdk.register_jobs_unserializer(self._unserialize)

    def submit(self, job: Job, priority: int, *, durable: bool = True) -> str:
        """Queue a job; returns its identifier. Raises ``HostError``."""
        entry = _Entry(job)
        native = self._create(entry)
        try:
            entry.identifier = self._sdk.submit_job(native, priority)
        except TransferError:
            self._sdk.free_job(native)
            raise
        job.set_identifier(entry.identifier)
        if durable:
            self._on_submitted()
        return entry.identifier

    def command(self, identifier: str, name: str) -> bytes:
        """See ``interfaces.JobQueue``."""
        try:
            entry = self._entry(identifier)
            if entry is None or name not in (PAUSE, CANCEL):
                response = self._sdk.rest_post(paths.job_command(identifier, name), b"")
                self._paused.resumed(identifier)
                return response
            response = self._parking.command(identifier, name)
            if name == CANCEL and not entry.stepped:
                # Orthanc tells a job in its queue nothing.
                self._watch(entry, alive=True, paused=False)
            elif name == PAUSE and self._state_of(identifier) == PAUSED:
                self._watch(entry, alive=True, paused=True)
            return response
        except HostError as error:
            if error.code == Code.UNKNOWN_RESOURCE:
                # As Orthanc responds itself.
                raise BadRequest(f"Orthanc cannot {name} a job {identifier}: it knows none") from None
            raise

    def _entry(self, identifier: str) -> _Entry | None:
        entries = list(self._entries.values())
        return next((entry for entry in entries if entry.identifier == identifier), None)

    def describe(self, identifier: str) -> bytes:
        """See ``interfaces.JobQueue``."""
        with _unknown_is_not_found(identifier):
            return self._sdk.rest_get(paths.job(identifier))

    def delete(self, identifier: str) -> None:
        """See ``interfaces.JobQueue``."""
        with _unknown_is_not_found(identifier):
            self._sdk.rest_delete(paths.job(identifier))

    def jobs(self) -> list[QueuedJob]:
        """See ``interfaces.JobQueue``."""
        return [
            QueuedJob(
                entry.identifier,
                entry.job,
                paused=self._paused.is_paused(entry.identifier),
                parked=self._parking.holds(entry.identifier),
            )
            for entry in list(self._entries.values())
            if entry.identifier is not None and not self._paused.has_ended(entry.identifier)
        ]

    def started(self) -> None:
        """Orthanc has started: jobs that were parked before may go on."""
        self._parking.started()
        # Not here: Orthanc holds the lock of its changes, for which one of its threads may wait that has the lock of
        # its jobs (tried on 1.10.1: neither ever ends).
        threads.start("identify-jobs", self._identify)

    def release_all(self, timeout: float = RELEASE_TIMEOUT) -> None:
        """Release all jobs in parallel, before Orthanc stops; returns within ``timeout`` seconds.

        Orthanc may go on asking for what it is going to save: the jobs stay known until it finalizes them.
        """
        self._paused.close()
        self._parking.close()
        end = time.monotonic() + timeout
        releasing = [
            threads.start("release", entry.release)
            for entry in list(self._entries.values())
            if not entry.released
        ]
        for thread in releasing:
            thread.join(max(0.0, end - time.monotonic()))

    def _identify(self) -> None:
        for _ in range(_ATTEMPTS):
            if self._are_identified():
                return
            time.sleep(_AGAIN)
        logger.warning("jobs that had just begun when Orthanc ended are left out of the list of transfers")

    def _are_identified(self) -> bool:
        """Find the identifiers of jobs that were saved without: Orthanc reloads jobs in the order of these.

        Returns false if one is being submitted or forgotten at this very moment.
        """
        if all(entry.identifier is not None for entry in list(self._entries.values()) if entry.reloaded):
            return True
        listed = json.loads(self._sdk.rest_get(f"{paths.JOBS}?expand"))
        entries = list(self._entries.values())
        reloaded = [entry for entry in entries if entry.reloaded]
        new = {entry.identifier for entry in entries if not entry.reloaded}
        found = sorted(job["ID"] for job in listed if job["Type"] in self._types and job["ID"] not in new)
        if len(found) != len(reloaded) or any(
            entry.identifier not in (None, identifier)
            for entry, identifier in zip(reloaded, found, strict=True)
        ):
            return False
        for entry, identifier in zip(reloaded, found, strict=True):
            if entry.identifier is None:
                entry.identifier = identifier
                entry.job.set_identifier(identifier)
                if not entry.stepped:
                    self._watch(entry, alive=False, paused=False)
        return True

    def _create(self, entry: _Entry) -> int:
        handle = next(self._handles)
        self._entries[handle] = entry
        try:
            return self._sdk.create_job(entry.job.type, handle, self._callbacks)
        except TransferError:
            del self._entries[handle]
            raise

    def _unserialize(self, type_: str, serialized: bytes) -> int | None:
        if type_ not in self._types:
            return None
        try:
            saved = json.loads(serialized)
            # Orthanc adds it, and refuses a job that has it of its own.
            saved.pop("Type", None)
            identifier = saved.pop(_IDENTIFIER, None)
            parked = saved.pop(_PARKED, None) is True
            entry = _Entry(self._reload(type_, saved), identifier)
            entry.reloaded = True
            if identifier is not None:
                entry.job.set_identifier(identifier)
            native = self._create(entry)
            # It may have ended long ago, or be paused, or about to run.
            self._watch(entry, alive=False, paused=False)
            if identifier is not None and parked:
                self._parking.restore(identifier, entry.job)
            return native
        except Exception:
            logger.exception("a saved job %s cannot be reloaded", type_)
            return None

    def _watch(self, entry: _Entry, *, alive: bool, paused: bool) -> None:
        if entry.identifier is not None:
            self._paused.watch(
                entry.identifier, lambda: entry.job.stop(StopReason.CANCELED), alive=alive, paused=paused
            )

    def _state_of(self, identifier: str) -> str | None:
        try:
            job = json.loads(self._sdk.rest_get(paths.job(identifier)))
            canceled = job["State"] == FAILURE and job.get("ErrorCode") == Code.CANCELED_JOB
            return CANCELED if canceled else str(job["State"])
        except HostError:
            return None  # forgotten, or Orthanc is still starting

    def _finalize(self, handle: int) -> None:
        entry = self._entries.pop(handle, None)
        if entry is not None:
            if entry.identifier is not None:
                self._paused.forget(entry.identifier)
                self._parking.forget(entry.identifier)
            entry.release()

    def _progress(self, handle: int) -> float:
        return self._entries[handle].job.progress()

    def _content(self, handle: int) -> int | None:
        entry = self._entries[handle]
        content = entry.job.content()
        failure = entry.job.failure()
        if failure is not None:
            # Orthanc shows its own description of error 1, whatever a plugin's job does: this is the one field
            # of ``GET /jobs/{id}`` that can say what happened.
            content = {**content, "Error": failure}
        return self._texts.keep(content)

    def _serialized(self, handle: int) -> int | None:
        entry = self._entries[handle]
        saved = entry.job.serialized()
        if entry.identifier:
            saved = {**saved, _IDENTIFIER: entry.identifier}
            if self._parking.holds(entry.identifier):
                saved[_PARKED] = True
        return self._texts.keep(saved)

    def _step(self, handle: int) -> int:
        entry = self._entries[handle]
        entry.stepped = True
        if entry.identifier is not None:
            self._paused.forget(entry.identifier)
            self._parking.step_begins(entry.identifier, entry.job)
        if not entry.released:
            outcome = entry.job.step()
            # A job cut short by the stop of Orthanc has not failed: it resumes after the next start.
            if outcome is not StepOutcome.FAILURE or not entry.released:
                if outcome is StepOutcome.FAILURE:
                    logger.error("%s failed: %s", entry.job.type, entry.job.failure())
                elif entry.identifier is not None and entry.job.waits:
                    self._parking.park(entry.identifier, entry.job)
                return outcome.value
        time.sleep(_IDLE_STEP)
        return StepOutcome.CONTINUE.value

    def _stop(self, handle: int, reason: int) -> int:
        entry = self._entries[handle]
        identifier = entry.identifier
        if identifier is None or not self._parking.stopped(identifier, entry.job, StopReason(reason)):
            entry.job.stop(StopReason(reason))
        if reason == StopReason.PAUSED.value:
            self._watch(entry, alive=True, paused=True)
        return Code.SUCCESS

    def _reset(self, handle: int) -> int:
        entry = self._entries[handle]
        if entry.identifier is not None:
            self._parking.forget(entry.identifier)
            self._paused.resumed(entry.identifier)
        entry.job.reset()
        return Code.SUCCESS
