"""An instance of more than 2^31 bytes, of which Orthanc's index has the MD5 of nothing.

One is pushed, pulled and pushed again; `LARGE_COMPRESSIONS=none,gzip,zstd,auto` in the environment does so with more
than one compression, `LARGE_KILLS=1` kills both sides meanwhile. Orthanc
itself takes three times its size in memory while it imports it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.checksum import MD5_OF_NOTHING
from tests.support.dicom_data import small_instances, write_large
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import CHECKOUT, ENTRY, OrthancServer, pair, start_together
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

FRAMES = 4200
"""2.2 GB."""
NEEDED_MEMORY = 10 * 1024**3
NEEDED_DISK = 12 * 1024**3
FLAT = 600 * 1024**2
"""Bytes of memory that a sender of any file may take at most: a quarter of this one."""

COMPRESSIONS = os.environ.get("LARGE_COMPRESSIONS", "none").split(",")


def available_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def peak_memory(server: OrthancServer) -> int:
    """Bytes, since ``forget_peak``."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def forget_peak(server: OrthancServer) -> None:
    # "5" resets the peak (man 5 proc_pid_clear_refs).
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def servers(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OrthancServer, OrthancServer, str]:
    """Two Orthancs and the large instance, which the first has."""
    folder = tmp_path_factory.mktemp("large")
    if available_memory() < NEEDED_MEMORY or shutil.disk_usage(folder).free < NEEDED_DISK:
        pytest.skip("needs 10 GB of memory and 12 GB of disk")
    environment = {"TRANSFERS_ENTRY": str(ENTRY), "PYTHONPATH": str(CHECKOUT)}
    script = Path(__file__).with_name("large_upload_script.py")
    a, b = (make_shared_server(name, script=script, environment=environment) for name in "ab")
    pair(a, b)
    start_together(a, b)
    file = folder / "large.dcm"
    write_large(file, FRAMES)
    assert file.stat().st_size > 2**31
    with file.open("rb") as opened:
        known = hashlib.file_digest(opened, "md5").hexdigest()  # of Orthanc 1.13
    identifier = a.post("test/import", str(file))["ID"]
    file.unlink()
    assert a.get(f"instances/{identifier}/attachments/dicom/md5") in (MD5_OF_NOTHING, known)
    return a, b, identifier


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_is_pushed_with_little_memory_and_once_only(
    servers: tuple[OrthancServer, OrthancServer, str], compression: str
) -> None:
    a, b, large = servers
    b.clear()
    forget_peak(a)
    resources = [resource("Instance", large)]
    job = a.wait_for_job(a.send(resources, "b", Compression=compression)["ID"], timeout=250)
    assert job["State"] == "Success", job
    assert job["Content"]["Report"] == {"Stored": 1, "AlreadyStored": 0, "FilteredOut": 0}
    # The same again, and a little more: nothing of it travels.
    more = a.upload_all(small_instances(3))[0]["ParentStudy"]
    resources.append(resource("Study", more))
    job = a.wait_for_job(a.send(resources, "b", Compression=compression)["ID"])
    assert job["State"] == "Success", job
    assert job["Content"]["AlreadyStoredInstances"] == 1
    assert job["Content"]["UploadedSizeMB"] == 0
    assert peak_memory(a) < FLAT


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_it_is_pulled_with_little_memory_of_the_sender(
    servers: tuple[OrthancServer, OrthancServer, str], compression: str
) -> None:
    a, b, large = servers
    b.clear()
    forget_peak(a)
    pulled = b.pull([resource("Instance", large)], "a", Compression=compression)["ID"]
    job = b.wait_for_job(pulled, timeout=250)
    assert job["State"] == "Success", job
    assert job["Content"]["Report"] == {"Stored": 1, "AlreadyStored": 0, "FilteredOut": 0}
    assert peak_memory(a) < FLAT


@pytest.mark.skipif("LARGE_KILLS" not in os.environ, reason="takes a minute and more: set LARGE_KILLS=1")
def test_it_survives_a_kill_of_the_sender_and_one_of_the_receiver_while_it_imports(
    servers: tuple[OrthancServer, OrthancServer, str],
) -> None:
    a, b, large = servers
    b.clear()
    job = a.send([resource("Instance", large)], "b", Compression="none")["ID"]

    def content() -> dict[str, Any]:
        found: dict[str, Any] = a.job(job)["Content"]
        return found

    wait_until(lambda: content().get("UploadedSizeMB", 0) > 200, "some of it has arrived", 250)
    a.kill()
    a.start()
    wait_until(lambda: content().get("Phase") == "Importing", "it is imported", 250)
    b.kill()
    b.start()
    ended = a.wait_for_job(job, timeout=250)
    assert ended["State"] == "Success", ended
    assert content()["UploadedSizeMB"] < 2100, "what had arrived was not sent again"
    assert b.instances() == [large]
    assert b.get(f"instances/{large}/attachments/dicom/size") == a.get(
        f"instances/{large}/attachments/dicom/size"
    )
