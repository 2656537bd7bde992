"""Reports as CSV."""

from __future__ import annotations

import csv

import pytest

from orthanc_transfers.core.report_csv import COLUMNS, report_to_csv


def rows(reason: str, peer: str | None = "b") -> list[list[str]]:
    report = {
        "ID": "1",
        "Kind": "push",
        "Peer": peer,
        "State": "failed",
        "Instances": [{"ID": "i", "MD5": "m", "Size": 5, "Outcome": "refused", "Reason": reason}],
    }
    return list(csv.reader(report_to_csv(report).splitlines(keepends=True)))


def test_a_row_for_each_instance() -> None:
    reason = 'commas, "quotes" and\nlines'
    assert rows(reason) == [list(COLUMNS), ["1", "push", "b", "failed", "i", "m", "5", "refused", reason]]
    assert rows("", None)[1][2] == ""


@pytest.mark.parametrize(
    "evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")']
)
def test_nothing_is_a_formula(evil: str) -> None:
    assert rows(evil)[1][-1] == f"'{evil}"
    assert rows("", evil)[1][2] == f"'{evil}"
