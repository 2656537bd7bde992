"""The limit of any receiver: files that are in memory already, imported into an empty Orthanc by 4 threads.

``local import`` is a small client beside it, over loopback; ``import inside`` calls Orthanc from within, as the
plugin does. The faster of the two is what the import of a transfer is compared with.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from tests.bench.measurement import Measurement, cpu_seconds, steal
from tests.bench.server_pair import empty
from tests.bench.transfer_methods import LOCAL
from tests.support.orthanc_server import OrthancServer

_THREADS = 4
_SCRIPT = Path(__file__).with_name("import_route_script.py")


def import_locally(how: str, files: list[Path], folder: Path) -> Measurement:
    """``how`` is one of ``LOCAL``."""
    with _empty_server(folder) as server:
        return dict(zip(LOCAL, (_by_a_client, _from_within), strict=True))[how](files, server)


@contextlib.contextmanager
def _empty_server(folder: Path) -> Iterator[OrthancServer]:
    server = OrthancServer("c", folder / "c", script=_SCRIPT)
    empty(server)
    with server:
        yield server
    empty(server)


def _by_a_client(files: list[Path], server: OrthancServer) -> Measurement:
    left = deque(file.read_bytes() for file in files)

    def work(_: int) -> None:
        connection = HTTPConnection(server.host, server.http_port)
        while True:
            try:
                data = left.popleft()
            except IndexError:
                return
            connection.request("POST", "/instances", data)
            answer = json.load(connection.getresponse())
            assert answer["Status"] == "Success", answer

    cpu, stolen, began = cpu_seconds(server.pid), steal(), time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, range(_THREADS)))
    wall = time.monotonic() - began
    return Measurement(wall, cpu=(0.0, cpu_seconds(server.pid) - cpu), steal=steal() - stolen)


def _from_within(files: list[Path], server: OrthancServer) -> Measurement:
    stolen = steal()
    answer = server.post("bench/import", {"Files": [str(file) for file in files], "Threads": _THREADS})
    return Measurement(answer["Wall"], cpu=(0.0, answer["Cpu"]), steal=steal() - stolen)
