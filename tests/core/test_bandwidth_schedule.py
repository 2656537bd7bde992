"""Limits by day and hour."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.bandwidth_limits import BandwidthLimits
from orthanc_transfers.core.bandwidth_schedule import limit_at, minutes_until_change, parse_schedule
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.weekly_hours import DAY, WEEK

OFFICE = {"Days": "Mon-Fri", "From": "08:00", "To": "18:00", "LimitKBs": 1000}
NIGHT = {"Days": "Fri-Sun", "From": "22:00", "To": "06:00", "LimitKBs": 0}
MON, FRI, SAT, SUN = 0, 4, 5, 6


def at(day: int, hour: int, minute: int = 0) -> int:
    return day * DAY + hour * 60 + minute


@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        (at(MON, 7, 59), None),
        (at(MON, 8), 1000),
        (at(FRI, 17, 59), 1000),
        (at(FRI, 18), None),
        (at(SAT, 12), None),
        (at(FRI, 22), 0),
        (at(SAT, 5, 59), 0),
        (at(SUN, 23), 0),
        (at(MON, 5, 59), 0),
        (at(MON, 6), None),
    ],
)
def test_a_row_holds_on_its_days_also_over_midnight_and_the_end_of_the_week(
    moment: int, limit: float | None
) -> None:
    assert limit_at(parse_schedule([OFFICE, NIGHT]), moment) == limit


def test_the_first_row_that_holds_decides() -> None:
    schedule = parse_schedule([{**OFFICE, "To": "12:00", "LimitKBs": 5}, OFFICE, {"LimitKBs": 7}])
    assert [limit_at(schedule, at(MON, hour)) for hour in (7, 8, 12, 18)] == [7, 5, 1000, 7]


def test_until_when_a_limit_holds() -> None:
    schedule = parse_schedule([OFFICE])
    assert minutes_until_change(schedule, at(MON, 8)) == 600
    assert minutes_until_change(schedule, at(FRI, 18)) == WEEK - at(FRI, 18) + at(MON, 8)
    assert minutes_until_change(parse_schedule([{"LimitKBs": 5}]), at(MON, 8)) is None
    assert minutes_until_change((), 0) is None


def test_it_is_written_as_it_was_read() -> None:
    rows = [
        OFFICE,
        {**NIGHT, "Days": "Sat, Sun"},
        {"Days": "Mon-Sun", "From": "00:00", "To": "24:00", "LimitKBs": 1},
    ]
    assert [row.to_json() for row in parse_schedule(rows)] == rows


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [1],
        [{**OFFICE, "Days": "Mo-Fr"}],
        [{**OFFICE, "Days": 5}],
        [{**OFFICE, "Days": ""}],
        [{**OFFICE, "From": "8:00"}],
        [{**OFFICE, "From": "24:00"}],
        [{**OFFICE, "To": "24:01"}],
        [{**OFFICE, "To": "12:60"}],
        [{**OFFICE, "To": None}],
        [{**OFFICE, "LimitKBs": -1}],
        [{**OFFICE, "LimitKBs": True}],
        [{**OFFICE, "LimitKBs": float("nan")}],
        [{**OFFICE, "Limit": 5}],
        [{"Days": "Mon"}],
        [OFFICE] * 101,
    ],
)
def test_what_is_wrong_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="rows"):
        parse_schedule(wrong)
    with pytest.raises(BadRequest, match="Schedule"):
        BandwidthLimits().changed({"Schedule": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"LimitKBs": "5"},
        {"LimitKBs": None},
        {"PeerLimitKBs": 1e30},
        {"Peers": {"a": -1}},
        {"Peers": dict.fromkeys(map(str, range(1001)), 1)},
        {"Limit": 5},
    ],
)
def test_bad_limits_are_refused_by_name(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(BadRequest, match=key):
        BandwidthLimits().changed(wrong)
    with pytest.raises(BadFile):
        BandwidthLimits().changed({"Peers": []})


def test_the_timetable_takes_the_place_of_the_limit_of_all() -> None:
    limits = BandwidthLimits(limit_kbs=50).changed(
        {"Schedule": [OFFICE], "Peers": {"a": 3}, "PeerLimitKBs": 4}
    )
    assert [limits.of_all(at(MON, hour)) for hour in (7, 9)] == [50, 1000]
    assert [limits.of_peer(name) for name in "ab"] == [3, 4]
    assert BandwidthLimits().changed(limits.to_json()) == limits
