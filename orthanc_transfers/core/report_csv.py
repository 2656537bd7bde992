"""A commit report as CSV (RFC 4180): one row for each instance."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

COLUMNS = ("Transfer", "Kind", "Peer", "State", "Instance", "MD5", "Size", "Outcome", "Reason")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula."""


class _Lines(list[str]):
    def write(self, line: str) -> None:
        self.append(line)


def report_to_csv(report: Mapping[str, Any]) -> str:
    """The text. What others wrote (reasons, names) is no formula in a spreadsheet: an apostrophe comes first."""
    lines = _Lines()
    writer = csv.writer(lines)
    writer.writerow(COLUMNS)
    head = [report.get("ID"), report.get("Kind"), report.get("Peer"), report.get("State")]
    for row in report.get("Instances", ()):
        instance = [row.get(key) for key in ("ID", "MD5", "Size", "Outcome", "Reason")]
        writer.writerow([_cell(value) for value in (*head, *instance)])
    return "".join(lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
