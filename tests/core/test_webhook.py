"""Notifications of rules: what may be asked for, and how they are signed."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.webhook import HIDDEN, Event, Notify, hide_secrets, keep_secrets, signature

SECRET = "a secret of some length"
URL = "https://user:pw@hooks.example:8443/T0/B0?key=1"


def test_all_events_by_default() -> None:
    assert Notify.parse({"Url": URL}) == Notify(URL, None, frozenset(Event), 3600.0)
    chosen = Notify.parse({"Url": URL, "Secret": SECRET, "Events": "Failure", "WaitingMinutes": 0.5})
    assert chosen == Notify(URL, SECRET, frozenset({Event.FAILURE}), 30.0)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, '"Notify"'),
        ({}, '"Url"'),
        ({"Url": 1}, '"Url"'),
        ({"Url": "ftp://x/"}, '"Url"'),
        ({"Url": "file:///etc/passwd"}, '"Url"'),
        ({"Url": "https://"}, '"Url"'),
        ({"Url": "https://x:port/"}, '"Url"'),
        ({"Url": "https://[x/"}, '"Url"'),
        ({"Url": "https://x/a b"}, '"Url"'),
        ({"Url": "https://x/\r\nx: y"}, '"Url"'),
        ({"Url": "https://x/" + "x" * 2000}, '"Url"'),
        ({"Url": URL, "Secret": "short"}, '"Secret"'),
        ({"Url": URL, "Secret": HIDDEN * 3}, None),
        ({"Url": URL, "Secret": HIDDEN}, '"Secret"'),
        ({"Url": URL, "Events": []}, '"Events"'),
        ({"Url": URL, "Events": ["success"]}, '"Events"'),
        ({"Url": URL, "Events": [{}]}, '"Events"'),
        ({"Url": URL, "WaitingMinutes": 0}, '"WaitingMinutes"'),
        ({"Url": URL, "WaitingMinutes": "1"}, '"WaitingMinutes"'),
        ({"Url": URL, "Headers": {}}, "\"Notify\" has the unknown key 'Headers': it may have Url"),
    ],
)
def test_a_bad_one_is_named(value: Any, named: str | None) -> None:
    if named is None:
        Notify.parse(value)
        return
    with pytest.raises(BadRequest) as caught:
        Notify.parse(value)
    assert named in str(caught.value)
    assert SECRET not in str(caught.value)


def test_only_the_server_is_shown() -> None:
    notify = Notify.parse({"Url": URL, "Secret": SECRET})
    assert notify.where == "https://hooks.example:8443"
    assert repr(notify) == "Notify('https://hooks.example:8443')"
    assert Notify.parse({"Url": "http://[::1]/x"}).where == "http://[::1]"


def test_the_signature_is_of_the_time_and_the_body() -> None:
    digest = hmac.new(SECRET.encode(), b'17.{"a": 1}', hashlib.sha256).hexdigest()
    assert signature(SECRET, 17, b'{"a": 1}') == f"t=17,v1={digest}"
    headers = Notify.parse({"Url": URL, "Secret": SECRET}).headers("Success", b'{"a": 1}', 17.9)
    assert headers["transfers-signature"] == f"t=17,v1={digest}"
    assert headers["transfers-event"] == "Success"
    assert "transfers-signature" not in Notify.parse({"Url": URL}).headers("Success", b"", 1)


def test_a_secret_is_not_shown_and_not_lost() -> None:
    rule = {"Name": "x", "Notify": {"Url": URL, "Secret": SECRET}}
    shown = hide_secrets(rule)
    assert SECRET not in str(shown)
    assert keep_secrets(shown, rule) == rule
    assert keep_secrets({**shown, "Name": "y"}, rule) == {**rule, "Name": "y"}
    # Not even to another server of whoever may change rules, but does not know it.
    with pytest.raises(BadRequest):
        keep_secrets({"Notify": {"Url": "https://evil.example/", "Secret": HIDDEN}}, rule)
    for other in ({"Name": "x"}, {"Notify": 7}, {"Notify": {"Url": URL}}):
        assert hide_secrets(other) == other
        assert keep_secrets(other, rule) == other
        assert keep_secrets(other, None) == other
