"""Measures one transfer from outside: time, CPU, memory, bytes on the link."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.job_client import JobClient, in_sum, own_seconds
from tests.bench.server_pair import Pair
from tests.bench.transfer_methods import Method, Resources
from tests.support.orthanc_client import FINISHED
from tests.support.orthanc_server import OrthancServer
from tests.support.process import forget_peak, memory, peak_memory

_TICK = os.sysconf("SC_CLK_TCK")
_DEVICE = "wan0"
_EVERY = 0.02
"""Seconds between two looks at a job."""


@dataclass
class Measurement:
    """Of one run. Seconds and bytes; the first of a pair is the sender's."""

    wall: float
    """From the request to the success of the job; of several, from the first request to the last success."""
    cpu: tuple[float, float]
    """Of each Orthanc, with the proxy in front of it."""
    memory: tuple[int, int] = (0, 0)
    """Peak above what was in use before."""
    phases: dict[str, float] = field(default_factory=dict)
    """Of our jobs: how long each phase took, to the nearest look. Of one job only."""
    first: float | None = None
    """Of our jobs: until the first bucket had arrived."""
    wire: int = 0
    """IP packets that left the sender over the link, in bytes, those sent again included; 0 on loopback."""
    steal: float = 0.0
    """What the machine's host took away from all processors together."""
    content: dict[str, Any] = field(default_factory=dict)
    """Of the job; of several, in sum."""
    job: float = 0.0
    """A job from its creation to its completion, by its own times; of several, the median."""


def measure(side: Method, where: Pair, wanted: Sequence[Resources], *, in_turn: bool = False) -> Measurement:
    """One job for each of ``wanted``: all at once, or each after the one before.

    Raises ``RuntimeError`` if one fails.
    """
    a, b = where.a, where.b
    for server in (a, b):
        forget_peak(server.pid)
    used = [memory(server.pid) for server in (a, b)]
    cpu, stolen, carried = [_work(where, server) for server in (a, b)], steal(), _carried(where)
    owner = b if side.pulls else a
    phases: dict[str, float] = {}
    first = None
    ended: list[dict[str, Any]] = []
    with where.near(owner), closing(JobClient(owner)) as client:
        began = before = time.monotonic()
        waiting = deque(side.order(resources) for resources in wanted)
        running: deque[str] = deque()
        while waiting or running:
            while waiting and not (in_turn and running):
                running.append(client.begin(*waiting.popleft()))
            seen = client.look(running[0])
            now = time.monotonic()
            if len(wanted) == 1:
                phase = seen["Content"].get("Phase")
                if phase is not None:
                    phases[phase] = phases.get(phase, 0.0) + now - before
                if first is None and seen["Content"].get("Codecs"):
                    first = now - began
                before = now
            if seen["State"] not in FINISHED:
                time.sleep(_EVERY)
                continue
            if seen["State"] != "Success":
                raise RuntimeError(f"a job failed: {seen}")
            running.popleft()
            ended.append(seen)
    return Measurement(
        wall=now - began,
        cpu=(_work(where, a) - cpu[0], _work(where, b) - cpu[1]),
        memory=(peak_memory(a.pid) - used[0], peak_memory(b.pid) - used[1]),
        phases=phases,
        first=first,
        wire=_carried(where) - carried,
        steal=steal() - stolen,
        content=in_sum([job["Content"] for job in ended]),
        job=median(map(own_seconds, ended)),
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _work(where: Pair, server: OrthancServer) -> float:
    return sum(map(cpu_seconds, where.processes(server)))


def steal() -> float:
    """Seconds that the machine's host took away since the start, from all processors together."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / _TICK


def _carried(where: Pair) -> int:
    """Bytes that the sender has given to the link."""
    return _counter(where, where.a, 9)


def received(where: Pair) -> int:
    """Bytes that the receiver has got from the link."""
    return _counter(where, where.b, 1)


def _counter(where: Pair, server: OrthancServer, column: int) -> int:
    with where.near(server):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next((int(line.split()[column]) for line in lines if line.split()[0] == f"{_DEVICE}:"), 0)
