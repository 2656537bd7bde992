"""An invalid configuration: one clear sentence in the log, and Orthanc runs without the plugin."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, python_plugin, start_together
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

NOT_LOADED = "the transfers plugin is not loaded"

BAD: dict[str, dict[str, Any]] = {
    "unknown": {"Transfers": {"Thread": 4}},
    "negative": {"Transfers": {"BucketSize": -1}},
    "zero": {"Transfers": {"MaxPushTransactions": 0, "CacheSize": 0}},
    "text": {"Transfers": {"MaxHttpRetries": "five"}},
    "list": {"Transfers": []},
}

NAMED = {
    "unknown": ["Thread"],
    "negative": ["BucketSize", "-1"],
    "zero": ["MaxPushTransactions", "CacheSize"],
    "text": ["MaxHttpRetries", "five"],
    "list": ["Transfers"],
}


@pytest.fixture(scope="module")
def badly_configured(make_shared_server: MakeServer) -> dict[str, OrthancServer]:
    """One Orthanc for each bad configuration."""
    servers = {name: make_shared_server(name, configuration=bad) for name, bad in BAD.items()}
    start_together(*servers.values())
    return servers


def complaints(server: OrthancServer) -> list[str]:
    return [line for line in server.log.splitlines() if NOT_LOADED in line]


def assert_absent(server: OrthancServer) -> None:
    """Orthanc works, and nothing of the plugin is there."""
    (stored,) = server.upload_all(small_instances(1))
    assert server.instances() == [stored["ID"]]
    for method, path in (
        ("GET", "transfers/peers"),
        ("GET", "transfers/capabilities"),
        ("POST", "transfers/send"),
        ("POST", "transfers/lookup"),
        ("POST", "transfers/push"),
        ("GET", "plugins/transfers"),
    ):
        assert server.request(method, path).status_code == 404
    assert "transfers" not in server.get("plugins")
    assert "python" in server.get("plugins")
    assert "orthanc_transfers" not in server.request("GET", "tools/metrics-prometheus").text
    assert "Traceback" not in server.log


@pytest.mark.parametrize("name", BAD)
def test_a_bad_option_is_named_and_orthanc_starts_without_the_plugin(
    badly_configured: dict[str, OrthancServer], name: str
) -> None:
    server = badly_configured[name]
    (complaint,) = complaints(server)
    for part in NAMED[name]:
        assert part in complaint
    assert complaint.startswith("E")
    assert_absent(server)


@pytest.mark.parametrize("position", ["before", "after", "in a folder"])
def test_beside_the_plugin_in_c_plus_plus_ours_says_so_and_keeps_away(
    make_server: MakeServer, tmp_path: Path, position: str
) -> None:
    # Any plugin will do under that name: this one adds no route unless it is told to.
    other = tmp_path / "others" / "libOrthancTransfers.so"
    other.parent.mkdir()
    shutil.copy(python_plugin().with_name("libServeFolders.so"), other)
    server = make_server("both")
    plugins = {
        "before": [other, python_plugin()],
        "after": [python_plugin(), other],
        "in a folder": [python_plugin(), other.parent],
    }
    server.configuration["Plugins"] = [str(path) for path in plugins[position]]
    server.start()
    (complaint,) = complaints(server)
    assert "C++ transfers plugin" in complaint
    assert complaint.startswith("E")
    assert_absent(server)


def test_a_staging_directory_that_cannot_be_made_keeps_the_plugin_from_loading(
    make_server: MakeServer, tmp_path: Path
) -> None:
    # Below a file no user can make a folder, root included.
    file = tmp_path / "file"
    file.write_text("")
    server = make_server("a", configuration={"Transfers": {"StagingDirectory": str(file / "staging")}})
    server.start()
    (complaint,) = complaints(server)
    assert str(file / "staging") in complaint
    assert_absent(server)


def test_a_staging_directory_that_is_read_only_keeps_the_plugin_from_loading(make_server: MakeServer) -> None:
    # Even root cannot make a folder there.
    server = make_server("a", configuration={"Transfers": {"StagingDirectory": "/proc/sys/staging"}}).start()
    (complaint,) = complaints(server)
    assert "/proc/sys/staging" in complaint
    assert_absent(server)


def test_a_staging_directory_is_made_where_it_is_named(make_server: MakeServer, tmp_path: Path) -> None:
    a = make_server("a", configuration={"Transfers": {"MaxPeerBandwidth": 1, "BucketSize": 64}})
    # Relative to the configuration, as all paths of Orthanc.
    b = make_server("b", configuration={"Transfers": {"StagingDirectory": "some/where"}})
    a.add_peer("b", b)
    start_together(a, b)
    uploaded = a.upload_all(small_instances(40))
    job = a.send([resource("Study", uploaded[0]["ParentStudy"])], "b", Compression="none")["ID"]
    staging = b.folder / "some" / "where"

    def staged() -> int:
        # The list of past transfers, and the log of those that are one request, stay.
        return sum(path.stat().st_size for path in staging.rglob("area"))

    wait_until(lambda: staged() > 40 * 8192, "the area is there")
    assert not (b.storage / "Transfers").exists()
    a.post(f"jobs/{job}/cancel")
    wait_until(lambda: staged() == 0, "and gone")
