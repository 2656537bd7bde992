"""Routes that users call: send, pull, peers."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import (
    PeerStatus,
)
from orthanc_transfers.core.json_fields import json_object, required_field, string_field
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import IDENTIFIER, Resource
from orthanc_transfers.interfaces import JobQueue, PeerRequest, PeerTransport
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.submission import Submission
from orthanc_transfers.rest.http import Request, Response, json_response
from orthanc_transfers.rest.peer_status import peer_states
from orthanc_transfers.rest.plain_identifiers import with_levels

log = logging.getLogger(__name__)


class UserRoutes:
    """The routes by which a user starts transfers."""

    def __init__(self, services: Services, jobs: JobQueue, submission: Submission) -> None:
        self._services = services
        self._jobs = jobs
        self._submission = submission

    def send(self, request: Request) -> Response:
        """``POST /transfers/send``: a push job here, or a pull job on a peer that has ``RemoteSelf``."""
        body = json_object(request.json(self._services.settings.max_values), "the body")
        wanted = _parse(body, self._services.store.exists)
        return json_response(self._submission.send(wanted, follow="Synchronous" in body))

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
        return json_response(self._submission.pull(wanted))

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
        if b'"Failure"' not in described:
            return Response(described)  # clients ask again and again
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


def _parse(body: Mapping[str, Any], exists: Callable[[Resource], bool]) -> TransferRequest:
    return TransferRequest.parse(
        {**body, "Resources": with_levels(required_field(body, "Resources"), exists)}
    )
