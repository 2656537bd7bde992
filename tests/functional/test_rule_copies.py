"""Rules on real Orthancs that send a copy made by /anonymize or /modify, and rules that tell a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.ports import free_port
from tests.support.rules import STABLE, history, queue, remove_rules, set_rule, study, wait_ended
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Pair = tuple[OrthancServer, OrthancServer]


@pytest.fixture(scope="module")
def both(make_shared_server: MakeServer) -> Pair:
    a = make_shared_server("a", configuration={**STABLE, "Transfers": {"MaxOutage": 1}})
    b = make_shared_server("b", configuration=STABLE)
    pair(a, b)
    a.add_peer("offline", b, Url=f"http://127.0.0.1:{free_port()}/")
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(both: Pair) -> Iterator[Pair]:
    yield both
    remove_rules(both[0])
    for server in both:
        server.clear()


def test_a_copy_is_sent_instead_and_deleted(servers: Pair) -> None:
    a, b = servers
    set_rule(a, "research", Anonymize={"Keep": ["StudyDescription"], "Replace": {"PatientID": "R1"}})
    set_rule(a, "all", to="b", Filter={"Tags": {"PatientID": "R1"}})
    original = study(a, 3)
    ended = wait_ended(a, original)
    assert (ended["Rule"], ended["Peer"]) == ("research", "b")
    (arrived,) = b.get("studies?expand")
    assert arrived["PatientMainDicomTags"]["PatientID"] == "R1"
    assert arrived["MainDicomTags"]["StudyDescription"] == "Made-up CT"
    assert arrived["ID"] != original
    assert len(b.instances()) == 3
    # The copy is gone, the original stays, and no rule took the copy for a new study.
    wait_until(lambda: a.get("studies") == [original], "the copy to be deleted")
    assert not queue(a)
    assert [entry["Rule"] for entry in history(a)] == ["research"]


def test_what_orthanc_cannot_make_is_said(servers: Pair) -> None:
    a, b = servers
    set_rule(a, "bad", Modify={"Replace": {"NoSuchTag": "x"}})
    original = study(a)

    def said() -> Any:
        return [one for one in queue(a) if one["Said"]]

    (waiting,) = wait_until(said, "the first attempt")
    assert f"Orthanc cannot modify study {original} as its rule says" in waiting["Said"]
    a.delete("transfers/rules/bad")
    wait_ended(a, original, "Dropped")
    assert b.get("studies") == []


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.told.append((dict(self.headers), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    server.told = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_server_is_told_of_success(servers: Pair, hook: ThreadingHTTPServer) -> None:
    a, _ = servers
    secret = "a secret of some length"
    url = f"http://127.0.0.1:{hook.server_port}/hook"
    shown = set_rule(a, "all", Notify={"Url": url, "Secret": secret})
    assert secret not in json.dumps([shown, a.get("transfers/rules"), a.get("transfers/settings")])
    arrived = study(a)
    ended = wait_ended(a, arrived)
    told = hook.told  # type: ignore[attr-defined]
    wait_until(lambda: told, "the notification")
    headers, message = told[0]
    assert "transfers-signature" in {name.lower() for name in headers}
    assert (message["Event"], message["Rule"], message["Resource"]) == ("Success", "all", arrived)
    assert message["Job"] == ended["Job"]


def test_a_server_is_told_of_failure_and_of_what_waits_for_long(
    servers: Pair, hook: ThreadingHTTPServer
) -> None:
    a, _ = servers
    notify = {"Url": f"http://127.0.0.1:{hook.server_port}/", "WaitingMinutes": 0.001}
    set_rule(a, "waits", to="offline", Notify={**notify, "Events": ["Waiting"]})
    set_rule(a, "fails", to="offline", Retry="0m", Notify={**notify, "Events": ["Failure"]})
    arrived = study(a)
    told = hook.told  # type: ignore[attr-defined]
    wait_until(lambda: len(told) == 2, "both notifications")
    said = {message["Rule"]: message for _, message in told}
    assert {(name, one["Event"], one["Resource"]) for name, one in said.items()} == {
        ("waits", "Waiting", arrived),
        ("fails", "Failure", arrived),
    }
    assert "given up" in said["fails"]["Said"]
    # Scripts that follow the log see it too.
    assert f"rule fails: study {arrived} is GivenUp" in a.log
    assert f"rule waits: study {arrived} still waits" in a.log


def test_without_a_rule_nothing_is_queued_or_kept(servers: Pair) -> None:
    _, b = servers
    arrived = study(b)
    wait_until(
        lambda: any(
            (one["ChangeType"], one["ID"]) == ("StableStudy", arrived)
            for one in b.get("changes?limit=1000")["Changes"]
        ),
        "it is stable",
    )
    assert b.get("transfers/rules")["Rules"] == queue(b) == history(b) == []
    assert not list(b.folder.rglob("rules*"))
    assert "transfers_rules" not in b.download("tools/metrics-prometheus").decode()
