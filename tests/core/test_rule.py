"""Rules: strict about every value, and each sentence names the key."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule import ALL, AT_A_TIME, FIRST, Rule, TimeOfWeek, name_of
from orthanc_transfers.core.weekly_hours import DAY, is_open
from tests.core.any_json import any_json

LEAST = {"Name": "all", "Trigger": "StableStudy", "Destinations": ["b"]}


def parse(**keys: Any) -> Rule:
    return Rule.parse({**LEAST, **keys})


def test_the_defaults() -> None:
    rule = parse()
    assert (rule.enabled, rule.deliver, rule.level, rule.priority) == (True, FIRST, Level.STUDY, 0)
    assert (rule.window, rule.retry, bool(rule.after), rule.notify) == ((), 7 * 86400, False, None)


def test_every_key() -> None:
    rule = parse(
        Trigger="StableSeries",
        Destinations=["b", "c"],
        Deliver="All",
        Level="Patient",
        Priority=-3,
        Window=[{"Days": "Mon", "From": "20:00", "To": "06:00"}],
        Retry="90m",
        After={"SetMetadata": {"1030": "x", "MyName": "y"}},
        Enabled=False,
    )
    assert (rule.deliver, rule.level, rule.priority, rule.retry) == (ALL, Level.PATIENT, -3, 5400)
    assert [is_open(rule.window, minute) for minute in (19 * 60, 20 * 60, DAY + 300, DAY + 400)] == [
        *(False, True, True, False)
    ]
    assert not rule.follows_changes()


def test_a_request_of_a_rule_has_its_keys() -> None:
    request = parse(Priority=5, Compression="none").request([Resource(Level.STUDY, "id")], "b", "name")
    assert request == {
        "Resources": [{"Level": "Study", "ID": "id"}],
        "Peer": "b",
        "SenderTransferID": "name",
        "Priority": 5,
        "Compression": "none",
    }


def test_a_time_of_the_week() -> None:
    rule = parse(Trigger={"At": "22:00", "Days": "Mon,Fri"})
    assert (rule.trigger, rule.time) == (AT_A_TIME, TimeOfWeek("Mon,Fri", 22 * 60))
    assert rule.time is not None
    assert rule.time.since(22 * 60) == 0
    assert rule.time.since(21 * 60) == 2 * DAY + 23 * 60  # since Friday


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"Name": "a/b"}, '"Name"'),
        ({"Name": ".."}, '"Name"'),
        ({"Trigger": {"At": "24:00"}}, '"Trigger"'),
        ({"Trigger": {"At": "22:00", "Days": 5}}, '"Trigger"'),
        ({"Destinations": ["b", "b"]}, '"Destinations"'),
        ({"Deliver": "Any"}, '"Deliver"'),
        ({"Level": "Series"}, '"Level"'),
        ({"Window": [{"LimitKBs": 3}]}, '"Window"'),
        ({"Retry": "7"}, '"Retry"'),
        ({"Retry": "99999d"}, '"Retry"'),
        ({"After": {"Label": "x"}}, '"After"'),
        ({"After": {"AddLabel": "a b"}}, '"AddLabel"'),
        ({"After": {"SetMetadata": {"12": "x"}}}, '"SetMetadata"'),
        ({"After": {"Delete": 1}}, '"Delete"'),
        ({"Priority": "high"}, '"Priority"'),
        ({"Enabled": "yes"}, '"Enabled"'),
        ({"Destination": "b"}, '"Destinations"'),
        ({"Notify": {"Url": "ftp://x"}}, '"Url"'),
    ],
)
def test_a_bad_value_is_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse(**keys)


@given(st.dictionaries(st.sampled_from([*LEAST, "Filter", "Window", "After", "Level", "Retry"]), any_json()))
def test_any_json_is_a_rule_or_is_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        Rule.parse(body)
    json.dumps(name_of(body))
