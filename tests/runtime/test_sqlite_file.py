"""A database in one file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.runtime.sqlite_file import SqliteFile

SCHEMA = "CREATE TABLE words (word TEXT);"


Make = Callable[..., SqliteFile]


def make_file(path: Path, **options: Any) -> SqliteFile:
    return SqliteFile(lambda: path / "folder" / "words.sqlite", SCHEMA, 1, synced=True, **options)


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def make(request: pytest.FixtureRequest) -> Make:
    """On a disk of its own, and on storage that several machines share."""
    return partial(make_file, shared=request.param)


def words(file: SqliteFile) -> list[str]:
    with file.reading() as reader:
        return [word for (word,) in reader.execute("SELECT word FROM words ORDER BY rowid")]


def add(file: SqliteFile, word: str, *, synced: bool = True) -> None:
    with file.writing(synced=synced) as writer:
        writer.execute("INSERT INTO words VALUES (?)", (word,))


def test_what_is_written_is_read_by_all_readers_and_after_a_restart(make: Make, tmp_path: Path) -> None:
    file = make(tmp_path)
    assert file.open()
    for number in range(20):
        add(file, str(number), synced=number % 2 == 0)
        assert len(words(file)) == number + 1
    file.close()
    again = make(tmp_path)
    assert not again.open()
    assert len(words(again)) == 20


def test_many_threads_read_while_one_writes(make: Make, tmp_path: Path) -> None:
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


def test_a_transaction_that_fails_changes_nothing(make: Make, tmp_path: Path) -> None:
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


def test_a_reader_that_fails_leaves_the_next_one_alone(make: Make, tmp_path: Path) -> None:
    file = make(tmp_path)
    file.open()
    with pytest.raises(sqlite3.OperationalError), file.reading() as reader:
        reader.execute("SELECT * FROM nothing")
    assert words(file) == []


@pytest.mark.parametrize("aside", [None, "damaged.sqlite"])
def test_a_damaged_file_is_made_anew(make: Make, tmp_path: Path, aside: str | None) -> None:
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


def touched(folder: Path) -> list[str]:
    """What the kernel knows of files of a folder: mappings of this process, and locks of any."""
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    inodes = {f":{path.stat().st_ino} " for path in folder.rglob("*")}
    locks = Path("/proc/locks").read_text().splitlines()
    return mapped + [line for line in locks if any(inode in line for inode in inodes)]


@pytest.mark.parametrize("shared", [False, True])
def test_on_shared_storage_nothing_is_locked_or_mapped(tmp_path: Path, shared: bool) -> None:
    file = make_file(tmp_path, shared=shared)
    file.open()
    add(file, "a")
    with file.writing() as writer:
        writer.execute("INSERT INTO words VALUES ('b')")
        within = touched(tmp_path)
    with file.reading() as reader:
        reader.execute("SELECT * FROM words").fetchall()
        within += touched(tmp_path)
    assert bool(within) is not shared
    assert sorted(os.listdir(tmp_path / "folder")) == [
        "words.sqlite",
        *([] if shared else ["words.sqlite-shm"]),
        "words.sqlite-wal",
    ]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_what_was_written_before_a_kill_is_there_after_it(tmp_path: Path, before: bool, after: bool) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.runtime.test_sqlite_file import add, make_file\n"
        f"file = make_file(Path(sys.argv[1]), shared={before}); file.open()\n"
        "for number in range(3000): add(file, str(number), synced=False)\n"
        "with file.writing() as writer:\n"
        "    writer.execute('PRAGMA cache_size = 1')\n"
        '    writer.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9999)'
        " INSERT INTO words SELECT 'lost' FROM n\")\n"
        "    print('written', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
    # The log has more than the transactions that ended.
    assert (tmp_path / "folder" / "words.sqlite-wal").stat().st_size > 0
    file = make_file(tmp_path, shared=after)
    assert not file.open()
    assert words(file) == [str(number) for number in range(3000)]
    add(file, "next")
    assert len(words(file)) == 3001


def test_who_writes_may_read_meanwhile_and_others_see_what_has_ended(make: Make, tmp_path: Path) -> None:
    file = make(tmp_path)
    file.open()
    add(file, "a")
    seen: list[list[str]] = []
    with suppress(ZeroDivisionError), file.writing() as writer:
        writer.execute("INSERT INTO words VALUES ('b')")
        with file.reading() as reader:
            reader.row_factory = sqlite3.Row
            assert reader.execute("SELECT word FROM words").fetchone()["word"] == "a"
        assert writer.execute("SELECT word FROM words ORDER BY rowid").fetchone() == ("a",)
        other = threading.Thread(target=lambda: seen.append(words(file)))
        other.start()
        raise ZeroDivisionError
    other.join()
    assert seen == [["a"]]
    assert words(file) == ["a"]
