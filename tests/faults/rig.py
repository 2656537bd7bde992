"""Two Orthancs between which transfers are broken on purpose, and what must be true of each whatever happened.

    a transfer is whole or not there, and it gets there, whatever happens in between

``Rig.transfer`` makes a study at one side, and puts a few things at the other; ``Transfer`` starts its job
and says, at the end, whether the promise was kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orthanc_transfers.core.errors import BadFile
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.core.planner import plan_buckets
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from orthanc_transfers.receiver.area import Area
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import SLICES, Failpoint, Mode
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import CHECKOUT, OrthancServer, start_together
from tests.support.recording_proxy import RecordedRequest, RecordingProxy
from tests.support.waiting import wait_until

KB = 1024
BUCKET = 32 * KB
THREADS = 2

TIDYING = 60.0
"""Seconds after the end of a transfer until nothing of it is left in staging."""

MANY = FIRST_INSTANCES + 40
"""Instances of which the first are announced before the others."""

SCRIPT = Path(__file__).with_name("failpoint_script.py")


@dataclass
class Rig:
    """``a`` has the jobs: it pushes to ``b`` and pulls from it, through a proxy for each version."""

    a: OrthancServer
    b: OrthancServer
    proxies: dict[int, RecordingProxy]

    def transfer(
        self, mode: Mode, version: int = 2, *, slices: int = SLICES, size: int = 192, there: int = 2
    ) -> Transfer:
        """A study to be transferred, between servers that were emptied. Nothing is started.

        ``there`` of its instances are at the target before.
        """
        for server in (self.a, self.b):
            for failpoint in (server.folder / FOLDER).glob("*"):
                failpoint.unlink()
            # A test that failed may have left it dead.
            if not server.running:
                server.start()
            server.clear()
        for proxy in self.proxies.values():
            proxy.forget()
        source, target = (self.a, self.b) if mode == "push" else (self.b, self.a)
        files = list(ct_study(slices, size=size, series=2))
        (study,) = {one["ParentStudy"] for one in source.upload_all(files)}
        target.upload_all([*files[:there], *small_instances(2)])
        return Transfer(self, mode, version, source, target, study)


@dataclass
class Transfer:
    """One study on its way from ``source`` to ``target``, which has some of its instances, and two others, before."""

    rig: Rig
    mode: Mode
    version: int
    source: OrthancServer
    target: OrthancServer
    study: str
    job: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keys of the request."""
    wanted: dict[str, str] = field(init=False)
    """MD5 of each instance of the study."""
    before: dict[str, str] = field(init=False)
    """MD5 of each instance that the target had before."""

    manifest: Manifest = field(init=False)
    """The instances of the study, in the order of the area."""

    _older: list[Path] = field(init=False)
    """What earlier transfers left unfinished in the staging folders."""

    def __post_init__(self) -> None:
        self._older = self._unfinished()
        self.wanted = self.source.md5s(f"studies/{self.study}")
        self.before = self.target.md5s()
        self.manifest = Manifest(
            Instance(one, int(self.source.get(f"instances/{one}/attachments/dicom/size")), md5)
            for one, md5 in self.wanted.items()
        )

    @property
    def proxy(self) -> RecordingProxy:
        """Through which it goes."""
        return self.rig.proxies[self.version]

    def start(self) -> str:
        """Submit the job, to ``a``; its identifier."""
        order = self.rig.a.send if self.mode == "push" else self.rig.a.pull
        options = {"Compression": "none", **self.options}
        self.job = order([resource("Study", self.study)], f"b{self.version}", **options)["ID"]
        return self.job

    def start_saved(self, then: Callable[[], None] = lambda: None) -> str:
        """The same, but nothing happens before Orthanc has the job in its database, and before ``then`` was called.

        Orthanc writes a new job down a moment after it was submitted (0.1 s); one that is killed before that
        knows nothing of it afterwards.
        """
        name = "PushJob.work" if self.mode == "push" else "PullJob.work"
        with Failpoint(self.rig.a, f"{name} before", "wait"):
            job = self.start()
            wait_until(lambda: is_saved(self.rig.a, job), f"job {job} is in the database")
            then()
        return job

    def succeed(self, timeout: float = 120.0) -> dict[str, Any]:
        """The job once it has ended, which must be well; its content."""
        known = self.rig.a.wait_for_job(self.job, timeout=timeout)
        assert known["State"] == "Success", known
        content: dict[str, Any] = known["Content"]
        return content

    # --- the promise

    def is_whole(self, timeout: float = TIDYING) -> None:
        """Every byte of every instance is at the target, and all that was there before.

        ``timeout``: seconds until nothing else is left.
        """
        self._has({**self.before, **self.wanted})
        self.leaves_nothing_behind(timeout)

    def _has(self, expected: dict[str, str]) -> None:
        """The target has these instances and no others, in its index and on its disk."""
        found = self.target.md5s()
        # Which ones: the fault may not come again.
        assert found == expected, f"missing, or others: {sorted(found.items() ^ expected.items(), key=str)}"
        for identifier, md5 in expected.items():
            file = self.target.download(f"instances/{identifier}/file")
            assert hashlib.md5(file).hexdigest() == md5

    def becomes_whole(self) -> None:
        """The same, a while later: the target works on it, without a job that would tell."""
        wait_until(
            lambda: len(self.target.instances()) >= len({**self.before, **self.wanted}), "all is there"
        )
        self.is_whole()

    def is_not_there(self, timeout: float = TIDYING) -> None:
        """The target is as it was."""
        self._has(self.before)
        self.leaves_nothing_behind(timeout)

    def is_whole_or_not_there(self) -> bool:
        """One of the two; whether it is whole."""
        whole = self.target.md5s() != self.before
        if whole:
            self.is_whole()
        else:
            self.is_not_there()
        return whole

    def _unfinished(self) -> list[Path]:
        return [path for server in (self.rig.a, self.rig.b) for path in unfinished(server)]

    def leaves_nothing_behind(self, timeout: float = TIDYING) -> None:
        """Of what was received, only the outcome is remembered; the source has all that it had."""
        wait_until(
            lambda: set(self._unfinished()) <= set(self._older), "nothing but outcomes is staged", timeout
        )
        for server in (self.rig.a, self.rig.b):
            assert not list(staging(server).glob("set-aside/*"))
        assert self.source.md5s(f"studies/{self.study}") == self.wanted

    # --- what was sent

    def carried(self) -> list[tuple[RecordedRequest, list[Range]]]:
        """The requests that carry bytes of the study, in the order of their ends, with the ranges of the area."""
        found = []
        for seen in self.proxy.requests:
            ranges = self._ranges(seen)
            if ranges:
                found.append((seen, ranges))
        return found

    def _ranges(self, seen: RecordedRequest) -> list[Range]:
        if match := re.fullmatch("//?transfers/v2/push/[0-9a-f]{32}((?:/[0-9]+/[0-9]+)+)", seen.uri):
            numbers = [int(text) for text in match[1].split("/")[1:]]
            return [
                Range(start, start + size) for start, size in zip(numbers[::2], numbers[1::2], strict=True)
            ]
        if match := re.fullmatch("//?transfers/push/[0-9a-f-]+/([0-9]+)", seen.uri):
            chunks = plan_buckets(self.manifest, BUCKET)[int(match[1])].chunks
            return [self.manifest.range_of_chunk(chunk) for chunk in chunks]
        if seen.uri.endswith("/transfers/v2/chunks") and seen.sent:
            return [self.manifest.range_of_chunk(Chunk(*chunk)) for chunk in json.loads(seen.sent)["Chunks"]]
        address = urlsplit(seen.uri)
        if match := re.search("/transfers/chunks/([.0-9a-f-]+)$", address.path):
            arguments = {
                key: int(value[0]) for key, value in parse_qs(address.query).items() if key != "compression"
            }
            start = self.manifest.range_of(match[1].partition(".")[0]).start + arguments.get("offset", 0)
            return [Range(start, start + arguments["size"])]
        return []

    def arrived(self, carried: Iterable[tuple[RecordedRequest, list[Range]]]) -> RangeSet:
        """The bytes of those requests whose good answer arrived."""
        return RangeSet(item for seen, ranges in carried if seen.succeeded for item in ranges)

    def in_flight(self) -> int:
        """Bytes that may have been under way at one moment: there are up to four times the configured connections."""
        return 4 * THREADS * max(sum(item.size for item in ranges) for _, ranges in self.carried())

    def sent_again(self) -> int:
        """How many bytes were in more than one request."""
        once, again = RangeSet(), RangeSet()
        for _, ranges in self.carried():
            for item in ranges:
                for part in common(once, item):
                    again.add(part)
                once.add(item)
        return again.size


def common(known: RangeSet, item: Range) -> RangeSet:
    """The bytes of a range that are in a set."""
    return known.missing(item).missing(item)


def script_environment() -> dict[str, str]:
    """The environment in which a script of these tests can import them, and what the plugin needs."""
    return {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), sysconfig.get_path("purelib")])}


@contextmanager
def start_rig(make: MakeServer, folder: Path, *, save_jobs: bool = True, **transfers: Any) -> Iterator[Rig]:
    """A ``Rig``, started. ``transfers`` are further options of both servers' ``Transfers``."""
    configuration = {
        "ConcurrentJobs": 8,
        "SaveJobs": save_jobs,
        "Transfers": {"BucketSize": BUCKET // KB, "Threads": THREADS, **transfers},
    }
    a, b = (
        make(name, script=SCRIPT, configuration=configuration, environment=script_environment())
        for name in ("a", "b")
    )
    for server in (a, b):
        (server.folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with RecordingProxy(folder / "1", b, version=1) as proxy1, RecordingProxy(folder / "2", b) as proxy2:
        for name, proxy in (("b1", proxy1), ("b2", proxy2)):
            a.add_peer(name, b, Url=proxy.url)
        start_together(a, b)
        yield Rig(a, b, {1: proxy1, 2: proxy2})


def staging(server: OrthancServer) -> Path:
    """The folder of what a server is receiving."""
    return Path(server.configuration["StorageDirectory"]) / "Transfers"


def unfinished(server: OrthancServer) -> list[Path]:
    """What a server has staged that is not just a remembered outcome, and its records of what it sends."""
    known = {"lock", "reports", "history", "sent", "set-aside", "undos", "fatal", "in-memory"}
    return [*staging(server).glob("sent/*")] + [
        path
        for path in staging(server).iterdir()
        if path.name not in known
        and (path.name.startswith(".") or (path / "area").exists() or not _has_outcome(path))
    ]


def _has_outcome(path: Path) -> bool:
    try:
        return Area.reopen(path).history.outcome is not None
    except BadFile:
        return False  # it is just being deleted


def is_saved(server: OrthancServer, job: str) -> bool:
    """Whether Orthanc has a job in its database: what it wrote last is in SQLite's log."""
    written = (server.storage / "index-wal").read_bytes()
    # A page of the database may end in the middle of the identifier.
    return job[:18].encode() in written or job[18:].encode() in written
