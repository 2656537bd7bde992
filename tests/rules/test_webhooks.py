"""Notifications reach their server, signed, in their order, also after failures and restarts."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.webhook import Event, Notify
from orthanc_transfers.net.webhook_post import post
from orthanc_transfers.rules import webhooks
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.webhooks import GIVE_UP, Webhooks
from tests.runtime.fake_time import FakeClock
from tests.support.orthanc_server import CHECKOUT
from tests.support.waiting import wait_until

SECRET = "a secret of some length"


class Hook(ThreadingHTTPServer):
    """A server that is told. ``status`` is what it answers with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.told: list[tuple[dict[str, str], bytes]] = []
        """Headers (names in lower case) and body of each request, whatever was answered."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=hidden"

    @property
    def events(self) -> list[Any]:
        """The numbers that the test gave to the events that were told."""
        return [json.loads(body)["Number"] for _, body in self.told]


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.told.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Told:
    """The queue under test, and its clock. ``rules`` is where events of each rule go."""

    def __init__(self, folder: Path, rules: dict[str, Notify]) -> None:
        self.clock = FakeClock()
        self.database = RuleDatabase(lambda: folder / "rules" / "rules.sqlite", self.clock)
        self.database.open()
        with self.database.writing() as writer:
            for statement in filter(str.strip, webhooks.SCHEMA.split(";")):
                writer.execute(statement)
        self.rules = rules
        self.unreadable: set[str] = set()
        self.webhooks = Webhooks(
            self.database,
            rules.get,
            post,
            self.clock,
            jitter=lambda: 1.0,
            unreadable=lambda: self.unreadable,
        )

    def add(self, number: int, rule: str = "r", event: Event = Event.SUCCESS) -> bool:
        with self.database.writing() as writer:
            return self.webhooks.add(writer, rule, event, {"Number": number})

    def close(self) -> None:
        self.webhooks.close()
        self.database.close()


def test_it_is_signed_and_can_be_checked(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url, SECRET)})
    assert told.add(1)
    told.webhooks.deliver()
    ((headers, body),) = hook.told
    moment, digest = (part.split("=")[1] for part in headers["transfers-signature"].split(","))
    assert int(moment) == int(told.clock.now())
    assert hmac.compare_digest(
        digest, hmac.new(SECRET.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    )
    message = json.loads(body)
    assert (message["Event"], message["Rule"], message["Number"]) == ("Success", "r", 1)
    assert headers["transfers-event"] == "Success"
    assert "authorization" not in headers
    assert told.webhooks.waiting() == 0


def test_the_check_of_the_readme(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url, SECRET)})
    told.clock.now = time.time  # type: ignore[method-assign]
    told.add(1)
    told.webhooks.deliver()
    ((headers, body),) = hook.told
    (lines,) = re.findall(
        r"```python\n(moment, digest.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL
    )
    for secret, genuine in ((SECRET, True), ("another one", False)):
        names = {"headers": headers, "body": body, "secret": secret, "hmac": hmac, "time": time}
        exec(lines, names)
        assert names["genuine"] is genuine


def test_only_events_that_are_wanted(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url, None, frozenset({Event.FAILURE}))})
    assert not told.add(1)
    assert not told.add(2, rule="without one", event=Event.FAILURE)
    assert told.add(3, event=Event.FAILURE)
    told.webhooks.deliver()
    assert hook.events == [3]


def test_what_is_not_taken_is_told_again_in_its_order(
    tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url, SECRET)})
    told.add(1)
    told.add(2)
    hook.status = 500
    told.webhooks.deliver()
    told.webhooks.deliver()  # not yet
    assert hook.events == [1]
    told.clock.advance(5.0)
    hook.status = 302
    hook.headers["location"] = hook.url
    told.webhooks.deliver()
    assert hook.events == [1, 1]
    told.clock.advance(9.9)
    told.webhooks.deliver()
    assert hook.events == [1, 1]
    hook.status = 204
    told.clock.advance(0.2)
    told.webhooks.deliver()
    assert hook.events == [1, 1, 1, 2]
    identifiers = [json.loads(body)["ID"] for _, body in hook.told]
    assert len(set(identifiers[:3])) == 1
    assert len(set(identifiers)) == 2
    # Said once, without the address's secrets.
    assert len(caplog.records) == 1
    assert "status 500" in caplog.text
    assert "hidden" not in caplog.text
    assert SECRET not in caplog.text


def test_one_server_that_is_down_delays_no_other(tmp_path: Path, hook: Hook) -> None:
    down = Hook()
    down.server_close()
    told = Told(tmp_path, {"down": Notify(down.url), "r": Notify(hook.url)})
    for number in range(3):
        told.add(number, rule="down")
        told.add(number)
    told.webhooks.deliver()
    assert hook.events == [0, 1, 2]
    assert told.webhooks.waiting() == 3


def test_what_waits_survives_a_restart(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url)})
    hook.status = 503
    for number in range(3):
        told.add(number)
    told.webhooks.deliver()
    told.close()
    hook.status = 200
    again = Told(tmp_path, {"r": Notify(hook.url)})
    again.clock.advance(10)
    again.webhooks.deliver()
    assert hook.events == [0, 0, 1, 2]


def test_what_nobody_takes_for_a_week_or_wants_any_more_is_dropped(
    tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url), "gone": Notify(hook.url)})
    hook.status = 404
    told.add(1)
    told.add(2, rule="gone")
    told.webhooks.deliver()
    del told.rules["gone"]
    told.clock.advance(GIVE_UP + 1)
    told.webhooks.deliver()
    assert told.webhooks.waiting() == 0
    assert hook.events == [1, 2, 1]
    assert "dropped" in caplog.text


def test_what_waits_is_told_once_its_rule_can_be_read_again(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url)})
    told.add(1)
    there = told.rules.pop("r")
    told.unreadable.add("r")
    told.webhooks.deliver()
    assert told.webhooks.waiting() == 1
    told.rules["r"] = there
    told.unreadable.clear()
    told.clock.advance(10)
    told.webhooks.deliver()
    assert (hook.events, told.webhooks.waiting()) == ([1], 0)


def test_the_queue_is_bounded(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "MAX_QUEUED", 3)
    told = Told(tmp_path, {"r": Notify(hook.url)})
    for number in range(5):
        told.add(number)
    told.webhooks.deliver()
    assert hook.events == [2, 3, 4]
    assert "dropped" in caplog.text


def test_a_thread_delivers_what_is_queued(tmp_path: Path, hook: Hook) -> None:
    told = Told(tmp_path, {"r": Notify(hook.url)})
    told.add(1)
    told.webhooks.start()
    wait_until(lambda: hook.events == [1], "the first notification")
    told.add(2)
    told.webhooks.queued()
    wait_until(lambda: hook.events == [1, 2], "the second notification")
    told.close()


def test_proxies_are_those_of_the_environment(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{hook.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert post("http://user:pw@hooks.invalid/x", {}, b"{}") is None
    ((headers, _),) = hook.told
    assert headers["host"] == "hooks.invalid"
    assert headers["authorization"] == "Basic dXNlcjpwdw=="


def test_no_password_of_a_file_is_sent(hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert post(hook.url, {}, b"{}") is None
    assert "authorization" not in hook.told[0][0]
