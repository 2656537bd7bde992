"""Hours of the week, in local time: of limits on bandwidth, and of what may run at night only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

DAY = 24 * 60
"""Minutes."""

WEEK = 7 * DAY
"""Minutes. A moment of the week is counted from the beginning of Monday."""

MAX_ROWS = 100

_TIME = re.compile("([0-9]{2}):([0-9]{2})")
_KEYS = frozenset({"Days", "From", "To"})
ALL_DAYS = "Mon-Sun"


@dataclass(frozen=True, slots=True)
class WeeklyHours:
    """On each of ``days``, from ``start`` on until ``stop``, which is on the next day if it is not later."""

    days: str
    """As written: ``Mon-Fri``, ``Sat,Sun``."""
    start: int
    """Minute of the day."""
    stop: int
    """Minute of the day, up to 24:00."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Minutes of the week, the end excluded; beyond ``WEEK`` it goes on with Monday."""
        length = self.stop - self.start if self.stop > self.start else self.stop + DAY - self.start
        return [(day * DAY + self.start, day * DAY + self.start + length) for day in parse_days(self.days)]

    def holds(self, minute: int) -> bool:
        """Whether it holds at that minute of the week."""
        return any(start <= minute < stop or start <= minute + WEEK < stop for start, stop in self.spans)

    def to_json(self) -> dict[str, Any]:
        """As it is configured."""
        return {"Days": self.days, "From": clock_text(self.start), "To": clock_text(self.stop)}


Window = tuple[WeeklyHours, ...]
"""Open while one of the rows holds; an empty one is always open."""


def parse_window(value: Any) -> Window:
    """An array of rows. Raises ``ValueError`` that says what it should be."""
    example = '{"Days": "Mon-Fri", "From": "20:00", "To": "06:00"}'
    if not isinstance(value, list) or len(value) > MAX_ROWS:
        raise ValueError(f"an array of at most {MAX_ROWS} rows like {example}")
    rows = []
    for row in value:
        if not isinstance(row, Mapping) or not row or not set(row) <= _KEYS:
            raise ValueError(f"an array of rows like {example}")
        rows.append(WeeklyHours(*parse_hours(row)))
    return tuple(rows)


def is_open(window: Sequence[WeeklyHours], minute: int) -> bool:
    """Whether something may run at a minute of the week."""
    return not window or any(row.holds(minute) for row in window)


def parse_hours(row: Mapping[str, Any]) -> tuple[str, int, int]:
    """``Days``, ``From`` and ``To`` of a row. Raises ``ValueError`` that says what the rows should be."""
    days = row.get("Days", ALL_DAYS)
    try:
        parse_days(days)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f'rows with "Days" like "Mon-Fri" or "Sat,Sun", of {", ".join(DAYS)}') from None
    start, stop = _minute(row.get("From", "00:00")), _minute(row.get("To", "24:00"))
    if start == DAY:
        raise ValueError('rows with "From" from 00:00 to 23:59')
    return days, start, stop


def parse_days(text: str) -> list[int]:
    """``Mon-Fri`` or ``Sat,Sun`` as numbers, Monday is 0.

    Raises ``ValueError``; ``TypeError`` or ``AttributeError`` if it is no text.
    """
    found: list[int] = []
    if len(text) > 100:
        raise ValueError
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        begin = DAYS.index(first)
        end = DAYS.index(last or first)
        found.extend((begin + more) % 7 for more in range((end - begin) % 7 + 1))
    return sorted(set(found))


def parse_clock(text: Any) -> int | None:
    """``08:30`` as the minute of the day, up to 24:00; ``None`` for anything else."""
    match = _TIME.fullmatch(text) if isinstance(text, str) and text.isascii() else None
    minute = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else -1
    return minute if 0 <= minute <= DAY else None


def clock_text(minute: int) -> str:
    """The minute of the day as ``08:30``."""
    return f"{minute // 60:02}:{minute % 60:02}"


def _minute(text: Any) -> int:
    minute = parse_clock(text)
    if minute is None:
        raise ValueError('rows with "From" and "To" from "00:00" to "24:00"')
    return minute
