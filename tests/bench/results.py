"""Runs as rows of JSON in a file; medians, and ratios of two methods within the same run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.transfer_methods import STORE

Row = dict[str, Any]
Figure = Callable[[Row], float]


def load(file: Path) -> list[Row]:
    """All rows, the oldest first."""
    rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
    return rows


def keep(file: Path, row: Row) -> None:
    """Add a row."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps([*load(file), row], indent=1))
    os.replace(new, file)


def of_last_sessions(rows: list[Row]) -> list[Row]:
    """For each link profile and data set, the rows of the last session that had most of the data, and the peer store.

    Sessions are not mixed: the package, and what else the machine did, were others.
    """
    best: dict[tuple[str, str], tuple[float, str]] = {}
    for row in rows:
        if row["Side"] == STORE:
            key = row["Profile"], row["Data"]
            best[key] = max(best.get(key, (0.0, "")), (row["Share"], row["Session"]))
    return [row for row in rows if best.get((row["Profile"], row["Data"])) == (row["Share"], row["Session"])]


def wall(row: Row) -> float:
    """Seconds of the whole; where a part was sent, as many times more."""
    return float(row["wall"] / row["Part"])


def cpu(row: Row) -> float:
    """CPU seconds of both sides."""
    return float(sum(row["cpu"]) / row["Part"])


def importing(row: Row) -> float:
    """Seconds of the commit."""
    return float(row["phases"].get("Importing", 0))


def sending(row: Row) -> float:
    """Seconds in which bytes were carried."""
    return float(row["phases"].get("Sending", 0) + row["phases"].get("Fetching", 0))


class Cells:
    """The rows of one link profile and data set, by method."""

    def __init__(self, rows: Iterable[Row], profile: str, data: str) -> None:
        self.profile, self.data = profile, data
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            if (row["Profile"], row["Data"]) == (profile, data):
                self._rows.setdefault(row["Side"], []).append(row)

    @property
    def sides(self) -> list[str]:
        """In the order in which they ran."""
        return list(self._rows)

    @property
    def share(self) -> float:
        """Of the data set."""
        return float(next(iter(self._rows.values()))[0]["Share"]) if self._rows else 1.0

    def ours(self) -> list[str]:
        """The sides that are transfers of this plugin as it is, with nothing there before."""
        return [
            side
            for side in self.sides
            if side.startswith(("push", "pull")) and "zlib" not in side and "," not in side
        ]

    def of(self, side: str) -> list[Row]:
        """All runs of a side."""
        return self._rows.get(side, [])

    def value(self, side: str, figure: Figure) -> float | None:
        """The median."""
        rows = self.of(side)
        return median(map(figure, rows)) if rows else None

    def ratio(self, side: str, other: str, figure: Figure = wall, divisor: Figure = wall) -> float | None:
        """The median of a figure, divided by what another side had in the same run, its time if nothing is said."""
        others = {row["Run"]: divisor(row) for row in self.of(other)}
        found = [figure(row) / others[row["Run"]] for row in self.of(side) if row["Run"] in others]
        return median(found) if found else None
