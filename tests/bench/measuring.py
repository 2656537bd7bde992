"""One transfer, measured from outside: time, processor, memory, bytes on the link."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.sides import Side
from tests.support.orthanc_server import FINISHED, OrthancServer

_TICK = os.sysconf("SC_CLK_TCK")
_DEVICE = Path("/sys/class/net/wan0/statistics")


@dataclass
class Figures:
    """Of one run. Seconds and bytes; the first of a pair is the sender's."""

    wall: float
    cpu: tuple[float, float]
    memory: tuple[int, int]
    """Peak above what was in use before."""
    phases: dict[str, float] = field(default_factory=dict)
    """Of our jobs: seconds that each took, as seen by asking every few milliseconds."""
    wire: int = 0
    """Bytes of IP packets that crossed the link, both ways; 0 on loopback."""
    steal: float = 0.0
    """Seconds of both processors that the machine's host took away."""
    content: dict[str, Any] = field(default_factory=dict)


def measure(side: Side, a: OrthancServer, b: OrthancServer, study: str, every: float) -> Figures:
    """Raises ``RuntimeError`` if the job fails. Asks the job ``every`` so many seconds."""
    servers = (a, b)
    for server in servers:
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    memory = [_status(server, "VmRSS") for server in servers]
    cpu, steal, wire = [_cpu(server) for server in servers], _steal(), _wire()
    began = before = time.monotonic()
    owner, job = side.start(a, b, study)
    phases: dict[str, float] = {}
    while True:
        seen = owner.job(job)
        now = time.monotonic()
        phase = seen["Content"].get("Phase")
        if phase is not None:
            phases[phase] = phases.get(phase, 0.0) + now - before
        before = now
        if seen["State"] in FINISHED:
            break
        time.sleep(every)
    if seen["State"] != "Success":
        raise RuntimeError(f"a job failed: {seen}")
    return Figures(
        wall=now - began,
        cpu=(_cpu(a) - cpu[0], _cpu(b) - cpu[1]),
        memory=(_status(a, "VmHWM") - memory[0], _status(b, "VmHWM") - memory[1]),
        phases=phases,
        wire=_wire() - wire,
        steal=_steal() - steal,
        content=seen["Content"],
    )


def import_locally(files: list[Path], b: OrthancServer) -> Figures:
    """The limit of any receiver: the same files, imported by 4 threads of a client on the same machine."""
    contents = [file.read_bytes() for file in files]
    cpu, steal = _cpu(b), _steal()
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(b.upload, contents):
            assert answer["Status"] == "Success"
    wall = time.monotonic() - began
    return Figures(wall=wall, cpu=(0.0, _cpu(b) - cpu), memory=(0, 0), steal=_steal() - steal)


def _cpu(server: OrthancServer) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _status(server: OrthancServer, key: str) -> int:
    (line,) = (
        line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024


def _steal() -> float:
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / _TICK


def _wire() -> int:
    if not _DEVICE.exists():
        return 0
    return sum(int((_DEVICE / name).read_text()) for name in ("tx_bytes", "rx_bytes"))
