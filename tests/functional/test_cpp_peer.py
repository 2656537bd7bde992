"""Transfers with a peer that is the C++ plugin on the wire: what is sent, and how its responses are taken."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orthanc_transfers.core.connection_share import SENDER_HEADER
from orthanc_transfers.core.messages_v2 import PROBE_HEADERS
from tests.faults.rig import is_saved
from tests.support.cpp_peer import Asked, CppPeer
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PUT = r"/transfers/push/[0-9a-f-]+/[0-9]+"
COMMIT = r"/transfers/push/[0-9a-f-]+/commit"
DELETE = r"/transfers/push/[0-9a-f-]+"
KB = 1024
BUCKET = 16 * KB

# What HTTP itself wants, and no more of our own than the C++ plugin sends.
HEADERS = {"host", "user-agent", "accept", "accept-encoding", "connection"}
OF_A_BODY = {"content-length", "content-type"}
OF_A_TRANSFER = {"sender-transfer-id"}

# Keys of the content: those of the C++ plugin as they come one after the other, and those that we add.
# A pull begins with both at the same time.
FIRST = {"GET /transfers/capabilities", "POST /transfers/lookup"}

ORDERED = {"Resources", "Peer", "Compression"}
LISTED = {"TotalInstances", "TotalSizeMB"}
CARRIED = {"CompletedHttpQueries", "NetworkSpeedKBs"}
OURS = {
    "AlreadyStoredInstances",
    "ChangedIdentifiers",
    "Codecs",
    "CompressionRatio",
    "CompressionUsed",
    "Error",
    "Extras",
    "EstimatedSecondsLeft",
    "ImportedInstances",
    "NotTransferred",
    "Phase",
    "Protocol",
    "Report",
    "ResumedSizeMB",
    "Transaction",
    "TranscodedInstances",
}


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> OrthancServer:
    options = {"BucketSize": BUCKET // KB, "MaxHttpRetries": 0, "MaxOutage": 0}
    return make_shared_server("a", configuration={"Transfers": options}).start()


@pytest.fixture
def a(shared: OrthancServer) -> OrthancServer:
    """One Orthanc for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


@pytest.fixture
def peer(a: OrthancServer) -> Iterator[CppPeer]:
    """A peer that ``a`` knows as "cpp", and as "pulls" in pull mode."""
    with CppPeer() as peer:
        a.put("peers/cpp", {"Url": peer.url})
        a.put("peers/pulls", {"Url": peer.url, "RemoteSelf": "a-as-it-is-known-there"})
        yield peer


def study(a: OrthancServer) -> list[dict[str, str]]:
    """Small, medium and large instances in one resource: grouped, alone and cut."""
    files = [*small_instances(3), *small_instances(1, size=96), *ct_study(1, size=256)]
    return [resource("Patient", one) for one in {item["ParentPatient"] for item in a.upload_all(files)}]


def files_of(a: OrthancServer) -> dict[str, bytes]:
    return {one: a.download(f"instances/{one}/file") for one in a.instances()}


def succeeded(a: OrthancServer, job: str) -> dict[str, Any]:
    known = a.wait_for_job(job)
    assert known["State"] == "Success", known
    content: dict[str, Any] = known["Content"]
    return content


def failed(a: OrthancServer, job: str) -> dict[str, Any]:
    known = a.wait_for_job(job)
    assert known["State"] == "Failure", known
    content: dict[str, Any] = known["Content"]
    return content


def shown(a: OrthancServer, job: str, key: str) -> dict[str, Any]:
    """The job, once its content has a key: Orthanc asks for it after each step."""

    def known() -> dict[str, Any] | None:
        answer = a.job(job)
        return answer if key in answer["Content"] else None

    answer: dict[str, Any] = wait_until(known, f"the job shows {key}")
    return answer


def theirs(content: dict[str, Any]) -> set[str]:
    return set(content) - OURS


def assert_headers(asked: Asked, more: set[str]) -> None:
    assert set(asked.headers) - HEADERS == more, asked


# -- Push ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_push_is_understood_by_a_peer_of_version_1(
    a: OrthancServer, peer: CppPeer, compression: str
) -> None:
    resources = study(a)
    content = succeeded(a, a.send(resources, "cpp", Compression=compression)["ID"])
    assert peer.stored == files_of(a)
    (creation,) = peer.of("POST", "/transfers/push")
    buckets = creation.json["Buckets"]
    assert list(peer.routes)[:2] == ["GET /transfers/capabilities", "POST /transfers/push"]
    assert list(peer.routes)[-1] == "POST /transfers/push/*/commit"
    # Each bucket once, and nothing else.
    puts = peer.of("PUT", PUT)
    assert sorted(int(one.target.rpartition("/")[2]) for one in puts) == list(range(len(buckets)))
    assert len(peer.asked) == 3 + len(buckets)
    assert content["CompletedHttpQueries"] == len(buckets)


def test_the_headers_of_a_push_are_those_of_version_1(a: OrthancServer, peer: CppPeer) -> None:
    peer.cookies = ("other=1; Path=/", "route=b1; Path=/; HttpOnly")
    succeeded(a, a.send(study(a), "cpp", SenderTransferID="by-name", Compression="gzip")["ID"])
    (capabilities,) = peer.of("GET", "/transfers/capabilities")
    # The C++ plugin has no such route. It is asked there whether our headers come through, and nowhere else.
    assert_headers(capabilities, {*PROBE_HEADERS, SENDER_HEADER})
    (creation,) = peer.of("POST", "/transfers/push")
    assert_headers(creation, OF_A_BODY | OF_A_TRANSFER)
    assert creation.headers["content-type"] == "application/json"
    puts = peer.of("PUT", PUT)
    for one in puts:
        assert_headers(one, OF_A_BODY | OF_A_TRANSFER | {"cookie"})
        assert one.headers["content-type"] == "application/octet-stream"
        assert int(one.headers["content-length"]) == len(one.body)
    (commit,) = peer.of("POST", COMMIT)
    assert_headers(commit, OF_A_BODY | OF_A_TRANSFER | {"cookie"})
    for one in (creation, *puts, commit):
        assert one.headers["sender-transfer-id"] == "by-name"
    for one in (*puts, commit):
        # The last one is all that the C++ plugin sends back.
        assert "route=b1" in one.headers["cookie"].split("; ")


def test_the_content_of_a_push_has_the_keys_of_the_c_plugin(a: OrthancServer, peer: CppPeer) -> None:
    resources = study(a)
    carried = CARRIED | {"UploadedSizeMB"}
    with peer.holding(PUT) as held:
        job = a.send(resources, "cpp", Compression="gzip")["ID"]
        wait_until(held, "the peer is asked")
        known = shown(a, job, "CompletedHttpQueries")
        # No bucket has arrived yet; the listing counts as one more of them, and so will the commit.
        assert theirs(known["Content"]) == ORDERED | LISTED | carried
        (creation,) = peer.of("POST", "/transfers/push")
        assert known["Progress"] == 100 // (2 + len(creation.json["Buckets"]))
    content = succeeded(a, job)
    assert theirs(content) == ORDERED | LISTED | carried
    assert content["Resources"] == [
        {"Level": "Patient", "Type": "Patient", "ID": one["ID"]} for one in resources
    ]
    assert (content["Peer"], content["Compression"]) == ("cpp", "gzip")
    assert all(type(content[key]) is int for key in LISTED | carried)


def test_what_version_1_cannot_take_is_said_in_the_job(a: OrthancServer, peer: CppPeer) -> None:
    study = a.upload_all(small_instances(2))[0]["ParentStudy"]
    a.request("PUT", f"studies/{study}/metadata/1050", data="text")
    wanted = {"WithLabels": True, "WithMetadata": True, "WithAttachments": True}
    job = a.wait_for_job(a.send([resource("Study", study)], "cpp", **wanted)["ID"])
    assert job["State"] == "Success", job
    said = job["Content"]["NotTransferred"]
    assert [one.partition(":")[0] for one in said] == ["labels", "metadata", "attachments"]
    assert all("version 1" in one for one in said)
    report = a.get(f"transfers/reports/{job['ID']}")
    assert report["NotTransferred"] == said


def test_a_commit_may_take_longer_than_any_other_request(a: OrthancServer, peer: CppPeer) -> None:
    began: list[float] = []

    def slow() -> bool:
        began.append(time.monotonic())
        wait_until(lambda: time.monotonic() > began[0] + 4, "the time-out of the others is over")
        return False

    peer.committed = slow
    a.put("peers/cpp", {"Url": peer.url, "Timeout": 3})
    succeeded(a, a.send(study(a), "cpp")["ID"])
    assert len(began) == 1


def test_a_commit_whose_answer_is_lost_is_asked_again_and_what_arrived_is_looked_at(
    a: OrthancServer, peer: CppPeer
) -> None:
    peer.committed = lambda: True
    succeeded(a, a.send(study(a), "cpp")["ID"])
    # The second one is answered by 404: the peer knows nothing of the push any more.
    assert len(peer.of("POST", COMMIT)) == 2
    (lookup,) = peer.of("POST", "/transfers/lookup")
    assert lookup.json == [{"Level": "Instance", "ID": one} for one in a.instances()]
    assert peer.stored == files_of(a)


def test_a_commit_that_outlived_its_sender_is_looked_at_and_nothing_is_sent_again(
    make_server: MakeServer,
) -> None:
    with CppPeer() as peer:
        options = {"BucketSize": BUCKET // KB}
        a = make_server("a", configuration={"Transfers": options, "OrthancPeers": {"cpp": {"Url": peer.url}}})
        a.start()
        resources = study(a)
        with peer.holding(COMMIT) as committing:
            job = a.send(resources, "cpp")["ID"]
            wait_until(committing, "the commit")
            wait_until(lambda: is_saved(a, job), "the job is in the database")
            a.kill()
        wait_until(lambda: peer.stored, "the import, which is not reported")
        a.start()
        succeeded(a, job)
        paths = [asked.target for asked in peer.of("PUT", PUT)]
        assert len(paths) == len(set(paths)) > 3
        assert len(peer.of("POST", "/transfers/push")) == 1
        assert len(peer.of("POST", COMMIT)) == 2
        assert len(peer.of("POST", "/transfers/lookup")) == 1
        assert peer.stored == files_of(a)


def test_a_commit_whose_answer_is_lost_with_what_was_sent_is_no_success(
    a: OrthancServer, peer: CppPeer
) -> None:
    def lose() -> bool:
        peer.stored.clear()
        return True

    peer.committed = lose
    content = failed(a, a.send(study(a), "cpp")["ID"])
    assert "outcome is unknown" in content["Error"]


@pytest.mark.parametrize("status", [201, 202, 204, 307, 400])
def test_only_a_200_is_a_success(a: OrthancServer, peer: CppPeer, status: int) -> None:
    peer.status = status
    content = failed(a, a.send(study(a), "cpp")["ID"])
    assert str(status) in content["Error"]
    wait_until(lambda: peer.of("DELETE", DELETE), "the push is deleted there")
    assert peer.stored == {}
    assert peer.of("POST", COMMIT) == []


# -- Pull ---------------------------------------------------------------------------------------------


@pytest.fixture
def filled(a: OrthancServer, peer: CppPeer) -> CppPeer:
    """The peer with the files of ``study``, which ``a`` has not any more."""
    study(a)
    peer.files = files_of(a)
    a.clear()
    return peer


WHOLE = [resource("Study", "whichever")]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_pull_is_understood_by_a_peer_of_version_1(
    a: OrthancServer, filled: CppPeer, compression: str
) -> None:
    content = succeeded(a, a.pull(WHOLE, "cpp", Compression=compression)["ID"])
    assert files_of(a) == filled.files
    assert set(list(filled.routes)[:2]) == FIRST
    fetches = filled.of("GET", "/transfers/chunks/.*")
    assert len(filled.asked) == 2 + len(fetches)
    for one in fetches:
        assert re.fullmatch(
            rf"/transfers/chunks/[.0-9a-f-]+\?offset=[0-9]+&size=[0-9]+&compression={compression}", one.target
        )
    assert content["CompletedHttpQueries"] == len(fetches)
    # Small ones together, a medium one alone, the large one in parts.
    names = [one.target.rpartition("/")[2].partition("?")[0] for one in fetches]
    size = {name: len(data) for name, data in filled.files.items()}
    (large,) = (name for name in size if size[name] >= 2 * BUCKET)
    assert names.count(large) == -(-size[large] // (2 * BUCKET))
    assert sorted(name.count(".") for name in names if name != large) == [0, 0, 1]


def test_the_headers_of_a_pull_are_those_of_version_1(a: OrthancServer, filled: CppPeer) -> None:
    succeeded(a, a.pull(WHOLE, "cpp", SenderTransferID="by-name")["ID"])
    (lookup,) = filled.of("POST", "/transfers/lookup")
    assert_headers(lookup, OF_A_BODY | OF_A_TRANSFER)
    assert lookup.headers["content-type"] == "application/json"
    assert lookup.headers["sender-transfer-id"] == "by-name"
    assert lookup.json == WHOLE
    for one in filled.of("GET", "/transfers/chunks/.*"):
        assert_headers(one, set())


@pytest.mark.parametrize("more", [set(), {"Originator"}])
def test_the_content_of_a_pull_has_the_keys_of_the_c_plugin(
    a: OrthancServer, filled: CppPeer, more: set[str]
) -> None:
    carried = CARRIED | {"DownloadedSizeMB"}
    options = dict.fromkeys(more, filled.originator)
    with filled.holding("/transfers/lookup") as held:
        job = a.pull(WHOLE, "cpp", Compression="gzip", **options)["ID"]
        wait_until(held, "the peer is asked")
        known = shown(a, job, "Resources")
        assert theirs(known["Content"]) == ORDERED | more
        assert known["Progress"] == 0
    content = succeeded(a, job)
    assert theirs(content) == ORDERED | more | LISTED | carried
    assert content["Resources"] == [{**one, "Type": "Study"} for one in WHOLE]
    assert (content["Peer"], content["Compression"]) == ("cpp", "gzip")
    assert {key: content[key] for key in more} == options
    assert all(type(content[key]) is int for key in LISTED | carried)


def test_a_pull_of_nothing_ends_after_the_lookup_without_counts(a: OrthancServer, filled: CppPeer) -> None:
    filled.files.clear()
    content = succeeded(a, a.pull(WHOLE, "cpp", Compression="none")["ID"])
    assert len(filled.asked) == 2
    assert set(filled.routes) == FIRST
    assert theirs(content) == ORDERED


def test_a_pull_from_another_originator_fails_after_the_lookup(a: OrthancServer, filled: CppPeer) -> None:
    content = failed(a, a.pull(WHOLE, "cpp", Originator="somebody else")["ID"])
    assert {"POST /transfers/lookup"} <= set(filled.routes) <= FIRST
    assert theirs(content) == ORDERED | {"Originator"}
    assert content["Originator"] == "somebody else"
    assert a.instances() == []


# -- Pull mode ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("remote_self", ["a-as-it-is-known-there", "", True, 5])
def test_a_peer_that_knows_us_is_asked_to_pull_in_four_keys(
    a: OrthancServer, peer: CppPeer, remote_self: Any
) -> None:
    a.put("peers/pulls", {"Url": peer.url.rstrip("/"), "RemoteSelf": remote_self})
    wanted = [resource("Study", "whichever"), {"Level": "images", "ID": "x", "More": [1, None]}]
    answer = a.send(wanted, "pulls", Compression="gzip", Priority=3, SenderTransferID="by-name", Other=1)
    (pull,) = peer.of("POST", "/transfers/pull")
    originator = a.post("transfers/lookup", [])["Originator"]
    assert UUID.fullmatch(originator)
    text = {True: "1", 5: "5"}.get(remote_self, remote_self)
    assert pull.json == {
        "Resources": wanted,
        "Compression": "gzip",
        "Originator": originator,
        "Peer": text,
    }
    assert_headers(pull, OF_A_BODY | OF_A_TRANSFER)
    assert pull.headers["content-type"] == "application/json"
    assert pull.headers["sender-transfer-id"] == "by-name"
    # Nothing else is asked: neither whether it has the plugin, nor which version.
    assert len(peer.asked) == 1
    assert answer == {
        "Peer": "pulls",
        "RemoteJob": answer["RemoteJob"],
        "URL": f"{peer.url}jobs/{answer['RemoteJob']}",
    }


def test_a_failure_of_the_peer_in_pull_mode_is_a_500(a: OrthancServer, peer: CppPeer) -> None:
    a.put("peers/pulls", {"Url": peer.url + "elsewhere", "RemoteSelf": "a"})
    with pytest.raises(StatusError) as caught:
        a.send(WHOLE, "pulls", Compression="gzip")
    assert caught.value.status == 500


# -- Which peers have the plugin -----------------------------------------------------------------------


def test_a_peer_is_asked_for_its_plugins_and_nothing_else(a: OrthancServer, peer: CppPeer) -> None:
    found = a.get("transfers/peers")
    assert (found["cpp"], found["pulls"]) == ("installed", "bidirectional")
    assert list(peer.routes) == ["GET /plugins"] * 2
    for one in peer.asked:
        assert_headers(one, set())


def test_peers_are_asked_at_the_same_time_and_one_that_does_not_answer_hides_no_other(
    a: OrthancServer, peer: CppPeer
) -> None:
    # Each answers once all the others have been asked, but for one that never does.
    everybody = threading.Barrier(5, timeout=60)

    def wait_for_everybody(asked: Asked) -> None:
        everybody.wait()

    with ExitStack() as stack:
        others = {f"other-{number}": stack.enter_context(CppPeer()) for number in range(5)}
        silent = stack.enter_context(CppPeer())
        stack.enter_context(silent.holding("/plugins"))
        for other in others.values():
            other.hold = wait_for_everybody
        for name, other in {**others, "silent": silent}.items():
            a.put(f"peers/{name}", {"Url": other.url})
            stack.callback(a.delete, f"peers/{name}")
        found = a.get("transfers/peers")
    assert found == {
        "cpp": "installed",
        "pulls": "bidirectional",
        **dict.fromkeys(others, "installed"),
        "silent": "disabled",
    }
