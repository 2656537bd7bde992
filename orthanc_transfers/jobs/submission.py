"""Starts transfers, for a user or a rule: a job here, or one of a peer that is to pull from here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import BadFile, BadRequest, PeerInvalidResponse
from orthanc_transfers.core.messages_v1 import SENDER_TRANSFER_ID, TransferRequest
from orthanc_transfers.core.peers import join
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.core.transfer_syntaxes import transcode_to_json
from orthanc_transfers.interfaces import Job, JobQueue, PeerRequest
from orthanc_transfers.jobs.follow import new_follow
from orthanc_transfers.jobs.pull import new_pull
from orthanc_transfers.jobs.push import new_push
from orthanc_transfers.jobs.services import Services


class Submission:
    """Methods return the response to the user's request, and raise any ``TransferError``. Thread-safe."""

    def __init__(self, services: Services, jobs: JobQueue) -> None:
        self._services = services
        self._jobs = jobs

    def send(self, wanted: TransferRequest, *, follow: bool, durable: bool = True) -> dict[str, Any]:
        """A push job here, or a pull job on a peer that has ``RemoteSelf``; ``follow``: and a job here."""
        remote_self = self._services.peers.remote_self(wanted.peer)
        _check_not_empty(wanted)
        if remote_self is not None:
            return self._ask_to_pull(wanted, remote_self, follow=follow)
        return self._submit(wanted, new_push, durable=durable)

    def pull(self, wanted: TransferRequest) -> dict[str, Any]:
        """A pull job here."""
        # Reported now, not by the job: an unknown peer, and that nothing may be received.
        self._services.peers.remote_self(wanted.peer)
        _check_not_empty(wanted)
        self._services.registry.check_writable()
        return self._submit(wanted, new_pull)

    def _submit(
        self,
        wanted: TransferRequest,
        make: Callable[[Services, TransferRequest], Job],
        *,
        durable: bool = True,
    ) -> dict[str, Any]:
        identifier = self._jobs.submit(make(self._services, wanted), wanted.priority, durable=durable)
        return {"ID": identifier, "Path": paths.job(identifier)}

    def _ask_to_pull(self, wanted: TransferRequest, remote_self: str, *, follow: bool) -> dict[str, Any]:
        services = self._services
        transport = services.peers.connect(wanted.peer, 1)
        try:
            if wanted.transcode is not None:
                found = services.capabilities.capabilities(transport)
                if found is None or not found.transcodes:
                    raise BadRequest(
                        f"peer {wanted.peer} has RemoteSelf, so it pulls, and it cannot ask for Transcode: name it once"
                        " more without that"
                    )
            compression = wanted.compression
            if (
                compression in (Compression.AUTO, Compression.ZSTD)
                and services.capabilities.capabilities(transport) is None
            ):
                compression = Compression.GZIP  # all that version 1 knows besides none
            message = {
                "Resources": wanted.resources_json,
                "Compression": compression.value,
                "Originator": services.originator,
                "Peer": remote_self,
                **transcode_to_json(wanted.transcode),
                **wanted.extras.to_json(),
            }
            response = transport.send(
                PeerRequest(
                    "POST",
                    paths.PULL,
                    body=[json.dumps(message).encode()],
                    headers={
                        "content-type": "application/json",
                        SENDER_TRANSFER_ID: wanted.sender_transfer_id or str(uuid.uuid4()),
                    },
                )
            )
            job, path = _remote_job(wanted.peer, response.body)
            told = {"Peer": wanted.peer, "RemoteJob": job, "URL": join(transport.url, path)}
            if not follow:
                return told
            here = self._jobs.submit(new_follow(services, wanted, job), wanted.priority)
            return {"ID": here, "Path": paths.job(here), **told}
        finally:
            transport.close()


def _check_not_empty(wanted: TransferRequest) -> None:
    if not wanted.resources:
        raise BadRequest('"Resources" is empty: name at least one patient, study, series or instance')


def _remote_job(peer: str, body: Buffer) -> tuple[str, str]:
    value: Any
    try:
        value = parse_json(body)
        job, path = value["ID"], value["Path"]
    except (BadFile, KeyError, TypeError):
        job = path = None
    if not isinstance(job, str) or not isinstance(path, str):
        raise PeerInvalidResponse(
            f"peer {peer} did not tell which job it started for the pull: look for the transfer among its jobs",
            peer,
        )
    return job, path
