"""Two Orthancs in memory: our jobs on one side, our routes on the other, and a line between them to be cut.

Everything is real but Orthanc (a dictionary of files) and the network (a call of the route's handler).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import (
    Busy,
    Canceled,
    ImportRefused,
    PeerStatus,
    TransferError,
    UnknownPeer,
    UnknownResource,
)
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Beginning, Instance, Level, Manifest, Resource
from orthanc_transfers.core.settings import Settings, parse_settings
from orthanc_transfers.interfaces import (
    Imported,
    ImportStatus,
    Job,
    PeerRequest,
    PeerResponse,
    StepOutcome,
    StopReason,
)
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.jobs.pull import new_pull
from orthanc_transfers.jobs.push import new_push
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.net.body_limits import BodyLimits
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.staging import SENT, Staging
from orthanc_transfers.rest.http import Request
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.plugin_routes import PluginRoutes
from orthanc_transfers.rest.routes import routes
from orthanc_transfers.rest.user_routes import UserRoutes
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock

STUDY = "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000001"

KB = 1024


def settings(**options: Any) -> Settings:
    """Small buckets, so that a few files make several."""
    return parse_settings({"Threads": 3, "BucketSize": 4, "MaxOutage": 30, **options})


def file(number: int, size: int = 3000) -> bytes:
    """A "DICOM file" of words of 16 bits that compress; its first 16 bytes stand for its UIDs."""
    words = bytearray()
    value = number
    while len(words) < size:
        value = (value * 31 + 7) % 1021
        words += (1000 + value % 64).to_bytes(2, "little")
    return number.to_bytes(16, "little") + bytes(words[: size - 16])


def identify(data: Buffer) -> str:
    """The identifier that "Orthanc" computes from a file."""
    digest = hashlib.sha1(bytes(data[:16])).hexdigest()
    return "-".join(digest[index : index + 8] for index in range(0, 40, 8))


class BriefCancellation(Cancellation):
    """Lets retries wait a hundredth of their time, and notice a cancel as ever."""

    def wait(self, seconds: float) -> None:
        super().wait(seconds / 100)


class MemoryStore:
    """``interfaces.InstanceStore``: files in a dictionary, in one study, or each by itself."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.listed: dict[str, str] = {}
        """MD5s in the "index" that differ from those of the files."""
        self.before_add: Callable[[], None] = lambda: None
        self.before_md5s: Callable[[Cancellation], None] = lambda cancellation: None
        self.before_manifest: Callable[[], None] = lambda: None
        """Called before all are listed, not before the first are."""
        self._lock = threading.Lock()

    def put(self, *files: bytes) -> list[str]:
        for data in files:
            self.files[identify(data)] = data
        return [identify(data) for data in files]

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        self.before_manifest()
        return self._manifest(resources)

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        whole = self._manifest(resources)
        return Beginning(Manifest(whole.instances[:count]), max(0, len(whole) - count))

    def _manifest(self, resources: Sequence[Resource]) -> Manifest:
        found: set[str] = set()
        for resource in resources:
            if resource.level is Level.STUDY and resource.id == STUDY and self.files:
                found |= set(self.files)
            elif resource.level is Level.INSTANCE and resource.id in self.files:
                found.add(resource.id)
            else:
                raise UnknownResource(f"there is no {resource.level.value.lower()} {resource.id}")
        return Manifest(Instance(name, len(self.files[name]), self._md5(name)) for name in sorted(found))

    def _md5(self, identifier: str) -> str:
        return self.listed.get(identifier) or md5(self.files[identifier])

    def md5s(
        self, identifiers: Iterable[str], cancellation: Cancellation | None = None
    ) -> dict[str, str | None]:
        self.before_md5s(cancellation or Cancellation())
        return {name: self._md5(name) for name in identifiers if name in self.files}

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        return identifier in self.files

    def read(self, identifier: str) -> memoryview:
        if identifier not in self.files:
            raise UnknownResource(f"there is no instance {identifier}")
        return memoryview(self.files[identifier])

    def instance(self, identifier: str) -> Instance:
        return Instance(identifier, len(self.read(identifier)), self._md5(identifier))

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        return False

    def add(self, data: Buffer) -> Imported:
        self.before_add()
        identifier = identify(data)
        if identifier in self.refused:
            raise ImportRefused("the storage is full")
        with self._lock:
            if identifier in self.files:
                return Imported(ImportStatus.ALREADY_STORED, identifier)
            self.files[identifier] = bytes(data)
        return Imported(ImportStatus.SUCCESS, identifier)

    def remove(self, identifier: str) -> None:
        self.files.pop(identifier, None)

    def sync(self) -> None:
        pass

    def transfer_syntax(self, identifier: str) -> str | None:
        return "1.2.840.10008.1.2.1"


class Server:
    """One Orthanc with the plugin. ``version`` 1: without the routes of version 2."""

    def __init__(self, root: Path, name: str, *, version: int = 2, **options: Any) -> None:
        self.root, self.name, self.version = root / name, name, version
        self.settings = settings(**options)
        self.clock = SystemClock()
        self.store = MemoryStore()
        self.start()

    def start(self, *, max_size: int = 0) -> None:
        """``max_size``: the most bytes that may be staged."""
        self.originator = f"originator-of-{self.name}"
        self.reader = ChunkReader(self.store, InstanceCache(self.store, 64 * 1024 * KB))
        self.reports = Reports(self.root / "reports", 30, self.clock)
        staging = Staging(self.root, max_size=max_size, clock=self.clock)
        self.ack_logs = AckLogs(staging.root / SENT)
        self.receptions = Registry(
            staging, store=self.store, settings=self.settings, clock=self.clock, reports=self.reports
        )
        self.counters = PushMetrics()
        self.transactions = PushService(self.receptions, self.settings, self.clock, self.counters)
        self.transactions.recover()
        passive = PeerRoutes(
            self.store,
            self.reader,
            self.transactions,
            self.reports,
            self.originator,
            lambda: None,
            Cancellation(),
        )
        # What peers do not call is not called here.
        self.routes = routes(object.__new__(UserRoutes), passive, object.__new__(PluginRoutes))

    def close(self) -> None:
        self.transactions.close()

    def restart(self) -> None:
        """As if Orthanc had been stopped and started: what is on disk stays."""
        self.close()
        self.start()

    def unfinished(self) -> int:
        """Receptions of this server that have not come to their end."""
        return sum(one.state.value in ("receiving", "committing") for one in self.receptions.all())

    def serve(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        """One request, as Orthanc would hand it to the plugin. Raises ``TransferError``."""
        path, _, query = target.partition("?")
        path = "/" + path.lstrip("/")
        if self.version == 1 and re.match("/transfers/(v2|capabilities)", path):
            raise UnknownResource(f"Unknown resource: {path}")
        for route in self.routes:
            match = re.fullmatch(route.pattern, path)
            if match and method in route.methods:
                request = Request(
                    method,
                    path,
                    match.groups(),
                    dict(urllib.parse.parse_qsl(query)),
                    dict(headers),
                    memoryview(body),
                )
                response = route.methods[method](request)
                return PeerResponse(
                    bytes(response.body), {"content-type": response.content_type, **response.headers}
                )
        raise UnknownResource(f"Unknown resource: {path}")


@dataclass
class Hold:
    """Requests that wait until they are let go, or cut."""

    pattern: str
    skip: int
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Line:
    """What lies between two servers: remembers what passes, and breaks on demand."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.before: Callable[[str, bytes], bytes] = lambda request, body: body
        """Sees each request (method and path), may raise, answers the body that arrives."""
        self.after: Callable[[str, PeerResponse], PeerResponse] = lambda request, answer: answer
        """Sees each answer, may raise: then it is lost."""
        self.connected = 0
        """Transports that were made and not closed."""
        self.round_trip: float | None = None
        """Seconds, as far as transports know."""
        self.prepared = 0
        """Connections that were opened ahead of their requests."""
        self.most_connected = 0
        self._hold: Hold | None = None
        self._lock = threading.Lock()

    def count(self, pattern: str) -> int:
        return sum(bool(re.fullmatch(pattern, request)) for request in self.log)

    def hold(self, pattern: str, skip: int = 0) -> Hold:
        """Let requests of a pattern wait, after the first ``skip`` of them."""
        self._hold = Hold(pattern, skip)
        return self._hold

    def let_go(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.released.set()

    def pass_through(self, request: str, headers: Mapping[str, str], cut: threading.Event) -> None:
        with self._lock:
            self.headers.append(headers)
            hold = self._hold if self._hold and re.fullmatch(self._hold.pattern, request) else None
            if hold is not None and hold.skip:
                hold.skip -= 1
                hold = None
        if hold is not None:
            hold.reached.set()
            while not hold.released.wait(0.005):
                if cut.is_set():
                    raise Canceled("stopped on request")
        if cut.is_set():
            raise Canceled("stopped on request")
        with self._lock:
            self.log.append(request)


def once(part: str, instead: PeerResponse) -> Callable[[str, PeerResponse], PeerResponse]:
    """For ``Line.after``: another answer to the first request that contains something."""
    left = [part]

    def after(request: str, answer: PeerResponse) -> PeerResponse:
        if left and left[0] in request:
            left.clear()
            return instead
        return answer

    return after


class LoopbackTransport:
    """``interfaces.PeerTransport`` that calls a ``Server``."""

    def __init__(self, server: Server, line: Line) -> None:
        self.name = server.name
        self.url = f"http://{server.name}:8042/"
        self.round_trip = line.round_trip
        self._server = server
        self._line = line
        self._cut = threading.Event()
        line.connected += 1
        line.most_connected = max(line.most_connected, line.connected)

    def send(self, request: PeerRequest) -> PeerResponse:
        line = f"{request.method} {request.path}"
        self._line.pass_through(line, request.headers, self._cut)
        sent = self._line.before(line, b"".join(request.body))
        try:
            answer = self._server.serve(request.method, request.path, sent, request.headers)
        except TransferError as error:
            # Like Orthanc: a status, and JSON that says why.
            text = json.dumps({"Message": str(error), "OrthancStatus": error.code}).encode()
            raise PeerStatus(
                f"peer {self.name} answered {line} with {error.status}: {error}",
                self.name,
                error.status,
                body=text,
                retry_after=error.retry_after if isinstance(error, Busy) else None,
            ) from None
        return self._line.after(line, answer)

    def prepare(self) -> None:
        self._line.prepared += 1

    def abort(self) -> None:
        self._cut.set()

    def close(self) -> None:
        self._line.connected -= 1


class LoopbackPeers:
    """``interfaces.Peers``: every server that is in ``servers``, over one line."""

    def __init__(self, servers: Iterable[Server], line: Line) -> None:
        self._servers = {server.name: server for server in servers}
        self._line = line

    def names(self) -> list[str]:
        return sorted(self._servers)

    def remote_self(self, name: str) -> str | None:
        return None

    def known(self, name: str) -> object:
        if name not in self._servers:
            raise UnknownPeer(f"unknown peer: {name}")
        return self._servers[name]

    def connect(self, name: str, connections: int) -> LoopbackTransport:
        if name not in self._servers:
            raise UnknownPeer(f"unknown peer: {name}")
        return LoopbackTransport(self._servers[name], self._line)


def environment(server: Server, peers: LoopbackPeers) -> Services:
    """What the jobs of a server work with."""
    return Services(
        store=server.store,
        peers=peers,
        reader=server.reader,
        registry=server.receptions,
        reports=server.reports,
        ack_logs=server.ack_logs,
        settings=server.settings,
        clock=server.clock,
        capabilities=CapabilitiesCache(server.clock),
        body_limits=BodyLimits(server.clock),
        originator=server.originator,
        new_cancellation=BriefCancellation,
    )


def order(peer: str = "there", compression: str = "auto", **more: Any) -> TransferRequest:
    """What a user sends to ``/transfers/send`` for the whole study."""
    return TransferRequest.parse(
        {
            "Resources": [{"Level": "Study", "ID": STUDY}],
            "Peer": peer,
            "Compression": compression,
            "SenderTransferID": "sender-1",
            **more,
        }
    )


@dataclass
class World:
    """Two servers: ``here``, whose jobs are tested, and ``there``, its peer."""

    here: Server
    there: Server
    line: Line
    env: Services

    jobs: list[Job] = field(default_factory=list)

    def push(self, peer: str = "there", **more: Any) -> Job:
        """A push of the study, unless ``more`` says otherwise."""
        return self._keep(new_push(self.env, order(peer, **more)))

    def pull(self, peer: str = "there", **more: Any) -> Job:
        """A pull of the study, unless ``more`` says otherwise."""
        return self._keep(new_pull(self.env, order(peer, **more)))

    def restart(self, job: Job) -> Job:
        """Restart the server here, and reload a job there as Orthanc does."""
        saved = json.loads(json.dumps(job.serialized()))
        assert "Type" not in saved
        job.release()
        self.line.let_go()
        self.here.restart()
        self.env = environment(self.here, LoopbackPeers([self.here, self.there], self.line))
        return self._keep(reload(self.env, job.type, saved))

    def _keep(self, job: Job) -> Job:
        self.jobs.append(job)
        return job

    def close(self) -> None:
        for job in self.jobs:
            job.release()
        self.line.let_go()
        self.here.close()
        self.there.close()


def world(root: Path, *, version: int = 2, **options: Any) -> World:
    """``version`` is what the peer speaks; the options are those of both configurations."""
    line = Line()
    here = Server(root, "here", **options)
    there = Server(root, "there", version=version, **options)
    return World(here, there, line, environment(here, LoopbackPeers([here, there], line)))


def finish(job: Job) -> StepOutcome:
    """Step a job to its end, as Orthanc does; tells it of the end."""
    for _ in range(600):
        before = job.progress()
        outcome = job.step()
        assert job.progress() >= before
        if outcome is not StepOutcome.CONTINUE:
            job.stop(StopReason[outcome.name])
            return outcome
    raise AssertionError(f"the job does not end: {job.content()}")


def step_until(job: Job, condition: Callable[[], bool]) -> None:
    """Step a job until something is the case."""
    for _ in range(600):
        if condition():
            return
        assert job.step() is StepOutcome.CONTINUE, job.content()
    raise AssertionError(f"it does not come to that: {job.content()}")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what a thread in the background does."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it does not come to that")
