"""Routes that users call: send, pull, peers."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import (
    BadFile,
    BadRequest,
    PeerInvalidResponse,
    PeerStatus,
)
from orthanc_transfers.core.json_fields import json_object, required_field, string_field
from orthanc_transfers.core.messages_v1 import SENDER_TRANSFER_ID, TransferRequest
from orthanc_transfers.core.model import IDENTIFIER, Resource
from orthanc_transfers.core.peers import join
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import Job, JobQueue, PeerRequest, PeerTransport
from orthanc_transfers.jobs.follow import new_follow
from orthanc_transfers.jobs.pull import new_pull
from orthanc_transfers.jobs.push import new_push
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rest.http import Request, Response, json_response
from orthanc_transfers.rest.peer_status import peer_states
from orthanc_transfers.rest.plain_identifiers import with_levels

log = logging.getLogger(__name__)


class UserRoutes:
    """The routes by which a user starts transfers."""

    def __init__(self, services: Services, jobs: JobQueue) -> None:
        self._services = services
        self._jobs = jobs

    def send(self, request: Request) -> Response:
        """``POST /transfers/send``: a push job here, or a pull job on a peer that has ``RemoteSelf``."""
        body = json_object(request.json(self._services.settings.max_values), "the body")
        wanted = _parse(body, self._services.store.exists)
        remote_self = self._services.peers.remote_self(wanted.peer)
        _check_not_empty(wanted)
        if remote_self is not None:
            return self._ask_to_pull(wanted, remote_self, follow="Synchronous" in body)
        return self._submit(wanted, new_push)

    def pull(self, request: Request) -> Response:
        """``POST /transfers/pull``: a pull job here."""
        body = json_object(request.json(self._services.settings.max_values), "the body")
        with contextlib.ExitStack() as stack:

            @functools.cache
            def transport() -> PeerTransport:
                # One for all questions, and none where there is no question.
                peer = self._services.peers.connect(string_field(body, "Peer"), 1)
                stack.callback(peer.close)
                return peer

            wanted = _parse(body, lambda resource: self._exists_on_peer(transport, resource))
        # Reported now, not by the job: an unknown peer, and that nothing may be received.
        self._services.peers.remote_self(wanted.peer)
        _check_not_empty(wanted)
        self._services.registry.check_writable()
        return self._submit(wanted, new_pull)

    def list_peers(self, request: Request) -> Response:
        """``GET /transfers/peers``: which peers have the plugin, all asked in parallel."""
        found = peer_states(self._services, plugins_only=True)
        return json_response({name: status.state for name, status in found.items()})

    def command_job(self, name: str, request: Request) -> Response:
        """``POST /jobs/{id}/pause`` and ``/cancel``, of any job: Orthanc's own, told apart from what we ask of it."""
        return Response(self._jobs.command(request.groups[0], name))

    def describe_job(self, request: Request) -> Response:
        """``GET /jobs/{id}``, of any job: Orthanc's own, and our error in its ``ErrorDetails``, if it has that."""
        described = self._jobs.describe(request.groups[0])
        job = json.loads(described)
        content = job.get("Content")
        error = content.get("Error") if isinstance(content, dict) else None
        if "ErrorDetails" not in job or job.get("State") != "Failure" or not isinstance(error, str):
            return Response(described)
        return json_response({**job, "ErrorDetails": error})

    def delete_job(self, request: Request) -> Response:
        """``DELETE /jobs/{id}``, of any job: Orthanc's own, since a route of a plugin takes all methods of its path."""
        self._jobs.delete(request.groups[0])
        return Response(b"{}")

    def _exists_on_peer(self, transport: Callable[[], PeerTransport], resource: Resource) -> bool:
        if not IDENTIFIER.fullmatch(resource.id):
            return False
        timeout = self._services.settings.peer_connectivity_timeout
        try:
            transport().send(PeerRequest("GET", paths.resource_path(resource), timeout=timeout))
        except PeerStatus as error:
            if error.peer_status == 404:
                return False
            raise
        return True

    def _submit(self, wanted: TransferRequest, make: Callable[[Services, TransferRequest], Job]) -> Response:
        identifier = self._jobs.submit(make(self._services, wanted), wanted.priority)
        return json_response({"ID": identifier, "Path": paths.job(identifier)})

    def _ask_to_pull(self, wanted: TransferRequest, remote_self: str, *, follow: bool) -> Response:
        services = self._services
        transport = services.peers.connect(wanted.peer, 1)
        try:
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
            response_json = {"Peer": wanted.peer, "RemoteJob": job, "URL": join(transport.url, path)}
            if follow:
                here = self._jobs.submit(new_follow(services, wanted, job), wanted.priority)
                response_json = {"ID": here, "Path": paths.job(here), **response_json}
            return json_response(response_json)
        finally:
            transport.close()


def _parse(body: Mapping[str, Any], exists: Callable[[Resource], bool]) -> TransferRequest:
    return TransferRequest.parse(
        {**body, "Resources": with_levels(required_field(body, "Resources"), exists)}
    )


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
