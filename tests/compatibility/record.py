"""Records what an earlier version of the plugin leaves on disk: ``python record.py CHECKOUT``, a checkout of it.

Two real Orthancs of that checkout are stopped or killed in the middle of a transfer, with its own tests' traps.
For each scenario, ``data/<name>.tar.xz`` has the storage folders of both (``a`` has the job), ``data/<name>.json``
the saved job and what the earlier code itself reads from its staging folder. Names of classes are those of
commit 43d0ca0.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(sys.argv[1]).resolve()
DATA = Path(__file__).resolve().parent / "data"
sys.path[:0] = [str(CHECKOUT)]

from orthanc_transfers.transfer.area import Area  # noqa: E402
from tests.faults.world import SCRIPT, Trap, is_saved  # noqa: E402
from tests.support.dicom_data import ct_study  # noqa: E402
from tests.support.front import Front  # noqa: E402
from tests.support.orthanc_server import OrthancServer, resource, start_together, wait_until  # noqa: E402

BUCKET_SIZE = 1
"""In KB: the smallest, so that a few small files are many buckets."""

SCENARIOS = [
    # Name, mode, version, the trap that kills the other Orthanc, how the one with the job ends.
    ("push-v2", "push", 2, "Passive.put_ranges after", 5, "stop"),
    ("push-v1", "push", 1, "Passive.put_bucket after", 5, "stop"),
    ("push-v1-killed", "push", 1, "Passive.put_bucket after", 5, "kill"),
    ("pull-v2", "pull", 2, "Passive.post_chunks before", 5, "stop"),
    ("pull-v1", "pull", 1, "Passive.get_chunks before", 5, "stop"),
    ("committing", "push", 2, "OrthancStore.add after", 2, "kill"),
    ("ended", "push", 2, None, 0, "stop"),
]


def record(name: str, mode: str, version: int, trap: str | None, nth: int, end: str, folder: Path) -> None:
    path = os.pathsep.join([str(CHECKOUT), sysconfig.get_path("purelib")])
    configuration = {"Transfers": {"BucketSize": BUCKET_SIZE, "Threads": 1}}
    a, b = (
        OrthancServer(
            one,
            folder / one,
            script=SCRIPT,
            configuration=configuration,
            environment={"PYTHONPATH": path},
        )
        for one in ("a", "b")
    )
    for server in (a, b):
        (server.folder / "traps").mkdir()
    with Front(folder / "front", b, version=version) as front:
        a.add_peer("b", b, Url=front.url)
        start_together(a, b)
        source, target = (a, b) if mode == "push" else (b, a)
        files = list(ct_study(8, size=24, series=2, name="Phantom^Old"))
        (study,) = {one["ParentStudy"] for one in source.upload_all(files)}
        # One of them is not transferred: it is there.
        target.upload(files[0])
        md5s = source.md5s(f"studies/{study}")
        work = "PushJob.work before" if mode == "push" else "PullJob.work before"
        deadly = Trap(b, trap, f"kill {nth}") if trap else None
        with Trap(a, work, "wait"):
            order = a.send if mode == "push" else a.pull
            job = order([resource("Study", study)], "b", Compression="none")["ID"]
            wait_until(lambda: is_saved(a, job), "the job is saved")
        if deadly:
            deadly.has_killed()
        else:
            a.wait_for_job(job)
        shown = a.job(job)
        if end == "stop":
            a.stop()
        a.kill()
        b.kill()
    keep(name, folder, job, {"Study": study, "MD5": md5s, "Shown": shown})


def keep(name: str, folder: Path, job: str, facts: dict[str, Any]) -> None:
    registry: dict[str, Any] = {}
    for server in ("a", "b"):
        index = sqlite3.connect(folder / server / "storage" / "index")
        index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for (value,) in index.execute("SELECT value FROM GlobalProperties"):
            if job in value:
                registry = json.loads(value)
        index.close()
        # Looked at in a copy, for the earlier code may tidy up while it looks.
        copy = folder / f"{server}-copy"
        shutil.copytree(folder / server / "storage" / "Transfers", copy)
        facts[f"Staged {server}"] = [
            described(path) for path in sorted(copy.iterdir()) if (path / "manifest").exists()
        ]
    facts["Job"] = {"ID": job, **registry["Jobs"][job]}
    (DATA / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    with tarfile.open(DATA / f"{name}.tar.xz", "w:xz") as archive:
        for server in ("a", "b"):
            for file in sorted((folder / server / "storage").rglob("*")):
                if file.name not in ("index-wal", "index-shm"):
                    archive.add(
                        file,
                        str(file.relative_to(folder)).replace("/storage", "", 1),
                        recursive=False,
                        filter=anonymous,
                    )


def described(directory: Path) -> dict[str, Any]:
    area = Area.reopen(directory)
    history = area.history
    return {
        "ID": area.id,
        "Kind": area.meta["kind"],
        "Token": area.meta["token"],
        "Instances": [[one.id, one.size, one.md5] for one in area.manifest],
        "Have": [[item.start, item.stop] for item in history.have],
        "Stored": sorted(history.stored),
        "Absent": None if history.absent is None else sorted(history.absent),
        "Outcome": history.outcome,
    }


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as temporary:
            record(*scenario, folder=Path(temporary))
        print(scenario[0])
