"""Labels, user-defined metadata and attachments travel with a study, where the receiver takes them."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

USER = {"UserMetadata": {"report": 1050}, "UserContentType": {"pdf": [1060, "application/pdf"]}}
# Another number, and a number that is not registered.
OTHER = {"UserMetadata": {"report": 2050, "taken": 1077}, "UserContentType": {"pdf": 2060}}
RULE = {
    "Name": "whole",
    "Trigger": "Manual",
    "Destinations": ["b"],
    "WithAttachments": True,
    "Overwrite": True,
}
TAKEN = {"AcceptMetadata": ["Labels", "Metadata", "Attachments"], "OriginMetadata": 1090}
LARGE = bytes(range(256)) * 40_000


@dataclass
class Pair:
    a: OrthancServer
    b: OrthancServer
    study: str = ""
    series: str = ""
    instance: str = ""

    @property
    def labels(self) -> bool:
        return bool(self.a.get("system").get("HasLabels"))

    def send(self, **options: Any) -> dict[str, Any]:
        return self.transfer("send", **options)

    def transfer(self, route: str, **options: Any) -> dict[str, Any]:
        server, peer = (self.a, "b") if route == "send" else (self.b, "a")
        body = {"Resources": [resource("Study", self.study)], "Peer": peer, **options}
        return server.wait_for_job(server.post(f"transfers/{route}", body)["ID"])

    def levels(self) -> list[str]:
        patient = self.a.get(f"studies/{self.study}")["ParentPatient"]
        return [
            f"patients/{patient}",
            f"studies/{self.study}",
            f"series/{self.series}",
            f"instances/{self.instance}",
        ]


@pytest.fixture(scope="module", params=[False, True], ids=["as usual", "CheckRevisions"])
def shared(make_shared_server: MakeServer, request: pytest.FixtureRequest) -> Pair:
    name, revisions = ("r", {"CheckRevisions": True}) if request.param else ("u", {})
    a = make_shared_server(
        f"a{name}",
        configuration={
            **USER,
            **revisions,
            "DicomServerEnabled": True,
            "Transfers": {**TAKEN, "Rules": [RULE]},
        },
    )
    b = make_shared_server(f"b{name}", configuration={**OTHER, **revisions, "Transfers": TAKEN})
    a.add_peer("b", b)
    b.add_peer("a", a)
    start_together(a, b)
    return Pair(a, b)


@pytest.fixture
def pair(shared: Pair) -> Pair:
    for server in (shared.a, shared.b):
        server.clear()
    first = shared.a.upload_all(list(small_instances(3)))[0]
    shared.study, shared.series, shared.instance = (
        first["ParentStudy"],
        first["ParentSeries"],
        first["ID"],
    )
    return shared


def set_value(server: OrthancServer, path: str, value: bytes) -> None:
    held = server.request("GET", path if "metadata" in path else f"{path}/data")
    headers = {"If-Match": held.headers["ETag"]} if held.status_code == 200 else {}
    assert server.request("PUT", path, data=value, headers=headers).status_code == 200


def value_of(server: OrthancServer, path: str) -> str | None:
    answer = server.request("GET", path)
    return answer.text if answer.status_code == 200 else None


@pytest.mark.parametrize("route", ["send", "pull"])
def test_all_travels_at_all_levels(pair: Pair, route: str) -> None:
    for number, path in enumerate(pair.levels()):
        set_value(pair.a, f"{path}/metadata/report", f"text ä {number}".encode())
        set_value(pair.a, f"{path}/metadata/1099", b"by number")
        set_value(pair.a, f"{path}/attachments/pdf", LARGE + bytes([number]))
        if pair.labels:
            pair.a.put(f"{path}/labels/label-{number}")
    job = pair.transfer(route, WithAttachments=True)
    assert job["State"] == "Success", job
    for number, path in enumerate(pair.levels()):
        answer = pair.b.request("GET", f"{path}/metadata/2050")
        assert answer.content.decode() == f"text ä {number}"
        assert value_of(pair.b, f"{path}/metadata/1099") == "by number"
        digest = hashlib.md5(LARGE + bytes([number])).hexdigest()
        assert value_of(pair.b, f"{path}/attachments/2060/md5") == digest
        if pair.labels:
            assert pair.b.get(f"{path}/labels") == [f"label-{number}"]
    counted = {"Metadata": 8, "Attachments": 4, **({"Labels": 4} if pair.labels else {})}
    assert job["Content"]["Extras"] == counted
    assert {key: job["Content"]["Report"].get(key) for key in counted} == counted
    assert "NotTransferred" not in job["Content"]


def test_by_default_attachments_do_not(pair: Pair) -> None:
    set_value(pair.a, f"studies/{pair.study}/metadata/report", b"text")
    set_value(pair.a, f"studies/{pair.study}/attachments/pdf", b"bytes")
    job = pair.send()
    assert job["State"] == "Success", job
    assert value_of(pair.b, f"studies/{pair.study}/metadata/report") == "text"
    assert pair.b.get(f"studies/{pair.study}/attachments") == []


def test_what_the_request_excludes_does_not(pair: Pair) -> None:
    set_value(pair.a, f"studies/{pair.study}/metadata/report", b"text")
    assert pair.send(WithMetadata=False)["State"] == "Success"
    assert value_of(pair.b, f"studies/{pair.study}/metadata/report") is None


@pytest.mark.parametrize("route", ["send", "pull"])
def test_a_study_that_is_there_already_gets_them(pair: Pair, route: str) -> None:
    assert pair.transfer(route)["State"] == "Success"
    set_value(pair.a, f"studies/{pair.study}/metadata/report", b"text")
    job = pair.transfer(route)
    assert job["Content"]["Report"]["Stored"] == 0
    assert value_of(pair.b, f"studies/{pair.study}/metadata/report") == "text"


def test_what_is_there_is_kept_unless_overwrite_is_asked_for(pair: Pair) -> None:
    assert pair.send()["State"] == "Success"
    for server, value in ((pair.a, b"of a"), (pair.b, b"of b")):
        set_value(server, f"studies/{pair.study}/metadata/report", value)
        set_value(server, f"studies/{pair.study}/attachments/pdf", value)
    job = pair.send(WithAttachments=True)
    assert job["Content"]["Report"]["ExtrasKept"] >= 2
    assert value_of(pair.b, f"studies/{pair.study}/metadata/report") == "of b"
    assert value_of(pair.b, f"studies/{pair.study}/attachments/pdf/data") == "of b"
    assert pair.send(WithAttachments=True, Overwrite=True)["State"] == "Success"
    assert value_of(pair.b, f"studies/{pair.study}/metadata/report") == "of a"
    assert value_of(pair.b, f"studies/{pair.study}/attachments/pdf/data") == "of a"


def test_a_number_that_is_another_ones_here_is_not_taken_and_the_report_says_so(pair: Pair) -> None:
    set_value(pair.a, f"studies/{pair.study}/metadata/1077", b"text")
    job = pair.send()
    assert job["State"] == "Success"
    assert job["Content"]["Report"]["ExtrasSkipped"] == 1
    assert value_of(pair.b, f"studies/{pair.study}/metadata/1077") is None
    report = pair.b.get(f"transfers/reports/{job['Content']['Transaction']}")
    assert "its number 1077 is that of taken here" in str(report["Report"]["Warnings"])


def test_labels_are_refused_in_words_where_orthanc_has_none(pair: Pair) -> None:
    job = pair.send(WithLabels=True)
    assert job["State"] == "Success"
    said = job["Content"].get("NotTransferred")
    assert said == (None if pair.labels else ["labels: the Orthanc of this server has none in its version"])


def test_where_a_series_came_from_is_recorded(pair: Pair) -> None:
    assert pair.send()["State"] == "Success"
    origin = pair.b.get(f"series/{pair.series}/metadata/1090")
    assert origin == {"Peer": pair.a.name, "Origin": "RestApi", "RemoteIP": "127.0.0.1"}


def test_where_the_sender_had_it_from_is_recorded_too_and_a_rule_may_ask_for_it(
    pair: Pair, tmp_path: Path
) -> None:
    pair.a.clear()
    file = tmp_path / "scanned.dcm"
    file.write_bytes(next(small_instances(1)))
    port = str(pair.a.dicom_port)
    subprocess.run(
        ["storescu", "-aet", "SCANNER-1", "-aec", "ORTHANC", "localhost", port, str(file)], check=True
    )
    (pair.study,), (series,) = pair.a.get("studies"), pair.a.get("series")
    assert pair.send()["State"] == "Success"
    assert pair.b.get(f"series/{series}/metadata/1090") == {
        "Peer": pair.a.name,
        "Origin": "DicomProtocol",
        "RemoteAET": "SCANNER-1",
        "RemoteIP": "127.0.0.1",
    }
    for pattern, fits in (("scanner*", True), ("other", False)):
        rule = {**RULE, "Name": "scanned", "Filter": {"RemoteAET": pattern}}
        pair.a.put("transfers/rules/scanned", rule)
        asked = {"DryRun": True, "Resources": [resource("Study", pair.study)]}
        (row,) = pair.a.post("transfers/rules/scanned/run", asked)["Resources"]
        assert (row["Why"] is None) is fits
    pair.a.delete("transfers/rules/scanned")


def test_a_rule_says_the_same_of_all_that_it_sends(pair: Pair) -> None:
    path = f"studies/{pair.study}/attachments/pdf"
    set_value(pair.a, path, b"bytes")
    pair.a.post("transfers/rules/whole/run", {"Resources": [resource("Study", pair.study)]})
    wait_until(lambda: value_of(pair.b, f"{path}/data") == "bytes", "the attachment is there")
