"""docs/kubernetes: its syntax, and that its parts fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.orthanc_server import CHECKOUT, CONFIGS, load_configuration

FILE = CHECKOUT / "docs" / "kubernetes" / "orthanc-cluster.yaml"


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """By their kinds."""
    found = list(yaml.safe_load_all(FILE.read_text()))
    for one in found:
        assert {"apiVersion", "kind", "metadata"} <= set(one)
    by_kind = {one["kind"]: one for one in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.fixture
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_no_session_affinity_and_all_pods_are_asked(objects: dict[str, dict[str, Any]]) -> None:
    service, deployment = objects["Service"]["spec"], objects["Deployment"]["spec"]
    assert service["sessionAffinity"] == "None"
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"] == deployment["selector"]["matchLabels"] == labels
    assert deployment["replicas"] == 3


def test_each_pod_is_probed(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    ports = {one["name"] for one in container["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        assert probe.get("exec", {}).get("command") == ["/probes/test-aliveness.py"] or (
            probe["tcpSocket"]["port"] in ports
        )
    # What a node waits for when it stops, after the pause in which others learn that it does.
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= 30 + int(seconds)


def test_what_is_mounted_and_named_is_there(objects: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == set(volumes)
    assert volumes["configuration"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    claim = objects["PersistentVolumeClaim"]
    assert volumes["storage"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for variable in container["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret is not None:
            assert secret["name"] == objects["Secret"]["metadata"]["name"]
            assert secret["key"] in objects["Secret"]["stringData"]


def test_its_configuration_is_the_one_that_is_tested(
    objects: dict[str, dict[str, Any]], pod: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text(objects["ConfigMap"]["data"]["orthanc.json"])
    expected = load_configuration(CONFIGS / "orthanc-cluster.json")
    expected["PostgreSQL"]["Password"] = "${POSTGRESQL_PASSWORD}"
    expected["RegisteredUsers"] = {"demo": "${DEMO_PASSWORD}"}
    assert load_configuration(file) == expected
    (container,) = pod["containers"]
    assert {"NODE", "POSTGRESQL_PASSWORD", "DEMO_PASSWORD"} <= {one["name"] for one in container["env"]}
