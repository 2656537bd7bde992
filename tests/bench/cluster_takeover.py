"""How long a commit takes whose node dies in the middle of the import: ``python -m tests.bench.cluster_takeover``.

Three real Orthancs with the product's own leases, an Orthanc that pushes to them, all on this machine. Each run kills
(SIGKILL) the node that imports, with half of the instances stored, and looks at the database and at another node until
the transfer has ended there. Prints the table of docs/measurements/cluster.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import FINISHED, resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

SLICES = 100
"""Of 525 KB: more than what travels as one request, whose bytes are in memory only."""

_PATIENCE = 120.0
_EVERY = 0.02


@dataclass(frozen=True)
class Times:
    """Seconds from the kill."""

    taken: float
    """Until another node owned the transfer, by the database."""
    ended: float
    """Until it had ended there, by the status that a third node gives of it."""
    told: float
    """Until the sender's job was over."""


class Measurement:
    """Three nodes, and a study at ``a``. ``shared``: see ``OrthancCluster``."""

    def __init__(self, folder: Path, stack: ExitStack, *, shared: bool) -> None:
        self.shared = shared
        self.cluster = stack.enter_context(
            OrthancCluster(folder, shared=shared, script=SCRIPT, environment=script_environment())
        )
        for node in self.cluster.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        self.a = OrthancServer("a", folder / "a")
        stack.callback(self.a.remove)
        self.a.add_peer("cluster", self.a, Url=self.cluster.url)
        self.a.start()
        (self.study,) = {one["ParentStudy"] for one in self.a.upload_all(ct_study(SLICES))}
        self._database = stack.enter_context(psycopg.connect(self.cluster.database.uri, autocommit=True))

    def once(self) -> Times:
        """One death. Raises ``AssertionError`` if not all is there at the end, ``TimeoutError``."""
        nodes = self.cluster.nodes
        points = {
            node.name: Failpoint(node, "OrthancStore.add after", f"wait {SLICES // 2}") for node in nodes
        }
        job = self.a.send([resource("Study", self.study)], "cluster")["ID"]
        victim = wait_until(
            lambda: next((node for node in nodes if points[node.name].reached), None),
            "it is imported",
            _PATIENCE,
        )
        identifier, owner = self._row()
        for node in nodes:
            if node is not victim:
                points[node.name].disarm()
        third = next(node for node in nodes if node is not victim)
        died = time.monotonic()
        victim.kill()
        points[victim.name].disarm()
        taken = self._until(died, lambda: self._row()[1] != owner)
        ended = self._until(died, lambda: self._has_ended(third, identifier)) if self.shared else 0.0
        told = self._until(died, lambda: self.a.job(job)["State"] in FINISHED)
        assert self.a.job(job)["State"] == "Success", self.a.job(job)
        assert third.md5s() == self.a.md5s()
        victim.start()
        self.cluster.clear()
        return Times(taken, ended, told)

    def undisturbed(self) -> float:
        """Seconds that the same push takes where no node dies."""
        began = time.monotonic()
        known = self.a.wait_for_job(self.a.send([resource("Study", self.study)], "cluster")["ID"])
        took = time.monotonic() - began
        assert known["State"] == "Success", known
        self.cluster.clear()
        return took

    def _row(self) -> tuple[str, int]:
        (row,) = self._database.execute(
            "SELECT identifier, owner FROM orthanc_transfers.transfers WHERE state <> 'ended'"
        ).fetchall() or [("", 0)]
        return row[0], row[1]

    def _has_ended(self, node: OrthancServer, identifier: str) -> bool:
        state: dict[str, Any] = node.get(f"transfers/v2/push/{identifier}")
        return bool(state["State"] == "committed")

    def _until(self, began: float, condition: Callable[[], bool]) -> float:
        wait_until(condition, "it goes on", _PATIENCE, _EVERY)
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="deaths")
    parser.add_argument(
        "--own-disks", action="store_true", help="each node has its own staging: the push starts over"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="takeover-")))
        measurement = Measurement(folder, stack, shared=not options.own_disks)
        print(f"the same push where no node dies: {measurement.undisturbed():.1f} s")
        runs = []
        for _ in range(options.runs):
            runs.append(measurement.once())
            print(runs[-1], flush=True)
        rows = {
            "until another node has it": [one.taken for one in runs],
            "until it has ended there": [one.ended for one in runs],
            "until the sender's job is over": [one.told for one in runs],
        }
        print("| seconds from the kill | median | longest |", "|---|---|---|", sep="\n")
        for name, seconds in rows.items():
            if any(seconds):
                print(f"| {name} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")


if __name__ == "__main__":
    main()
