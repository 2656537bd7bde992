"""Routes that peers call: lookup, chunks and push of version 1, and all of version 2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from orthanc_transfers._version import __version__
from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import joined
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, choose, content_type, encode, usable
from orthanc_transfers.core.connection_share import SENDER_HEADER, Sender
from orthanc_transfers.core.content_encoding import ACCEPT_ENCODING, accepts
from orthanc_transfers.core.errors import BadFile, BadRequest, Busy, Canceled, Corrupted, NotFound, TooLarge
from orthanc_transfers.core.extras import Accepted
from orthanc_transfers.core.framing import split_head
from orthanc_transfers.core.messages_v1 import (
    SENDER_TRANSFER_ID,
    LookupResponse,
    PushCreated,
    PushCreationV1,
    parse_resources,
)
from orthanc_transfers.core.messages_v2 import (
    CODEC_HEADER,
    ENCODING_HEADER,
    FIRST_HEADER,
    PATIENTS_HEADER,
    PROBE_HEADERS,
    STORED_HEADER,
    WHOLE_HEADER,
    XXH3_HEADER,
    Capabilities,
    ChunksRequest,
    PushCreationV2,
    PushStatus,
    WholePull,
)
from orthanc_transfers.core.model import Beginning, Chunk, Instance, Manifest
from orthanc_transfers.core.report_csv import report_to_csv
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.jobs.transcoded_files import TranscodedFiles
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.receiver.protocol_v1 import PushV1
from orthanc_transfers.receiver.protocol_v2 import PushV2
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.states import FINISHED
from orthanc_transfers.rest.connection_budget import ConnectionBudget
from orthanc_transfers.rest.handing_on import GOES_ON, GOES_ON_AFTER
from orthanc_transfers.rest.http import (
    MAX_VALUES,
    Request,
    Response,
    compact_json_response,
    json_response,
    terse_json_response,
)
from orthanc_transfers.rest.remote_address import remote_address
from orthanc_transfers.rest.whole_pull import WholePulls
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes. Orthanc holds a whole body in memory, and the SDK gives its size in 32 bits; version 2 stays far below.
MAX_BODY_SIZE = 64 * 1024 * 1024

# Bytes. Version 1 bounds no response, but offsets and sizes have 31 bits on C++ peers, and the SDK's responses 32.
_MAX_RESPONSE_SIZE = 2**31 - 1

# Seconds. No proxy gives up on a request of that duration.
MAX_WAIT = 5

WHOLE_WAIT = 1
"""The same for the commit of a push that is one request: from then on its sender asks how far it is."""

# The same for a server that has few connections to spare: others wait for that one. ...
MAX_WAIT_OF_FEW_THREADS = 0.25

# ... And for one that has but one thread for all its clients.
MAX_WAIT_OF_ONE_THREAD = 0.05

# Instances of a report that people may read as it is; the indentation of many takes long.
_FEW = 100


class PeerRoutes:
    """The routes by which other Orthancs fetch from this one, or push to it."""

    def __init__(
        self,
        store: InstanceStore,
        reader: ChunkReader,
        pushes: PushService,
        reports: Reports,
        originator: str,
        tune: Callable[[], None],
        closing: Cancellation,
        budget: ConnectionBudget,
        whole_pulls: WholePulls,
        refreshed: Callable[[dict[str, Any]], dict[str, Any]] = lambda report: report,
        extras: Accepted | None = None,
        transcoded: TranscodedFiles | None = None,
    ) -> None:
        self._refreshed = refreshed
        """A report as it is now."""
        self._store = store
        self._reader = reader
        self._pushes = pushes
        self._v1, self._v2 = PushV1(pushes), PushV2(pushes)
        self._reports = reports
        self._originator = originator
        self._tune = tune
        """To be called before a large response."""
        self._budget = budget
        self._whole_pulls = whole_pulls
        self._closing = closing
        self._extras = extras
        """What is taken beside DICOM."""
        self._transcoded = transcoded

    def lookup(self, request: Request) -> Response:
        """``POST /transfers/lookup``: the instances below some resources, or the first so many of them.

        With all their bytes, if they are wanted, and few.
        """
        whole = _whole_pull(request.headers.get(WHOLE_HEADER))
        resources = parse_resources(request.json(self._pushes.settings.max_values))
        if STORED_HEADER in request.headers:
            resources = tuple(one for one in resources if self._store.exists(one))
        first = request.headers.get(FIRST_HEADER)
        with busy_when_stopping():
            if first is None:
                listed = Beginning(self._store.manifest(resources, self._closing), 0)
            else:
                count = _natural("the number of first instances", first)
                listed = self._store.beginning(resources, count, self._closing)
            patients = None
            if PATIENTS_HEADER in request.headers:
                patients = self._store.patients_of((one.id for one in resources), self._closing)
        found = LookupResponse(listed.manifest.instances, self._originator, listed.more, patients).to_json()
        if whole is not None and listed.whole:
            self._tune()
            carrying = self._whole_pulls.answer(whole, listed.manifest, found)
            if carrying is not None:
                # Most often it asks for nothing more.
                return self._announcing(carrying, request, ended=True)
        response = compact_json_response(request, found)
        if accepts(request.headers.get(ACCEPT_ENCODING)):
            # A client of ours.
            response = self._announcing(response, request)
        return response

    def get_chunks(self, request: Request) -> Response:
        """``GET /transfers/chunks/{id}.{id}…``: exactly the bytes asked for, or an error."""
        compression = request.query.get("compression", "none")
        if compression not in (Codec.NONE.value, Codec.GZIP.value):
            raise BadRequest(f"unknown compression: {compression[:40]!r} (none and gzip are known)")
        offset = _natural("offset", request.query.get("offset", "0"))
        size = _natural("size", request.query.get("size", "0"))
        chunks, manifest = self._chunks_of(request.groups[0].split("."), offset, size)
        if sum(chunk.size for chunk in chunks) > _MAX_RESPONSE_SIZE:
            raise TooLarge(
                f"more than {_MAX_RESPONSE_SIZE} bytes in one response: ask for parts, by offset and size"
            )
        self._tune()
        codec = Codec(compression)
        body = joined(encode(self._reader.read(chunks, manifest), codec))
        return Response(body, content_type(codec))

    def _chunks_of(self, identifiers: Sequence[str], offset: int, size: int) -> tuple[list[Chunk], Manifest]:
        """The chunks asked for, and a manifest of their instances."""
        chunks: list[Chunk] = []
        instances: dict[str, Instance] = {}
        left = size
        for identifier in identifiers:
            if identifier not in instances:
                instances[identifier] = self._store.instance(identifier)
            whole = instances[identifier].size
            if offset >= whole:
                offset -= whole
                continue
            taken = min(whole - offset, left) if size else whole - offset
            chunks.append(Chunk(identifier, offset, taken))
            offset = 0
            left -= taken
            if size and not left:
                break  # identifiers after the last byte asked for are ignored
        if offset or (size and left):
            raise BadRequest("offset and size lie beyond the end of the instances")
        return chunks, Manifest(instances.values())

    def create_push_v1(self, request: Request) -> Response:
        """``POST /transfers/push``."""
        sender = request.headers.get(SENDER_TRANSFER_ID)
        creation = PushCreationV1.parse(request.json(self._pushes.settings.max_values))
        identifier = self._v1.create(creation, sender, remote_address(request.headers))
        return json_response(PushCreated(identifier, paths.push_v1(identifier)).to_json())

    def put_bucket(self, request: Request) -> Response:
        """``PUT /transfers/push/{push}/{bucket index}``."""
        identifier, index = request.groups
        self._v1.put(identifier, _natural("the index of a bucket", index), request.body)
        return json_response({})

    def commit_push_v1(self, request: Request) -> Response:
        """``POST /transfers/push/{push}/commit``: responds when all is imported.

        The node that has handed it on is told now and then that it goes on.
        """
        with busy_when_stopping():
            done = self._v1.commit(request.groups[0], GOES_ON_AFTER if request.handed_on else None)
        return json_response({}) if done else Response(status=GOES_ON)

    def drop_push(self, request: Request) -> Response:
        """``DELETE`` of a push, of either version."""
        self._pushes.drop(request.groups[0])
        return json_response({})

    def capabilities(self, request: Request) -> Response:
        """``GET /transfers/capabilities``."""
        # Where Orthanc has limits, what does not fit is refused before a byte is staged.
        limited = self._pushes.registry.limited
        found = Capabilities(
            (1, 2),
            __version__,
            self._originator,
            usable(),
            MAX_BODY_SIZE,
            growing=not limited,
            parts=True,
            whole=True,
            whole_pulls=True,
            headers=frozenset(PROBE_HEADERS.keys() & request.headers.keys()),
            patients_wanted=limited,
            measurable=True,
            extras=self._extras,
            transcodes=self._transcoded is not None,
            max_connections=self._budget.total,
        )
        response = replace(json_response(found.to_json()), headers=PROBE_HEADERS)
        return self._announcing(response, request, of_transfer=False)

    def create_push_v2(self, request: Request) -> Response:
        """``POST /transfers/v2/push``."""
        sender = request.headers.get(SENDER_TRANSFER_ID)
        creation = PushCreationV2.parse(request.json(self._pushes.settings.max_values))
        with busy_when_stopping():
            status = self._v2.create(creation, sender, remote_address(request.headers))
            return self._announcing(terse_json_response(status.to_json()), request)

    def whole_push(self, request: Request) -> Response:
        """``POST /transfers/v2/push/whole``: responds when its commit ends, or after a while."""
        checksum = request.headers.get(XXH3_HEADER)
        if checksum is not None and xxh3([request.body]) != checksum.lower():
            raise Corrupted("the push was damaged on its way: send it again")
        head, body = split_head(request.body, self._pushes.settings.max_values)
        creation = PushCreationV2.parse(head)
        if creation.manifest.size > MAX_BODY_SIZE:
            raise TooLarge(
                f"{creation.manifest.size} bytes in one request are more than MaxBodySize, {MAX_BODY_SIZE}"
            )
        with busy_when_stopping():
            status = self._v2.carry(
                creation,
                request.headers.get(SENDER_TRANSFER_ID),
                _codec(request.headers.get(CODEC_HEADER, Codec.NONE.value)),
                body,
                received=len(request.body),
                wait=min(WHOLE_WAIT, self._longest_wait),
                address=remote_address(request.headers),
            )
        report = self._reports.take(status.id) if status.state in FINISHED else None
        if report is not None:
            status = replace(status, rows=tuple(report["Instances"]))
        return self._of_push(request, status)

    @property
    def _longest_wait(self) -> float:
        if not self._budget.total:
            return MAX_WAIT_OF_ONE_THREAD
        return MAX_WAIT_OF_FEW_THREADS if self._budget.crowded else MAX_WAIT

    def put_ranges(self, request: Request) -> Response:
        """``PUT /transfers/v2/push/{push}/{offset}/{size}``, the last two again for each further range."""
        identifier, slices = request.groups
        numbers = [_natural("each offset and size", text) for text in slices.split("/")[1:]]
        ranges = list(zip(numbers[::2], numbers[1::2], strict=True))
        size = sum(size for _, size in ranges)
        if size > MAX_BODY_SIZE:
            # The memory for it is taken before it is known whether the body holds as much.
            raise TooLarge(f"{size} bytes in one request are more than MaxBodySize, {MAX_BODY_SIZE}")
        self._v2.put(
            identifier,
            ranges,
            _codec(request.headers.get(CODEC_HEADER, Codec.NONE.value)),
            request.headers.get(XXH3_HEADER),
            request.body,
        )
        return self._announcing(terse_json_response({}), request)

    def push_status(self, request: Request) -> Response:
        """``GET /transfers/v2/push/{push}?wait=``: responds when its commit ends, or after ``wait`` seconds."""
        wait = min(_natural("wait", request.query.get("wait", "0")), self._longest_wait)
        return self._of_push(request, self._v2.status(request.groups[0], wait))

    def commit_push_v2(self, request: Request) -> Response:
        """``POST /transfers/v2/push/{push}/commit``: starts it, and responds at once."""
        return self._of_push(request, self._v2.commit(request.groups[0]))

    def post_chunks(self, request: Request) -> Response:
        """``POST /transfers/v2/chunks``."""
        wanted = ChunksRequest.parse(request.json())
        if sum(chunk.size for chunk in wanted.chunks) > MAX_BODY_SIZE:
            raise BadRequest(f"more than {MAX_BODY_SIZE} bytes asked for in one request")
        if wanted.transcode is None or self._transcoded is None:
            pieces = self._reader.read(wanted.chunks)
        else:
            pieces = self._transcoded.read(wanted.transcode, wanted.chunks)
        self._tune()
        began = time.monotonic()
        codec = choose(wanted.compression, pieces, wanted.codecs)
        body = joined(encode(pieces, codec, wanted.level))
        headers = {
            CODEC_HEADER: codec.value,
            XXH3_HEADER: xxh3([body]),
            ENCODING_HEADER: f"{time.monotonic() - began:.6f}",
        }
        return self._announcing(Response(body, content_type(codec), headers), request)

    def _of_push(self, request: Request, status: PushStatus) -> Response:
        return self._announcing(
            terse_json_response(status.to_json()), request, ended=status.state in FINISHED
        )

    def _announcing(
        self, response: Response, request: Request, *, of_transfer: bool = True, ended: bool = False
    ) -> Response:
        """The response, with the number of connections that its sender may have, or its transfer, or else all."""
        transfer = request.headers.get(SENDER_TRANSFER_ID, "") if of_transfer else None
        headers = self._budget.headers(
            Sender.parse(request.headers.get(SENDER_HEADER)), transfer, ended=ended
        )
        return replace(response, headers={**response.headers, **headers})

    def report(self, request: Request) -> Response:
        """``GET /transfers/reports/{push or job}?format=json|csv&download=1``."""
        form, name = request.query.get("format", "json"), request.groups[0]
        if form not in ("json", "csv"):
            raise BadRequest(f"format must be json or csv, and is {form[:40]!r}")
        report = self._reports.read(name) or self._pushes.registry.ownership.report(name)
        if report is None:
            raise NotFound(f"no commit report is kept for {request.groups[0]}")
        report = self._refreshed(report)
        if form == "csv":
            response = Response(report_to_csv(report).encode(), "text/csv; charset=utf-8")
        else:
            readable = len(report.get("Instances", ())) <= _FEW
            response = json_response(report) if readable else terse_json_response(report)
        if request.query.get("download", "0") not in ("", "0"):
            # The pattern of the route lets no quote or line break into a name.
            named = {"Content-Disposition": f'attachment; filename="report-{name}.{form}"'}
            response = replace(response, headers=named)
        return response


def _whole_pull(header: str | None) -> WholePull | None:
    return None if header is None else WholePull.parse(parse_json(header.encode(), MAX_VALUES))


@contextmanager
def busy_when_stopping() -> Iterator[None]:
    """A request cut short by the stop of this server is to be repeated later."""
    try:
        yield
    except Canceled:
        raise Busy("this Orthanc is stopping, repeat the request when it has started again") from None


def _natural(name: str, text: str) -> int:
    # 19 digits: beyond any file, and no time is lost converting a megabyte of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise BadRequest(f"{name} is not a natural number below 10^19: {text[:40]!r}")
    return int(text)


def _codec(name: str) -> Codec:
    try:
        return Codec(name)
    except ValueError:
        raise BadFile(f"unknown codec: {name[:40]!r}") from None
