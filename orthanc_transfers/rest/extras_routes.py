"""Routes that peers call about what travels beside DICOM: labels, metadata, attachments."""

from __future__ import annotations

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.errors import BadRequest, Corrupted, NotFound, TooLarge
from orthanc_transfers.core.extras import MAX_ITEMS, ExtrasMessage, Kind, check_sizes
from orthanc_transfers.core.json_fields import json_object, required_field, string_items
from orthanc_transfers.core.messages_v1 import parse_resources
from orthanc_transfers.core.messages_v2 import XXH3_HEADER
from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.paths import COLLECTIONS
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.protocol_v2 import PushV2
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.rest.http import Request, Response, compact_json_response, json_response
from orthanc_transfers.rest.peer_routes import MAX_BODY_SIZE, busy_when_stopping
from orthanc_transfers.runtime.cancellation import Cancellation

# An object of up to eight keys for each item.
_MAX_VALUES = 20 * MAX_ITEMS

_LEVELS = {collection: level for level, collection in COLLECTIONS.items()}


class ExtrasRoutes:
    """``policy``: what this server takes, and where it is kept."""

    def __init__(self, policy: ExtrasPolicy, pushes: PushService, closing: Cancellation) -> None:
        self._policy = policy
        self._pushes = pushes
        self._v2 = PushV2(pushes)
        self._closing = closing

    def take(self, request: Request) -> Response:
        """``POST /transfers/v2/push/{push}/extras``: the list of items of a push, or its next part."""
        if len(request.body) > MAX_BODY_SIZE:
            raise TooLarge(f"{len(request.body)} bytes in one request are more than {MAX_BODY_SIZE}")
        part = ExtrasMessage.parse(request.json(_MAX_VALUES))
        return json_response({"Needed": self._v2.take_extras(request.groups[0], part)})

    def put_attachment(self, request: Request) -> Response:
        """``PUT /transfers/v2/push/{push}/attachments/{index}/{offset}``."""
        identifier, index, offset = request.groups
        checksum = request.headers.get(XXH3_HEADER)
        if checksum is not None and xxh3([request.body]) != checksum.lower():
            raise Corrupted(
                f"bytes of an attachment of push {identifier} were damaged on the way: send them again"
            )
        self._v2.put_attachment(identifier, int(index), int(offset), request.body)
        return json_response({})

    def listed(self, request: Request) -> Response:
        """``POST /transfers/v2/extras``: what this Orthanc has of some resources."""
        body = json_object(request.json(self._pushes.settings.max_values), "the body")
        resources = parse_resources(required_field(body, "Resources"))
        names = string_items(body, "Kinds")
        kinds = [kind for kind in Kind if kind.value in names]
        with busy_when_stopping():
            found, notes = self._policy.store.listed(resources, kinds, self._closing)
        check_sizes(found)
        message = ExtrasMessage(tuple(found), self._policy.store.name)
        return compact_json_response(request, {**message.to_json(), "Notes": notes})

    def attachment(self, request: Request) -> Response:
        """``GET /transfers/v2/attachments/{collection}/{id}/{number}/{offset}/{size}``."""
        collection, identifier, number, offset, size = request.groups
        if int(size) > MAX_BODY_SIZE:
            raise BadRequest(f"more than {MAX_BODY_SIZE} bytes asked for in one request")
        if int(number) < 1024:
            raise NotFound("only attachments that users defined are given")
        data = self._policy.store.attachment(Resource(_LEVELS[collection], identifier), int(number))
        piece = memoryview(data)[int(offset) : int(offset) + int(size)]
        if len(piece) != int(size):
            raise BadRequest(f"the attachment has {len(data)} bytes")
        return Response(piece, "application/octet-stream", {XXH3_HEADER: xxh3([piece])})
