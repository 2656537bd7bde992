"""Follows a job of a peer that pulls from here, in a job of this Orthanc: ``send`` to a peer with ``RemoteSelf``.

For clients that poll the job of a send here (Orthanc Explorer 2). Nothing is transferred by it: it shows what the other
job shows, and passes on pause, resume, cancel and resubmit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import BadFile, PeerError, PeerInvalidResponse, PeerStatus, TransferError
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import PeerRequest, PeerTransport, StopReason
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.resume import ResumeState, with_identifier
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.runtime import threads

log = logging.getLogger(__name__)

REMOTE_JOB = "RemoteJob"
"""Key of a saved job, and of its content, for the identifier of the peer's job."""

_PAUSED = "RemotePaused"

# Seconds between two looks: often at first, for small transfers.
_LOOKS = (0.1, 0.2, 0.4, 0.7)
_LOOK = 1.0

# Bytes of JSON: what a job of a peer may be described with, and each value of that which is shown here.
_LIMIT = 1 << 20
_VALUE_LIMIT = 4096

_SHOWN = (
    "TotalInstances",
    "TotalSizeMB",
    "CompletedHttpQueries",
    "DownloadedSizeMB",
    "NetworkSpeedKBs",
    "CompressionRatio",
    "Codecs",
    "AlreadyStoredInstances",
    "ResumedSizeMB",
    "Phase",
    "ImportedInstances",
    "EstimatedSecondsLeft",
    "Transaction",
    "Report",
)


class FollowJob(TransferJob):
    """The job of ``POST /transfers/send`` whose work a job of the peer does."""

    # What clients know as the job of a send.
    type = "PushTransfer"
    bytes_key = "UploadedSizeMB"

    def __init__(
        self, services: Services, order: TransferRequest, saved: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(services, order, saved)
        saved = saved or {}
        self._remote_job = str(saved.get(REMOTE_JOB))
        self._remote_paused = saved.get(_PAUSED) is True
        self._resubmitted = False
        self._seen: dict[str, Any] = {}
        self._fraction = 0.0

    def work(self, context: RunContext) -> None:
        """Raises ``PeerError`` when the peer's job failed, or cannot be followed."""
        if self._resubmitted:
            self._command(context.transport, "resubmit")
            self._resubmitted = False
        elif self._remote_paused:
            self._command(context.transport, "resume")
        self._remote_paused = False
        looks = iter(_LOOKS)
        while not self._look(context):
            context.cancellation.wait(next(looks, _LOOK))

    def _look(self, context: RunContext) -> bool:
        """Whether the peer's job succeeded."""
        peer, status = context.peer.name, context.status
        job = self._ask(context.transport)
        content = job.get("Content")
        content = content if isinstance(content, dict) else {}
        self._seen = {key: content[key] for key in _SHOWN if key in content and _is_small(content[key])}
        progress = job.get("Progress")
        if isinstance(progress, int) and 0 <= progress <= 100:
            self._fraction = progress / 100
        state = job.get("State")
        waiting = content.get("Waiting")
        if state == "Paused" and not isinstance(waiting, str):
            waiting = f"job {self._remote_job} is paused on peer {peer}, resume it there"
        status.waiting = waiting if isinstance(waiting, str) and _is_small(waiting) else None
        if state == "Failure":
            error = content.get("Error") or job.get("ErrorDescription")
            reason = error if isinstance(error, str) and _is_small(error) else "it does not say why"
            raise PeerError(
                f"job {self._remote_job} of peer {peer}, which was to pull from here, failed: {reason}", peer
            )
        return state == "Success"

    def _ask(self, transport: PeerTransport) -> Mapping[str, Any]:
        where = f"job {self._remote_job} of peer {transport.name}"
        try:
            response = transport.send(PeerRequest("GET", paths.job(self._remote_job), limit=_LIMIT))
        except PeerStatus as error:
            raise PeerError(
                f"{where}, which pulls from here, cannot be followed (status {error.peer_status}): look for it there",
                transport.name,
            ) from error
        try:
            value = parse_json(response.body)
        except BadFile as error:
            raise PeerInvalidResponse(f"{where} is not described in JSON: {error}", transport.name) from error
        if not isinstance(value, dict):
            raise PeerInvalidResponse(f"{where} is not described by an object", transport.name)
        return value

    def _command(self, transport: PeerTransport, name: str) -> None:
        transport.send(
            PeerRequest("POST", paths.job_command(self._remote_job, name), body=[b"{}"], repeatable=True)
        )

    def _tell(self, name: str) -> None:
        """Pass a command on, in a thread of its own: nothing waits for it."""

        def tell() -> None:
            try:
                transport = self.services.peers.connect(self.order.peer, 1)
                try:
                    self._command(transport, name)
                finally:
                    transport.close()
            except TransferError as error:
                log.warning(
                    "job %s of peer %s: %s failed: %s", self._remote_job, self.order.peer, name, error
                )

        threads.start(f"follow-{name}", tell)

    def undo(self, resume: ResumeState, *, failed: bool) -> None:
        """A cancel here cancels there."""
        if not failed:
            self._tell("cancel")

    def stop(self, reason: StopReason) -> None:
        super().stop(reason)
        if reason is StopReason.PAUSED:
            self._remote_paused = True
            self._tell("pause")

    def reset(self) -> None:
        super().reset()
        self._resubmitted = True

    def content(self) -> dict[str, Any]:
        shown = super().content()
        return {**shown, **self._seen, REMOTE_JOB: self._remote_job} if shown else shown

    def serialized(self) -> dict[str, Any]:
        paused = {_PAUSED: True} if self._remote_paused else {}
        return {**super().serialized(), REMOTE_JOB: self._remote_job, **paused}

    def progress(self) -> float:
        return max(super().progress(), self._fraction)


def new_follow(services: Services, request: TransferRequest, remote_job: str) -> FollowJob:
    """A job that follows the one by which a peer does what a user ordered."""
    return FollowJob(services, with_identifier(request), {REMOTE_JOB: remote_job})


def _is_small(value: Any) -> bool:
    return len(json.dumps(value)) <= _VALUE_LIMIT
