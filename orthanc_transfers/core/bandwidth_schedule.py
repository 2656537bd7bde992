"""A weekly timetable of limits on bandwidth: which one holds at a moment of the week, in local time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

DAY = 24 * 60
"""Minutes."""

WEEK = 7 * DAY
"""Minutes. A moment of the week is counted from the beginning of Monday."""

MAX_ROWS = 100

MAX_KBS = 1_000_000_000

_TIME = re.compile("([0-9]{2}):([0-9]{2})")
_KEYS = frozenset({"Days", "From", "To", "LimitKBs"})
_ALL_DAYS = "Mon-Sun"


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One row: on each of ``days``, from ``start`` on until ``stop``, which is on the next day if it is not later."""

    days: str
    """As written: ``Mon-Fri``, ``Sat,Sun``."""
    start: int
    """Minute of the day."""
    stop: int
    """Minute of the day, up to 24:00."""
    limit_kbs: float
    """KB (1024 bytes) a second; 0: no limit."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Minutes of the week, the end excluded; beyond ``WEEK`` it goes on with Monday."""
        length = self.stop - self.start if self.stop > self.start else self.stop + DAY - self.start
        return [(day * DAY + self.start, day * DAY + self.start + length) for day in _days(self.days)]

    def holds(self, minute: int) -> bool:
        """Whether it holds at that minute of the week."""
        return any(start <= minute < stop or start <= minute + WEEK < stop for start, stop in self.spans)

    def to_json(self) -> dict[str, Any]:
        """As it is configured."""
        return {
            "Days": self.days,
            "From": _clock(self.start),
            "To": _clock(self.stop),
            "LimitKBs": self.limit_kbs,
        }


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
    days = row.get("Days", _ALL_DAYS)
    try:
        _days(days)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f'rows with "Days" like "Mon-Fri" or "Sat,Sun", of {", ".join(DAYS)}') from None
    start, stop = _minute(row.get("From", "00:00")), _minute(row.get("To", "24:00"))
    if start == DAY:
        raise ValueError('rows with "From" from 00:00 to 23:59')
    try:
        limit = parse_kbs(row["LimitKBs"])
    except ValueError as error:
        raise ValueError(f'rows with "LimitKBs", {error}') from None
    return ScheduleRow(days, start, stop, limit)


def _days(text: str) -> list[int]:
    found: list[int] = []
    if len(text) > 100:
        raise ValueError
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        begin = DAYS.index(first)
        end = DAYS.index(last or first)
        found.extend((begin + more) % 7 for more in range((end - begin) % 7 + 1))
    return sorted(set(found))


def _minute(text: Any) -> int:
    match = _TIME.fullmatch(text) if isinstance(text, str) and text.isascii() else None
    minute = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else -1
    if not 0 <= minute <= DAY:
        raise ValueError('rows with "From" and "To" from "00:00" to "24:00"')
    return minute


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
