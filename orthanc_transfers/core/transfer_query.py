"""What ``GET /transfers/status`` is asked for: filters and a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import url_arguments
from orthanc_transfers.core.transfer_record import RECEIVE, SEND, TransferState

MAX_LIMIT = 1000
"""Transfers on one page."""

DEFAULT_LIMIT = 50

MAX_IDS = 1000
"""Transfers that a request may name: also of ``POST /transfers/actions``."""

_MAX_TEXT = 200
_MAX_WORDS = 8
MAX_OFFSET = 2**53

_STATES = {state.value: state for state in TransferState}
_IDENTIFIER = re.compile("[.0-9a-f-]{1,100}")
_DATE = re.compile("([0-9]{4})-([0-9]{2})-([0-9]{2})")

_KEYS = ("limit", "offset", "state", "peer", "direction", "text", "since", "until", "id")


@dataclass(frozen=True, slots=True)
class TransferQuery:
    """All transfers, unless a field says which. A transfer has to pass all filters."""

    limit: int = DEFAULT_LIMIT
    offset: int = 0
    states: frozenset[TransferState] = frozenset()
    """Empty: all."""
    peer: str | None = None
    direction: str | None = None
    words: tuple[str, ...] = ()
    """Case-folded; each must be found."""
    since: tuple[int, int, int] | None = None
    """Year, month, day: ended on that day or later."""
    until: tuple[int, int, int] | None = None
    """Ended on that day or before."""
    ids: frozenset[str] = frozenset()
    """Empty: all."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> TransferQuery:
        """From the arguments of the URL. Raises ``BadRequest``, naming the argument."""
        query = url_arguments(query, _KEYS)
        direction = query.get("direction") or None
        if direction not in (None, SEND, RECEIVE):
            raise BadRequest(f"direction must be {SEND} or {RECEIVE}, and is {direction[:40]!r}")
        text = query.get("text", "")
        words = tuple(dict.fromkeys(text.casefold().split()))
        if len(text) > _MAX_TEXT or len(words) > _MAX_WORDS:
            raise BadRequest(f"text may have {_MAX_TEXT} characters and {_MAX_WORDS} words at most")
        return cls(
            limit=parse_number(query, "limit", DEFAULT_LIMIT, 0, MAX_LIMIT),
            offset=parse_number(query, "offset", 0, 0, MAX_OFFSET),
            states=frozenset(_state(name) for name in _listed(query, "state")),
            peer=query.get("peer") or None,
            direction=direction,
            words=words,
            since=_date(query, "since"),
            until=_date(query, "until"),
            ids=_identifiers(_listed(query, "id")),
        )


def _listed(query: Mapping[str, str], name: str) -> list[str]:
    return [item for item in query.get(name, "").split(",") if item]


def _state(name: str) -> TransferState:
    if name not in _STATES:
        raise BadRequest(f"state must be some of {', '.join(_STATES)}, and is {name[:40]!r}")
    return _STATES[name]


def _identifiers(found: list[str]) -> frozenset[str]:
    if len(found) > MAX_IDS:
        raise BadRequest(f"id may name {MAX_IDS} transfers at most, and names {len(found)}")
    for identifier in found:
        if not _IDENTIFIER.fullmatch(identifier):
            raise BadRequest(f"id must name transfers by their identifiers, and names {identifier[:40]!r}")
    return frozenset(found)


def parse_number(query: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    """An argument that is a whole number. Raises ``BadRequest``, naming it."""
    text = query.get(name, "")
    if not text:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 19 and lowest <= int(text) <= highest:
        return int(text)
    raise BadRequest(f"{name} must be a whole number from {lowest} to {highest}, and is {text[:40]!r}")


def _date(query: Mapping[str, str], name: str) -> tuple[int, int, int] | None:
    text = query.get(name, "")
    if not text:
        return None
    found = _DATE.fullmatch(text) if text.isascii() else None
    if found is not None:
        year, month, day = map(int, found.groups())
        if year >= 1970 and 1 <= month <= 12 and 1 <= day <= _days(year, month):
            return year, month, day
    raise BadRequest(f"{name} must be a date like 2026-01-31, and is {text[:40]!r}")


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
