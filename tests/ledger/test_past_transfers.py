"""The index of ended transfers: pages, filters, damage; each page by an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.core.transfer_record import PUSH, SEND, StudyText, TransferRecord, TransferState
from orthanc_transfers.ledger.past_transfers import COUNT, PAGE, WITH_WORDS, PastTransfer, PastTransfers
from orthanc_transfers.ledger.search import condition
from orthanc_transfers.ledger.shown import record_to_json, text_to_json

STATES = [TransferState.SUCCESS, TransferState.FAILURE, TransferState.CANCELED]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / "transfers.sqlite"


@pytest.fixture
def past(path: Path) -> Iterator[PastTransfers]:
    index = PastTransfers(lambda: path)
    assert index.open()
    yield index
    index.close()


def transfer(number: int, name: str = "Müller^Ann", **more: Any) -> PastTransfer:
    record = TransferRecord(
        id=f"{number:08x}",
        direction=SEND,
        mode=PUSH,
        peer=f"peer-{number % 5}",
        state=STATES[number % 3],
        ended=1000.0 + number,
    )
    shown = {**record_to_json(record), **text_to_json(StudyText("p", name, "study", "Thorax"))}
    return PastTransfer(record.id, 1000.0 + number, shown, **more)


def found(past: PastTransfers, limit: int = 50, offset: int = 0, **query: str) -> tuple[int, list[str]]:
    page = past.find(TransferQuery.parse(query), limit, offset)
    return page.total, [str(row["ID"]) for row in page.shown]


def test_the_newest_first_in_pages(past: PastTransfers) -> None:
    past.write(map(transfer, range(10_000)))
    assert found(past, 2) == (10_000, ["0000270f", "0000270e"])
    assert found(past, 2, 9_999) == (10_000, ["00000000"])
    assert found(past, 2, 10_000) == (10_000, [])
    assert found(past, 0) == (10_000, [])
    assert found(past, 1, state="Failure,Canceled", peer="peer-1") == (1333, ["00002707"])


def test_words_are_found_in_any_case_and_all_of_them(past: PastTransfers) -> None:
    past.write([transfer(1), transfer(2, "<script>alert('%_')</script>")])
    assert found(past, text="MÜLLER thorax") == (1, ["00000001"])
    assert found(past, text="'%25_'") == (1, ["00000002"])
    assert found(past, text="müller script") == (0, [])
    assert found(past, text="' OR 1=1 --") == (0, [])


def plan(path: Path, statement: str, values: tuple[Any, ...]) -> list[str]:
    with closing(sqlite3.connect(path)) as index:
        return [
            str(step[3])
            for step in index.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            if "LIST" not in step[3]
        ]


@pytest.mark.parametrize(
    "query", [{}, {"state": "Failure"}, {"peer": "a"}, {"direction": "send"}, {"id": "a,b"}]
)
def test_no_page_reads_all_rows(past: PastTransfers, path: Path, query: dict[str, str]) -> None:
    where, values = condition(TransferQuery.parse(query))
    assert all("INDEX" in step for step in plan(path, COUNT.format(where=where), values))
    steps = plan(path, PAGE.format(where=where), (*values, 50, 0))
    assert all("INDEX" in step or "TEMP B-TREE" in step for step in steps), steps
    if "id" not in query:
        assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize(
    "query",
    [{}, {"state": "Failure,Success", "peer": "a", "direction": "send", "since": "2026-01-01", "id": "a"}],
)
def test_words_are_looked_for_in_one_index_and_only_the_rows_of_a_page_are_read(
    past: PastTransfers, path: Path, query: dict[str, str]
) -> None:
    where, values = condition(TransferQuery.parse({**query, "text": "müller thorax"}))
    (step,) = plan(path, WITH_WORDS.format(where=where), values)
    assert "USING COVERING INDEX by_words" in step
    (step, _) = plan(path, PAGE.format(where=" WHERE rowid IN (?, ?)"), (1, 2, 50, 0))
    assert "USING INTEGER PRIMARY KEY" in step


def test_a_file_of_before_gets_the_index_of_words(past: PastTransfers, path: Path) -> None:
    past.write([transfer(1)])
    past.close()
    with closing(sqlite3.connect(path)) as index:
        index.execute("DROP INDEX by_words")
    again = PastTransfers(lambda: path)
    assert not again.open()
    assert found(again, text="thorax") == (1, ["00000001"])
    again.close()


def test_pages_of_a_search_follow_one_another(past: PastTransfers) -> None:
    past.write(transfer(number, f"Doe^{number % 2}") for number in range(100))
    seen = [name for offset in range(0, 50, 20) for name in found(past, 20, offset, text="doe^1")[1]]
    assert seen == [f"{number:08x}" for number in range(99, 0, -2)]


def test_a_transfer_that_was_begun_anew_is_no_longer_there(past: PastTransfers) -> None:
    past.write([transfer(1), transfer(2)])
    past.write([transfer(2)], ["00000001"])
    assert found(past) == (1, ["00000002"])


def test_what_is_old_expires(past: PastTransfers) -> None:
    past.write(map(transfer, range(5)))
    past.expire(1003.0)
    assert found(past) == (2, ["00000004", "00000003"])


def test_a_request_that_is_too_long_to_be_kept_cannot_be_made_again(past: PastTransfers) -> None:
    past.write([transfer(1, again={"Peer": "b"}), transfer(2, again={"Resources": "x" * 300_000})])
    assert [past.again(f"0000000{number}") for number in (3,)] == [None]
    assert (past.again("00000001") or ({}, None))[1] == {"Peer": "b"}
    assert (past.again("00000002") or ({}, {}))[1] is None


def test_it_is_there_after_a_restart(past: PastTransfers, path: Path) -> None:
    past.write([transfer(1)])
    past.close()
    again = PastTransfers(lambda: path)
    assert not again.open()
    assert found(again) == (1, ["00000001"])
    again.close()


@pytest.mark.parametrize("damage", ["", "no database", "cut"])
def test_a_damaged_file_is_made_anew(past: PastTransfers, path: Path, damage: str) -> None:
    past.write(map(transfer, range(500)))
    past.close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] if damage == "cut" else damage.encode())
    again = PastTransfers(lambda: path)
    assert again.open()
    again.write([transfer(1)])
    assert found(again) == (1, ["00000001"])
    again.close()


def test_a_file_that_is_deleted_meanwhile_is_made_anew(past: PastTransfers, path: Path) -> None:
    past.write([transfer(1)])
    path.unlink()
    assert past.open()
    assert found(past) == (0, [])
