"""How ended transfers are searched: the condition in SQL, and the text in which words are looked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from orthanc_transfers.core.transfer_query import TransferQuery


def condition(query: TransferQuery) -> tuple[str, tuple[Any, ...]]:
    """The ``WHERE`` of a query, and its values."""
    parts: list[str] = []
    values: list[Any] = []

    def one_of(column: str, wanted: Iterable[str]) -> None:
        names = sorted(wanted)
        parts.append(f"{column} IN ({', '.join('?' * len(names))})")
        values.extend(names)

    if query.states:
        one_of("state", (state.value for state in query.states))
    if query.ids:
        one_of("id", query.ids)
    for column, value in (("peer", query.peer), ("direction", query.direction)):
        if value is not None:
            parts.append(f"{column} = ?")
            values.append(value)
    for word in query.words:
        parts.append("instr(words, ?) > 0")
        values.append(word)
    if query.since is not None:
        parts.append("ended >= ?")
        values.append(midnight(query.since))
    if query.until is not None:
        parts.append("ended < ?")
        values.append(midnight(query.until, 1))
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), tuple(values)


def midnight(day: tuple[int, int, int], later: int = 0) -> float:
    """When a day begins, or the one so many days later, in local time: seconds since the epoch."""
    year, month, number = day
    return time.mktime((year, month, number + later, 0, 0, 0, 0, 0, -1))


def words_of(shown: Mapping[str, Any]) -> str:
    """What a text is looked for in: all that names a transfer for a person."""
    patient, study = shown.get("Patient") or {}, shown.get("Study") or {}
    named = (
        patient.get("ID"),
        patient.get("Name"),
        study.get("Description"),
        study.get("Date"),
        study.get("Modality"),
        shown.get("Peer"),
        shown.get("Error"),
        shown.get("ID"),
        *(one.get("ID") for one in shown.get("Resources") or ()),
    )
    return "\n".join(str(one).casefold() for one in named if one)
