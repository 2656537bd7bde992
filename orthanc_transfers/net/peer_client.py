"""The REST API of a peer, as methods: sends the messages of both protocol versions, parses the responses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer, size_of
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, content_type
from orthanc_transfers.core.connection_share import CONNECTIONS_HEADER, parse_connections
from orthanc_transfers.core.content_encoding import (
    ACCEPT_ENCODING,
    CONTENT_ENCODING,
    ZSTD,
    restore,
    shrink,
)
from orthanc_transfers.core.errors import (
    BadFile,
    BadRequest,
    BodyRefused,
    PeerError,
    PeerInvalidResponse,
    PeerStatus,
    TooLarge,
    TransferError,
)
from orthanc_transfers.core.framing import frame_head
from orthanc_transfers.core.messages_v1 import SENDER_TRANSFER_ID, LookupResponse, PushCreated, PushCreationV1
from orthanc_transfers.core.messages_v2 import (
    CODEC_HEADER,
    FIRST_HEADER,
    PATIENTS_HEADER,
    STORED_HEADER,
    WHOLE_HEADER,
    XXH3_HEADER,
    ChunksRequest,
    PushCreationV2,
    PushStatus,
    WholePull,
)
from orthanc_transfers.core.model import Bucket
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import PeerRequest, PeerResponse, PeerTransport
from orthanc_transfers.net.bucket_response import Fetched, decoded, fetched, max_encoded, with_list
from orthanc_transfers.net.retry import RetryingTransport

T = TypeVar("T")

# Seconds, for what is not worth a longer wait.
_SHORT_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class PeerClient:
    """One peer, as seen by one transfer.

    Every method raises what ``PeerTransport.send`` does, and ``PeerInvalidResponse`` if a 200 response is invalid. If
    ``transport`` retries, invalid responses are retried too, but for the methods that say otherwise.

    All requests but those of ``fetch_bucket`` carry the identifier of the transfer, and ``cookie()``: what a load
    balancer set when the transfer began, maybe over a connection that is long closed. Both keep a transfer on one of
    several servers.
    """

    def __init__(
        self,
        transport: PeerTransport,
        sender_transfer_id: str | None,
        cookie: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.name = transport.name
        self.connections: int | None = None
        """How many the peer can spare for this transfer, as it said last; 0: one, not kept alive."""
        self._transport = transport
        self._retrying = transport if isinstance(transport, RetryingTransport) else None
        self._once = self._retrying.without_retries if self._retrying else transport
        self._sender_transfer_id = sender_transfer_id or ""
        self._cookie = cookie

    # --- both versions

    def look_up(
        self,
        resources: Any,
        *,
        timeout: float | None = None,
        first: int | None = None,
        patients: bool = False,
        stored: bool = False,
    ) -> LookupResponse:
        """The instances that the peer has below some resources (JSON), or the ``first`` of them, if it can tell.

        With their ``patients``, if it can tell. ``stored``: resources that it does not have are left out, if it can do
        that; others say 404.
        """
        request = self._look_up(
            resources, {STORED_HEADER: "1"} if stored else {}, timeout=timeout, first=first, patients=patients
        )
        return self._until_valid(lambda: self._parsed(request, LookupResponse.parse)[0])

    def look_up_whole(
        self, resources: Any, whole: WholePull, *, first: int | None, patients: bool
    ) -> tuple[LookupResponse, Fetched | None]:
        """The same, with all the bytes of the instances if they are as few as ``whole`` says."""
        wanted = {WHOLE_HEADER: json.dumps(whole.to_json(), separators=(",", ":"))}
        request = self._look_up(resources, wanted, timeout=None, first=first, patients=patients)

        def look_up() -> tuple[LookupResponse, Fetched | None]:
            response = self._send(self._transport, request)
            if CODEC_HEADER in response.headers:
                return with_list(self.name, response, whole.max_size)
            return self._parse(request, response, LookupResponse.parse), None

        return self._until_valid(look_up)

    def _look_up(
        self,
        resources: Any,
        headers: dict[str, str],
        *,
        timeout: float | None,
        first: int | None,
        patients: bool,
    ) -> PeerRequest:
        headers[ACCEPT_ENCODING] = ZSTD
        if first is not None:
            headers[FIRST_HEADER] = str(first)
        if patients:
            headers[PATIENTS_HEADER] = "1"
        return self._json_post(paths.LOOKUP, resources, headers=headers, timeout=timeout, repeatable=True)

    def originator(self) -> str:
        """The identifier of the process that responds; asked for once."""
        request = self._json_post(paths.LOOKUP, [], timeout=_SHORT_TIMEOUT, repeatable=True)
        return self._parse(request, self._once.send(request), LookupResponse.parse).originator

    def drop(self, push: str) -> None:
        """Tell the peer, once, that the push at this path is not needed any more.

        Logs a failure instead of raising it: there, the push expires.
        """
        request = self._request("DELETE", push, timeout=_SHORT_TIMEOUT)
        try:
            self._once.send(request)
        except PeerError as error:
            if not (isinstance(error, PeerStatus) and error.peer_status == 404):
                log.warning("push %s could not be deleted on peer %s: %s", push, self.name, error)

    # --- version 1

    def create_push_v1(self, creation: PushCreationV1, timeout: float | None) -> tuple[str, str | None]:
        """Create a push: its path, and the cookie that the response sets."""
        request = self._json_post(paths.PUSH_V1, creation.to_json(), timeout=timeout, takes_slot=True)
        created, response = self._until_valid(lambda: self._parsed(request, PushCreated.parse))
        return "/" + created.path.lstrip("/"), _cookie_of(response)

    def put_bucket(self, push: str, index: int, body: Sequence[Buffer]) -> None:
        """Send one bucket, already encoded."""
        request = self._request("PUT", paths.bucket(push, index), body=body)

        def put() -> None:
            try:
                self._acknowledged(self._transport, request)
            except PeerStatus as error:
                if orthanc_code(error) != BadFile.code:
                    raise
                # It was gzip when it left.
                raise PeerInvalidResponse(str(error), self.name) from error

        self._until_valid(put)

    def commit_v1(self, push: str, timeout: float | None, *, retry: bool) -> None:
        """Commit, which lasts until all is imported; ``retry``: whether the request may be sent again."""
        request = self._json_post(paths.commit(push), {}, timeout=timeout)
        if retry:
            self._until_valid(lambda: self._acknowledged(self._transport, request))
        else:
            self._acknowledged(self._once, request)

    def fetch_bucket(self, bucket: Bucket, codec: Codec) -> Fetched:
        """The bytes of one bucket of a pull."""
        # No identifier of the transfer: a pull of version 1 names itself in its lookup only.
        request = PeerRequest("GET", paths.chunks_v1(bucket, codec), limit=max_encoded(bucket.size))

        def fetch() -> Fetched:
            return decoded(self.name, self._transport.send(request).body, codec, bucket.size)

        return self._until_valid(fetch)

    # --- version 2

    def create_push_v2(
        self, creation: PushCreationV2, size: int, *, timeout: float | None, compress: bool, new: bool
    ) -> tuple[PushStatus, str | None]:
        """Create a push, or announce its further instances: its status, and the cookie that the response sets.

        ``size`` are the bytes of all instances announced with this. ``compress``: whether the peer understands a
        request that is compressed with zstd. ``new``: whether it knows none of the push yet, as far as is known.
        """
        request = self._json_post(
            paths.PUSH_V2,
            creation.to_json(),
            timeout=timeout,
            compress=compress,
            repeatable=True,
            takes_slot=new,
        )

        def create() -> tuple[PushStatus, PeerResponse]:
            if not creation.more:
                return self._status(request, size)
            # The peer may know all of it, from an attempt of which this side knows nothing.
            status, response = self._parsed(request, PushStatus.parse)
            area = Range(0, size)
            there = RangeSet(status.missing).missing(area)
            return replace(status, missing=tuple(there.missing(area))), response

        status, response = self._until_valid(create)
        return status, _cookie_of(response)

    def push_whole(
        self, creation: PushCreationV2, body: Sequence[Buffer], codec: Codec, *, compress: bool
    ) -> tuple[PushStatus, str | None]:
        """Create a push, with all its bytes, already encoded, and commit it. Returns what ``create_push_v2`` does."""
        framed = [frame_head(creation.to_json(), compress=compress), *body]
        headers = {
            "content-type": content_type(Codec.NONE),
            CODEC_HEADER: codec.value,
            XXH3_HEADER: xxh3(framed),
        }
        request = self._request("POST", paths.WHOLE_PUSH, body=framed, headers=headers, repeatable=True)
        status, response = self._until_valid(partial(self._status, request, creation.manifest.size))
        return status, _cookie_of(response)

    def put_ranges(self, push: str, items: Sequence[Range], body: Sequence[Buffer], codec: Codec) -> None:
        """Send the bytes of some ranges, already encoded."""
        headers = {
            "content-type": content_type(codec),
            CODEC_HEADER: codec.value,
            XXH3_HEADER: xxh3(body),
        }
        request = self._request("PUT", paths.ranges(push, items), body=body, headers=headers)
        self._until_valid(lambda: self._acknowledged(self._transport, request))

    def commit_v2(self, push: str, size: int) -> PushStatus:
        """Start the commit of a push of ``size`` bytes; returns at once."""
        request = self._json_post(paths.commit(push), {}, repeatable=True)
        return self._until_valid(partial(self._status, request, size))[0]

    def push_status(self, push: str, size: int, *, wait: int) -> PushStatus:
        """The status of a push of ``size`` bytes when its commit ends, or after ``wait`` seconds."""
        request = self._request("GET", paths.status(push, wait))
        return self._until_valid(partial(self._status, request, size))[0]

    def fetch_chunks(self, wanted: ChunksRequest, *, compress: bool) -> Fetched:
        """The bytes of some chunks, end to end. ``compress`` as for ``create_push_v2``."""
        size = sum(chunk.size for chunk in wanted.chunks)
        request = self._json_post(
            paths.CHUNKS_V2,
            wanted.to_json(),
            limit=max_encoded(size),
            compress=compress,
            repeatable=True,
        )
        return self._until_valid(lambda: fetched(self.name, self._send(self._transport, request), size))

    def report(self, identifier: str, *, limit: int) -> Any:
        """The report that the peer has of a push, as JSON of at most ``limit`` bytes; asked for once."""
        return parse_json(self._once.send(self._request("GET", paths.report(identifier), limit=limit)).body)

    # --- requests

    def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> PeerRequest:
        identifying = {SENDER_TRANSFER_ID: self._sender_transfer_id}
        if self.connections == 0:
            # A refusal, which says nothing of connections, must not leave one to block the peer.
            identifying["connection"] = "close"
        if (cookie := self._cookie()) is not None:
            identifying["cookie"] = cookie
        return PeerRequest(method, path, headers={**(headers or {}), **identifying}, **options)

    def _json_post(
        self,
        path: str,
        value: Any,
        *,
        compress: bool = False,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> PeerRequest:
        text = json.dumps(value, separators=(",", ":")).encode()
        body, encoding = shrink(text) if compress else (text, {})
        headers = {"content-type": "application/json", **encoding, **(headers or {})}
        return self._request("POST", path, body=[body], headers=headers, **options)

    def _until_valid(self, attempt: Callable[[], T]) -> T:
        return self._retrying.until_valid(attempt) if self._retrying else attempt()

    # --- responses

    def _send(self, transport: PeerTransport, request: PeerRequest) -> PeerResponse:
        response = _send(transport, request)
        announced = parse_connections(response.headers.get(CONNECTIONS_HEADER))
        if announced is not None:
            self.connections = announced
        return response

    def _parsed(self, request: PeerRequest, parse: Callable[[Any], T]) -> tuple[T, PeerResponse]:
        response = self._send(self._transport, request)
        return self._parse(request, response, parse), response

    def _parse(self, request: PeerRequest, response: PeerResponse, parse: Callable[[Any], T]) -> T:
        try:
            text = restore(response.body, response.headers.get(CONTENT_ENCODING))
            return parse(parse_json(text))
        except (BadRequest, TooLarge) as error:
            path = request.path.partition("?")[0]
            raise PeerInvalidResponse(
                f"peer {self.name} sent an invalid response to {request.method} {path}: {error}", self.name
            ) from error

    def _acknowledged(self, transport: PeerTransport, request: PeerRequest) -> None:
        """Send a request that the peer itself, not a proxy, has to acknowledge: by any JSON object."""

        def parse(value: Any) -> None:
            if not isinstance(value, dict):
                raise BadRequest("it is no JSON object")

        self._parse(request, self._send(transport, request), parse)

    def _status(self, request: PeerRequest, size: int) -> tuple[PushStatus, PeerResponse]:
        status, response = self._parsed(request, PushStatus.parse)
        if any(item.stop > size for item in status.missing):
            raise PeerInvalidResponse(
                f"peer {self.name} reports missing ranges beyond the end of the push", self.name
            )
        return status, response


def _send(transport: PeerTransport, request: PeerRequest) -> PeerResponse:
    """Raises what ``PeerTransport.send`` does; ``BodyRefused`` for a 413 that is not of Orthanc."""
    try:
        return transport.send(request)
    except PeerStatus as error:
        sent = size_of(request.body)
        if error.peer_status != 413 or not sent or orthanc_code(error) is not None:
            raise
        less = "lower BucketSize here" if request.method == "PUT" else "send fewer instances at once"
        raise BodyRefused(
            f"{error}; something in front of this peer takes no request of {sent} bytes:"
            f" raise its limit there (client_max_body_size of nginx), or {less}",
            error,
            sent,
        ) from None


def orthanc_code(error: PeerStatus) -> int | None:
    """The code of Orthanc's error, as in ``core.errors``; ``None`` if it is not Orthanc that responded."""
    try:
        value = parse_json(error.body)
    except TransferError:
        return None
    code = value.get("OrthancStatus") if isinstance(value, dict) else None
    return code if type(code) is int else None


def _cookie_of(response: PeerResponse) -> str | None:
    """The name and the value of the cookie that a response sets."""
    return response.headers.get("set-cookie", "").partition(";")[0].strip() or None
