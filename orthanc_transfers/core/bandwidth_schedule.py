"""A weekly timetable of limits on bandwidth: which one holds at a moment of the week, in local time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.weekly_hours import MAX_ROWS, WEEK, WeeklyHours, parse_hours

MAX_KBS = 1_000_000_000

_KEYS = frozenset({"Days", "From", "To", "LimitKBs"})


@dataclass(frozen=True, slots=True)
class ScheduleRow(WeeklyHours):
    """The limit at some hours."""

    limit_kbs: float
    """KB (1024 bytes) a second; 0: no limit."""

    def to_json(self) -> dict[str, Any]:
        """As it is configured."""
        return {**WeeklyHours.to_json(self), "LimitKBs": self.limit_kbs}


Schedule = tuple[ScheduleRow, ...]
"""The first row that holds decides."""


def parse_schedule(value: Any) -> Schedule:
    """An array of rows. Raises ``ValueError`` that says what it should be."""
    if not isinstance(value, list) or len(value) > MAX_ROWS:
        raise ValueError(f"an array of at most {MAX_ROWS} rows")
    return tuple(_parse_row(row) for row in value)


def limit_at(schedule: Iterable[ScheduleRow], minute: int) -> float | None:
    """The limit in KB/s at a minute of the week, 0 for none; ``None`` if no row says anything."""
    return next((row.limit_kbs for row in schedule if row.holds(minute)), None)


def minutes_until_change(schedule: Schedule, minute: int) -> int | None:
    """How long what ``limit_at`` returns stays; ``None``: always."""
    now = limit_at(schedule, minute)
    edges = {edge % WEEK for row in schedule for span in row.spans for edge in span}
    later = sorted((edge - minute) % WEEK or WEEK for edge in edges)
    return next((wait for wait in later if limit_at(schedule, (minute + wait) % WEEK) != now), None)


def parse_kbs(value: Any) -> float:
    """KB a second. Raises ``ValueError`` that says what it should be."""
    if type(value) not in (int, float) or not (value == 0 or 0.1 <= value <= MAX_KBS):
        raise ValueError(f"0 or a number of KB/s from 0.1 to {MAX_KBS}")
    number: float = value
    return number


def _parse_row(row: Any) -> ScheduleRow:
    example = '{"Days": "Mon-Fri", "From": "08:00", "To": "18:00", "LimitKBs": 1000}'
    if not isinstance(row, Mapping) or not set(row) <= _KEYS or "LimitKBs" not in row:
        raise ValueError(f"rows like {example}")
    days, start, stop = parse_hours(row)
    try:
        limit = parse_kbs(row["LimitKBs"])
    except ValueError as error:
        raise ValueError(f'rows with "LimitKBs", {error}') from None
    return ScheduleRow(days, start, stop, limit)
