"""A database in one file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from orthanc_transfers.runtime.sqlite_file import SqliteFile

SCHEMA = "CREATE TABLE words (word TEXT);"


def make(path: Path, **options: str) -> SqliteFile:
    return SqliteFile(lambda: path / "folder" / "words.sqlite", SCHEMA, 1, synced=True, **options)


def words(file: SqliteFile) -> list[str]:
    with file.reading() as reader:
        return [word for (word,) in reader.execute("SELECT word FROM words ORDER BY rowid")]


def add(file: SqliteFile, word: str, *, synced: bool = True) -> None:
    with file.writing(synced=synced) as writer:
        writer.execute("INSERT INTO words VALUES (?)", (word,))


def test_what_is_written_is_read_by_all_readers_and_after_a_restart(tmp_path: Path) -> None:
    file = make(tmp_path)
    assert file.open()
    for number in range(20):
        add(file, str(number), synced=number % 2 == 0)
        assert len(words(file)) == number + 1
    file.close()
    again = make(tmp_path)
    assert not again.open()
    assert len(words(again)) == 20


def test_many_threads_read_while_one_writes(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.open()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(100):
                words(file)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(100):
        add(file, str(number))
    for thread in threads:
        thread.join()
    assert not failed
    assert len(words(file)) == 100


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.open()

    def fail() -> None:
        with file.writing() as writer:
            writer.execute("INSERT INTO words VALUES ('x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert words(file) == []
    add(file, "y")
    assert words(file) == ["y"]


def test_a_reader_that_fails_leaves_the_next_one_alone(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.open()
    with pytest.raises(sqlite3.OperationalError), file.reading() as reader:
        reader.execute("SELECT * FROM nothing")
    assert words(file) == []


@pytest.mark.parametrize("aside", [None, "damaged.sqlite"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, aside: str | None) -> None:
    options = {} if aside is None else {"set_aside": aside}
    first = make(tmp_path, **options)
    first.open()
    first.close()
    path = tmp_path / "folder" / "words.sqlite"
    path.write_bytes(b"no database" * 1000)
    file = make(tmp_path, **options)
    assert file.open()
    assert words(file) == []
    assert (tmp_path / "folder" / "damaged.sqlite").exists() == (aside is not None)
