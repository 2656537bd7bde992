"""Two Orthancs whose machines can lose their power during a transfer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from orthanc_transfers.runtime.files import sync
from tests.faults.failpoints import Mode
from tests.faults.rig import Rig, Transfer, staging, start_rig
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.power_failure import PowerFailureDisk

Reached = Literal["nothing", "names", "journal", "all but Orthanc's files"]
"""What reached the disk in time, besides what was fsynced. ``names``: which files there are; ``journal``: what the
journals say of them, ours and that of Orthanc's index, but not their bytes."""

REACHED: tuple[Reached, ...] = ("nothing", "names", "journal")

DISK = 128 * 1024 * 1024
SLICES = 24
"""Of which the target has two before, in more than fifty buckets."""


SMALL = 32
"""Pixels of a side of ``SMALL_SLICES``, which fit in one bucket."""
SMALL_SLICES = 8


@dataclass
class Machines:
    """Two Orthancs, the storage folder of each on a disk of its own."""

    rig: Rig
    disks: dict[str, PowerFailureDisk]

    def transfer(self, mode: Mode, version: int = 2, *, size: int = 192) -> Transfer:
        """As ``Rig.transfer``; all that was there before is on the disks."""
        slices = SLICES if size == 192 else SMALL_SLICES
        # A pull is one request where nothing of it is there.
        there = 0 if mode == "pull" and size == SMALL else 2
        transfer = self.rig.transfer(mode, version, slices=slices, size=size, there=there)
        self.sync()
        return transfer

    def sync(self) -> None:
        """As time does it."""
        for disk in self.disks.values():
            disk.sync()

    def reach(self, server: OrthancServer, what: Reached) -> None:
        """Let some of what a server has written reach its disk, while it stands still."""
        if what == "names":
            self.disks[server.name].write_names()
        elif what == "journal":
            for path in [*staging(server).glob("*/journal"), server.storage / "index-wal"]:
                sync(path)
        elif what == "all but Orthanc's files":
            for path in [*staging(server).glob("*/*"), server.storage / "index-wal"]:
                sync(path)

    def fail_power(self, server: OrthancServer) -> None:
        """The machine of a server, which stands still, loses its power, and is started again."""
        self.disks[server.name].fail_power(server.kill)
        server.start()


@contextmanager
def running(make_shared_server: MakeServer, folder: Path, **transfers: Any) -> Iterator[Machines]:
    """Both Orthancs, each with a disk of its own."""
    disks: dict[str, PowerFailureDisk] = {}
    with ExitStack() as stack:

        def make(name: str, **options: Any) -> OrthancServer:
            server = make_shared_server(name, **options)
            try:
                disk = disks[name] = PowerFailureDisk(server.storage, folder / f"{name}.disk", DISK)
            except OSError as error:
                pytest.skip(f"no disk that could lose its power: {error}")
            stack.callback(disk.close)
            stack.callback(server.kill)
            return server

        yield Machines(stack.enter_context(start_rig(make, folder, **transfers)), disks)
