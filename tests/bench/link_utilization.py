"""``make bench BENCH_ARGS=--links``: how much of a link is used, whatever its rate and round-trip time.

Plain bytes are sent, as many as the link carries in some seconds, and the packets that arrive are counted meanwhile.
*Whole* is all of the time from the request until the last byte was there: with the connecting, the listing and the
slow start of TCP. *Middle* is while the middle 80 % of the bytes passed. iperf3 shows what the emulator and TCP can do.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.datasets import files
from tests.bench.link_profile import LinkProfile
from tests.bench.measurement import received
from tests.bench.server_pair import Pair
from tests.bench.transfer_methods import METHODS, Resources
from tests.support.wan_link import HOSTS

Row = dict[str, Any]
"""``Profile``, ``Side``, and of the link's rate ``Whole`` and ``Middle`` (1: all of it); ``Bytes`` on the link."""

ALL = [
    *("1:1", "1:10", "1:100", "1:1000", "20:10", "20:100", "20:1000"),
    *("100:100", "100:200", "200:1", "200:10", "200:100", "200:1000"),
]
_SIDES = ("push none", "pull none")
_IPERF = "iperf3, 24 connections"
_SECONDS = 15
"""That the link needs for what is sent."""
_SLICE = 525_000
"""Bytes of one slice of the data set ``a``, which has 1000 of them."""
_EVERY = 0.02


def measure(profile: LinkProfile, folder: Path) -> Iterator[Row]:
    """Needs root."""
    slices = max(3, round(profile.rate * 1e6 / 8 * _SECONDS / _SLICE))
    found = files(folder, "a", slices / 1000)
    with profile.link() as link, tempfile.TemporaryDirectory(dir=folder) as servers:
        pair = Pair(Path(servers), link)
        try:
            resources = pair.fill(found)
            for side in _SIDES:
                pair.renew()
                yield _row(profile, side, pair, partial(_transfer, side, pair, resources))
            if shutil.which("iperf3"):
                yield _row(profile, _IPERF, pair, partial(_iperf, pair, slices * _SLICE))
        finally:
            pair.remove()


def _row(profile: LinkProfile, side: str, pair: Pair, run: Callable[[], None]) -> Row:
    seen: list[tuple[float, int]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            seen.append((time.monotonic(), received(pair)))

    seen.append((time.monotonic(), received(pair)))
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        over.set()
        watcher.join()
    (began, before), last = seen[0], seen[-1][1]
    size = last - before
    rate = profile.rate * 1e6 / 8

    def reached(share: float) -> tuple[float, int]:
        return next(one for one in seen if one[1] >= before + share * size)

    # What comes after is talk: of the import, of the end.
    whole = reached(0.999)
    early, late = reached(0.1), reached(0.9)
    return {
        "Profile": str(profile),
        "Side": side,
        "Bytes": size,
        "Whole": (whole[1] - before) / (whole[0] - began) / rate,
        "Middle": (late[1] - early[1]) / (late[0] - early[0]) / rate,
    }


def _transfer(side: str, pair: Pair, resources: Resources) -> None:
    owner = pair.b if METHODS[side].pulls else pair.a
    with pair.near(owner):
        path, body = METHODS[side].order(resources)
        job = owner.post(path, body)["ID"]
        ended = owner.wait_for_job(job)
    if ended["State"] != "Success":
        raise RuntimeError(f"a job failed: {ended}")


def _iperf(pair: Pair, size: int) -> None:
    with pair.near(pair.b):
        server = subprocess.Popen(["iperf3", "-s", "-1", "-B", HOSTS["b"]], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        with pair.near(pair.a):
            subprocess.run(
                ["iperf3", "-c", HOSTS["b"], "-P", "24", "-n", str(size)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        server.wait()
