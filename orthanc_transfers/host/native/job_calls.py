"""Calls of Orthanc's SDK about jobs: creating and submitting them, and reloading those that were saved."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_void_p
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.calls import Calls, guarded, immortal, keep_thread_state, text
from orthanc_transfers.host.native.structures import Code, Service

_STEP_FAILURE = 2  # OrthancPluginJobStepStatus_Failure


@dataclass(frozen=True, slots=True)
class JobCallbacks:
    """The C functions that Orthanc calls for a job; made by ``JobCalls.job_callbacks``."""

    finalize: Any
    progress: Any
    content: Any
    serialized: Any
    step: Any
    stop: Any
    reset: Any


class JobCalls(Calls):
    """Jobs of Orthanc's engine. A job is known to Orthanc by an address, and to us by a handle of our own."""

    def job_callbacks(
        self,
        *,
        finalize: Callable[[int], None],
        progress: Callable[[int], float],
        content: Callable[[int], int | None],
        serialized: Callable[[int], int | None],
        step: Callable[[int], int],
        stop: Callable[[int, int], int],
        reset: Callable[[int], int],
    ) -> JobCallbacks:
        """C functions from Python ones; each gets the handle that ``create_job`` was given.

        ``content`` and ``serialized`` return the address of a JSON text that outlives the call.
        """

        def stepped(handle: int) -> int:
            # One of the threads of Orthanc's jobs engine, which live as long as it, and ask for much after each step.
            keep_thread_state()
            return step(handle)

        return JobCallbacks(
            finalize=immortal(structures.JobFinalize(guarded(finalize, None))),
            progress=immortal(structures.JobGetProgress(guarded(progress, 0.0))),
            content=immortal(structures.JobGetText(guarded(content, None))),
            serialized=immortal(structures.JobGetText(guarded(serialized, None))),
            step=immortal(structures.JobStep(guarded(stepped, _STEP_FAILURE))),
            stop=immortal(structures.JobStop(guarded(stop, Code.PLUGIN))),
            reset=immortal(structures.JobReset(guarded(reset, Code.PLUGIN))),
        )

    def create_job(self, type_: str, handle: int, callbacks: JobCallbacks) -> int:
        """Create a job of Orthanc's; returns its address, for ``submit_job``, ``free_job`` or the unserializer."""
        target = c_void_p()
        parameters = structures.CreateJob(
            ctypes.pointer(target),
            handle,
            callbacks.finalize,
            text(type_),
            callbacks.progress,
            callbacks.content,
            callbacks.serialized,
            callbacks.step,
            callbacks.stop,
            callbacks.reset,
        )
        self._call(Service.CREATE_JOB, parameters, f"creating a job {type_}")
        if not target.value:
            raise HostError(f"Orthanc created no job {type_}", Code.PLUGIN)
        return target.value

    def submit_job(self, job: int, priority: int) -> str:
        """Queue a job, which belongs to Orthanc from then on; returns its identifier."""
        result = c_void_p()
        parameters = structures.SubmitJob(ctypes.pointer(result), job, priority)
        self._call(Service.SUBMIT_JOB, parameters, "submitting a job")
        return self._taken_string(result).decode("ascii")

    def free_job(self, job: int) -> None:
        """Destroy a job that was not submitted."""
        self._invoke(self._context, Service.FREE_JOB, byref(structures.FreeJob(job)))

    def register_jobs_unserializer(self, callback: Callable[[str, bytes], int | None]) -> None:
        """``callback`` gets the type and the JSON of a saved job; it returns a job, or ``None``: not ours."""

        def unserialize(type_: bytes, serialized: bytes) -> int | None:
            return callback(type_.decode(errors="replace"), serialized)

        thunk = structures.JobsUnserializer(guarded(unserialize, None))
        parameters = structures.RegisterJobsUnserializer(immortal(thunk))
        self._call(Service.REGISTER_JOBS_UNSERIALIZER, parameters, "registering for saved jobs")
