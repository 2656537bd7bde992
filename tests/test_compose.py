"""docker-compose.yml and its like, the image and the configurations: what can be checked without Docker running."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from orthanc_transfers.core.peers import parse_peers
from orthanc_transfers.core.settings import parse_settings
from tests.support.orthanc_server import CHECKOUT, load_configuration

DOCKERFILE = CHECKOUT / "docker" / "Dockerfile"


def read(name: str) -> dict[str, Any]:
    """A file as compose itself understands it."""
    commands = [one for one in (["docker-compose"], ["docker", "compose"]) if shutil.which(one[0])]
    if not commands:
        pytest.skip("there is neither docker-compose nor docker here (`make setup-test`)")
    for command in commands:
        done = subprocess.run(
            [*command, "--project-directory", CHECKOUT, "--file", CHECKOUT / name, "config"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            parsed: dict[str, Any] = yaml.safe_load(done.stdout)
            return parsed
    pytest.fail(f"{name} is not taken: {done.stderr}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read("docker-compose.yml")


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return read("docker-compose.cluster.yml")


@pytest.fixture(params=["docker-compose.yml", "docker-compose.cluster.yml"])
def orthancs(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The services of either file that run Orthanc."""
    return [one for one in read(request.param)["services"].values() if "build" in one]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Path in the container -> what is mounted there: a path of this machine, or the name of a volume."""
    found = {}
    for volume in service["volumes"]:
        if isinstance(volume, str):
            source, target = volume.split(":")[:2]
        else:
            source, target = volume["source"], volume["target"]
        found[target] = source
    return found


def configuration(service: dict[str, Any]) -> dict[str, Any]:
    return load_configuration(Path(mounts(service)["/etc/orthanc/orthanc.json"]))


def test_there_are_two_orthancs_each_with_storage_of_its_own(compose: dict[str, Any]) -> None:
    storages = {mounts(service)["/var/lib/orthanc/db"] for service in compose["services"].values()}
    assert len(storages) == 2


def test_the_cpp_plugin_is_kept_out_and_ours_is_named(orthancs: list[dict[str, Any]]) -> None:
    for service in orthancs:
        environment = service["environment"]
        assert environment["TRANSFERS_PLUGIN_ENABLED"] == "false"
        assert environment["ORTHANC__PYTHON__ALLOW_THREADS"] == "true"
        assert f"COPY docker/transfers.py {environment['ORTHANC__PYTHON_SCRIPT']}" in DOCKERFILE.read_text()


def test_every_orthanc_is_watched(orthancs: list[dict[str, Any]]) -> None:
    for service in orthancs:
        assert service["healthcheck"]["test"] == ["CMD", "/probes/test-aliveness.py"]


def test_a_mounted_configuration_is_one_that_the_plugin_takes(orthancs: list[dict[str, Any]]) -> None:
    for service in orthancs:
        content = configuration(service)
        parse_peers(content["OrthancPeers"])
        # Orthanc replaces variables before a plugin sees them.
        node = service["environment"].get("NODE", "")
        assert parse_settings(json.loads(json.dumps(content["Transfers"]).replace("${NODE}", node)))


def test_a_login_is_required(orthancs: list[dict[str, Any]]) -> None:
    for service in orthancs:
        content = configuration(service)
        assert content["AuthenticationEnabled"]
        # Orthanc 1.13 does not start without one.
        assert content["RegisteredUsers"]


def test_peers_lead_to_each_other_with_a_login_that_is_accepted(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        peers = parse_peers(configuration(service)["OrthancPeers"])
        modes = set()
        for peer in peers.values():
            address = urlsplit(peer.url)
            assert address.hostname in services
            assert address.hostname != name
            assert address.port == 8042
            other = configuration(services[address.hostname])
            assert other["RegisteredUsers"][peer.username] == peer.password
            back = peer.properties.get("RemoteSelf")
            modes.add("push" if back is None else "pull")
            if back is not None:
                assert urlsplit(parse_peers(other["OrthancPeers"])[back].url).hostname == name
        assert modes == {"push", "pull"}


def test_the_nodes_of_a_cluster_share_storage_and_index_and_nothing_else(cluster: dict[str, Any]) -> None:
    services = cluster["services"]
    nodes = {name: service for name, service in services.items() if "build" in service}
    assert len(nodes) == 3
    assert {service["environment"]["NODE"] for service in nodes.values()} == set(nodes)
    assert {mounts(service)["/var/lib/orthanc/db"] for service in nodes.values()} == {"storage"}
    for service in nodes.values():
        content = configuration(service)
        database = content["PostgreSQL"]
        given = services[database["Host"]]["environment"]
        assert (database["Database"], database["Username"], database["Password"]) == (
            given["POSTGRES_DB"],
            given["POSTGRES_USER"],
            given["POSTGRES_PASSWORD"],
        )
        assert database["Lock"] is False
        assert content["DatabaseServerIdentifier"] == "${NODE}"
        assert content["Transfers"]["Cluster"]["NodeName"] == "${NODE}"


def test_nginx_asks_all_nodes_of_a_cluster_in_turn(cluster: dict[str, Any]) -> None:
    services = cluster["services"]
    text = Path(mounts(services["nginx"])["/etc/nginx/conf.d/default.conf"]).read_text()
    servers = re.findall(r"^ *server ([\w-]+):8042 ", text, re.MULTILINE)
    assert set(servers) == {name for name, service in services.items() if "build" in service}
    assert not re.search(r"ip_hash|sticky|^ *hash ", text, re.MULTILINE)
    (port,) = re.findall(r"listen (\d+);", text)
    assert [str(one).split("/")[0] for one in services["nginx"]["ports"]] == [f"127.0.0.1:8042:{port}"]


def test_the_image_is_pinned_and_has_the_package_without_a_compiler() -> None:
    text = DOCKERFILE.read_text()
    assert re.search(r"^FROM orthancteam/orthanc:\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert "pip install --no-cache-dir --break-system-packages" in text


def test_everything_that_the_image_copies_exists_and_is_sent_to_the_build() -> None:
    sources = [
        source
        for line in DOCKERFILE.read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    ]
    kept = [
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    assert sources
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source
