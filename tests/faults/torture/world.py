"""Two Orthancs, what is between them, and what was done to them and came of it so far."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.fault_proxy import FaultProxy
from tests.faults.protocol_matrix import ProtocolMatrix, start_matrix
from tests.faults.rig import script_environment
from tests.faults.torture.round import Violation
from tests.support import heap
from tests.support.orthanc_client import OrthancError
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

TIMEOUT = 2
EXPIRY = 10
"""Seconds after which an abandoned push is dropped."""

TRANSFERS = {
    "BucketSize": 32,
    "Threads": 2,
    "MaxHttpRetries": 2,
    "MaxOutage": 60,
    "MaxPushTransactions": 3,
    "PeerCommitTimeout": 3 * TIMEOUT,
    "PushIdleTimeout": EXPIRY,
    "MaxPeerBandwidth": 8,
}
# Without Orthanc's own cache of files, which would hide what grows: it has up to 128 MB.
ORTHANC = {"ConcurrentJobs": 4, "MaximumStorageCacheSize": 0, "JobsHistorySize": 500}


@dataclass
class Tally:
    """Of all rounds."""

    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """States of transfers in the end."""
    scenarios: Counter[str] = field(default_factory=Counter)


@dataclass
class World:
    """``matrix.a`` has the data, ``matrix.b`` receives."""

    folder: Path
    matrix: ProtocolMatrix[FaultProxy]
    tally: Tally
    deaths: int = 0
    """Of Orthancs, by themselves."""
    deaths_allowed: Callable[[], int] = lambda: 0
    """How many may have been by now. An Orthanc that has died is started again, as systemd does."""

    @property
    def servers(self) -> tuple[OrthancServer, OrthancServer]:
        return (self.matrix.a, self.matrix.b)

    def kill(self, server: OrthancServer, hard: bool, seconds: float) -> None:
        """End it and start it again after a while."""
        with self.stopped(server, hard):
            time.sleep(seconds)

    @contextlib.contextmanager
    def stopped(self, server: OrthancServer, hard: bool) -> Iterator[None]:
        """An Orthanc that does not run meanwhile."""
        self.revive()
        (server.kill if hard else server.stop)()
        yield
        server.start()

    def revive(self) -> None:
        """Start what died by itself. Raises ``Violation`` if it should not have died."""
        # It may die again at its start.
        while dead := [server for server in self.servers if server.crashed]:
            for server in dead:
                self.deaths += 1
                if self.deaths > self.deaths_allowed():
                    raise Violation(
                        f"{server.name} crashed: {server.crashed}, death {self.deaths} of {self.deaths_allowed()}"
                    )
                server.forget_connections()
                server.launch()
                try:
                    server.wait_until_ready()
                except OrthancError:
                    if not server.crashed:
                        raise

    def staging_empties(self) -> None:
        """Raises ``Violation`` if anything is left in staging for longer than an abandoned push may be."""

        def empty() -> bool:
            return not any(self._areas(server) for server in self.servers)

        try:
            wait_until(empty, "", timeout=3 * EXPIRY + 15, every=0.1)
        except TimeoutError:
            left = {server.name: [str(path) for path in self._areas(server)] for server in self.servers}
            raise Violation(f"left in staging: {left}") from None

    def logs(self) -> Iterator[str]:
        """Their ends."""
        for server in self.servers:
            yield f"log of {server.name}, its end:\n{server.log_tail(80)}"

    def _areas(self, server: OrthancServer) -> list[Path]:
        return list(staging(server).glob(f"{'[0-9a-f]' * 32}/area"))


def staging(server: OrthancServer) -> Path:
    """Its folder of what it receives."""
    return Path(server.configuration["Transfers"]["StagingDirectory"])


Configure = Callable[[OrthancServer, OrthancServer], None]
"""Changes the configurations of the sender and the receiver."""


@contextlib.contextmanager
def start_world(
    folder: Path, tally: Tally, configure: Configure = lambda a, b: None, **transfers: Any
) -> Iterator[World]:
    """The two, started. ``transfers`` are further options of both."""
    a, b = (
        OrthancServer(
            name,
            folder / name,
            configuration=ORTHANC,
            script=heap.SCRIPT,
            environment=script_environment(),
        )
        for name in ("a", "b")
    )
    for server in (a, b):
        server.configuration["Transfers"] = {"StagingDirectory": str(server.folder / "staging")}
    configure(a, b)
    try:
        with start_matrix(
            a,
            b,
            folder,
            staging(b),
            {**TRANSFERS, **transfers},
            between=lambda _, server, version: FaultProxy(server, version),
            Timeout=TIMEOUT,
        ) as matrix:
            yield World(folder, matrix, tally)
    finally:
        for server in (a, b):
            server.remove()
