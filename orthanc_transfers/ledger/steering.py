"""Pauses, resumes, cancels and resubmits transfers, and changes their priority, by Orthanc's own jobs engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest, Conflict, HostError, NotFound
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.transfer_record import TransferState
from orthanc_transfers.interfaces import Job, JobQueue, QueuedJob
from orthanc_transfers.jobs.pull import new_pull
from orthanc_transfers.jobs.push import new_push
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.ledger.actions import CANCEL, PAUSE, PRIORITY, RESUBMIT, RESUME, possible_in
from orthanc_transfers.ledger.active import ActiveTransfers, job_record
from orthanc_transfers.ledger.ledger import Ledger

PAUSING = 3.0
"""Seconds that a job may take to pause: it stops between two steps."""

_LOOK = 0.02

_NEW_JOBS: Mapping[str, Callable[[Services, TransferRequest], Job]] = {
    "PushTransfer": new_push,
    "PullTransfer": new_pull,
}


class Steering:
    """Thread-safe. Methods raise ``NotFound``, ``Conflict``, ``BadRequest``, ``HostError`` with one sentence."""

    def __init__(self, jobs: JobQueue, services: Services, ledger: Ledger, active: ActiveTransfers) -> None:
        self._jobs = jobs
        self._services = services
        self._ledger = ledger
        self._active = active

    def act(self, action: str, identifier: str, priority: int | None) -> str | None:
        """Do it with one transfer; returns the identifier of its new job, if it has another one now."""
        queued = next((one for one in self._jobs.jobs() if one.identifier == identifier), None)
        record = None if queued is None else job_record(queued)
        if queued is None or record is None:
            return self._act_on_past(action, identifier, priority)
        if action not in possible_in(record.state):
            raise Conflict(f"transfer {identifier} is {record.state.value}: {_why_not(action, record.state)}")
        if action == PRIORITY:
            assert priority is not None
            return self._change_priority(queued, record.state is TransferState.PAUSED, priority)
        try:
            self._jobs.command(identifier, action)
        except (HostError, BadRequest):
            raise Conflict(
                f"Orthanc cannot {action} transfer {identifier} now: it has changed its state meanwhile"
            ) from None
        return None

    def _act_on_past(self, action: str, identifier: str, priority: int | None) -> str | None:
        found = self._ledger.again(identifier)
        if found is None:
            if any(record.id == identifier for record in self._active.records()):
                raise Conflict(f"push {identifier} is a job of its sender: {action} it there")
            raise NotFound(f"there is no transfer {identifier}")
        shown, order = found
        state = TransferState(shown["State"])
        if action != RESUBMIT:
            raise Conflict(f"transfer {identifier} is {state.value}: {_why_not(action, state)}")
        if order is None:
            raise Conflict(
                f"transfer {identifier} cannot be made again from here: its sender made it, or its order is not known"
            )
        if state is not TransferState.SUCCESS and self._resubmit_job(identifier):
            return None
        wanted = TransferRequest.parse({**order, **({} if priority is None else {"Priority": priority})})
        job = _NEW_JOBS[order["Type"]](self._services, wanted)
        return self._jobs.submit(job, wanted.priority)

    def _resubmit_job(self, identifier: str) -> bool:
        """The same job begins anew, where what had arrived is used, unless Orthanc has forgotten it."""
        try:
            self._jobs.command(identifier, RESUBMIT)
        except (HostError, BadRequest):
            return False
        return True

    def _change_priority(self, queued: QueuedJob, was_paused: bool, priority: int) -> str:
        """A new job takes over: Orthanc gives a job its priority once, when it is submitted."""
        identifier = queued.identifier
        if not was_paused:
            # It must not begin meanwhile.
            self._jobs.command(identifier, PAUSE)
        self._await_pause(identifier)
        job = queued.job
        # Two jobs must not carry the same transfer.
        saved: dict[str, Any] = {**json.loads(json.dumps(job.hand_over())), "Priority": priority}
        new = self._jobs.submit(reload(self._services, job.type, saved), priority)
        self._jobs.command(identifier, CANCEL)
        if was_paused:
            self._jobs.command(new, PAUSE)
        return new

    def _await_pause(self, identifier: str) -> None:
        limit = time.monotonic() + PAUSING
        while json.loads(self._jobs.describe(identifier))["State"] != "Paused":
            if time.monotonic() > limit:
                raise Conflict(f"transfer {identifier} has begun to run meanwhile, its priority stays")
            time.sleep(_LOOK)


def _why_not(action: str, state: TransferState) -> str:
    if action == PRIORITY and state in (TransferState.RUNNING, TransferState.WAITING):
        return "Orthanc gives priorities to jobs in its queue only, pause it first"
    if action == RESUBMIT:
        return "only what has ended can be resubmitted"
    if action == RESUME:
        return "only what is paused or waits can be resumed"
    return f"there is nothing to {action}" if action != PRIORITY else "it has ended"
