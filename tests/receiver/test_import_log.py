"""What a process that dies while it imports tells the next one."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ImportRefused, NoSpace
from orthanc_transfers.core.model import PushState
from orthanc_transfers.receiver.import_log import NAME, ImportLog
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import (
    Receiver,
    crash_while_importing,
    dicom,
    fill,
    identify,
    running_receiver,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


def die(folder: Path, *indices: int) -> None:
    """A process that dies while it imports these: it never says that they are done."""
    with ImportLog(folder, Cancellation()) as log, ExitStack() as under_way:
        for index in indices:
            under_way.enter_context(log.importing(index))
        left = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(left)


def deaths(folder: Path) -> list[frozenset[int]]:
    with ImportLog(folder, Cancellation()) as log:
        return log.deaths


def test_what_is_under_way_at_a_death_is_known_to_the_next_process(tmp_path: Path) -> None:
    assert deaths(tmp_path) == []
    with ImportLog(tmp_path, Cancellation()) as log:
        with log.importing(3), log.importing(7):
            pass
        with log.importing(300), log.importing(8):
            assert deaths(tmp_path) == [{8, 300}]
    die(tmp_path, 8, 300)
    die(tmp_path, 8, 9)
    assert deaths(tmp_path) == [{8, 300}, {8, 9}]


def test_several_that_are_imported_one_after_the_other_are_told_of_at_once(tmp_path: Path) -> None:
    with ImportLog(tmp_path, Cancellation()) as log:
        with log.importing(3, 7, 9), log.importing(300):
            assert deaths(tmp_path) == [{3, 7, 9, 300}]
        assert deaths(tmp_path) == []


def test_small_instances_cost_few_writes_and_large_ones_are_told_of_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    importing = ImportLog.importing

    def counted(log: ImportLog, *indices: int) -> AbstractContextManager[None]:
        told.append(len(indices))
        return importing(log, *indices)

    monkeypatch.setattr(ImportLog, "importing", counted)
    files = [dicom(f"small-{number}", 3000) for number in range(200)]
    large = [dicom(f"large-{number}", 1024 * 1024) for number in range(3)]
    with running_receiver(tmp_path / "staging") as receiver:
        for token, some in (("a" * 32, files), ("b" * 32, large)):
            transfer = receiver.pull(some, token)
            fill(transfer, some)
            transfer.commit()
            assert sum(told) == len(some)
            assert len(told) <= 50 if some is files else told == [1, 1, 1]
            told.clear()


@pytest.mark.parametrize("how", ["done", "stopped"])
def test_an_attempt_that_ends_or_a_server_that_stops_is_no_death(tmp_path: Path, how: str) -> None:
    die(tmp_path, 1)
    closing = Cancellation()
    with ImportLog(tmp_path, closing) as log, log.importing(5):
        if how == "stopped":
            closing.cancel()
            assert deaths(tmp_path) == [{1}]
    assert deaths(tmp_path) == [{1}]


def test_those_are_suspected_that_were_under_way_at_each_death(tmp_path: Path) -> None:
    die(tmp_path, 1, 2, 3)
    with ImportLog(tmp_path, Cancellation()) as log:
        assert log.suspects == {1, 2, 3}
        assert not log.exhausted
    die(tmp_path, 2)
    with ImportLog(tmp_path, Cancellation()) as log:
        assert log.suspects == {2}
        assert log.exhausted


def test_if_it_was_another_each_time_all_are_suspected(tmp_path: Path) -> None:
    die(tmp_path, 1, 2)
    die(tmp_path, 5)
    with ImportLog(tmp_path, Cancellation()) as log:
        assert log.suspects == {1, 2, 5}


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"\xd1TJ\x01\x09\xff\xff", b"\xd1TJ" * 3000])
def test_a_damaged_file_tells_of_no_death(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert deaths(tmp_path) == []
    die(tmp_path, 4)
    assert deaths(tmp_path) == [{4}]


def test_where_it_cannot_be_written_nothing_is_imported(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / NAME).symlink_to("/dev/full")
    with ImportLog(full, Cancellation()) as log, pytest.raises(NoSpace), log.importing(1):
        pytest.fail("it is not imported")


def test_after_two_deaths_all_is_undone_and_nothing_is_imported(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "staging") as receiver:
        before = receiver.store.put(FILES[3])
        identifier = crash_while_importing(receiver, FILES)
        assert len(receiver.store.files) > 1
        culprit = identify(FILES[7])
        folder = receiver.root / identifier
        die(folder, 6, 7)
        die(folder, 7)
        receiver.store.added.clear()
        receiver.start()
        (again,) = receiver.registry.all()
        with pytest.raises(ImportRefused, match=culprit):
            again.commit()
        assert again.state is PushState.FAILED
        assert set(receiver.store.files) == {before}
        assert receiver.store.added == []
        report = receiver.reports.read(identifier)
        assert report is not None
        (row,) = (row for row in report["Instances"] if row["ID"] == culprit)
        assert "Orthanc ended while it was being imported" in row["Reason"]


def test_after_one_death_what_was_under_way_is_imported_first_and_alone(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "staging") as receiver:
        identifier = crash_while_importing(receiver, FILES)
        suspects = [index for index, data in enumerate(FILES) if identify(data) not in receiver.store.files][
            -3:
        ]
        die(receiver.root / identifier, *suspects)
        receiver.store.added.clear()
        seen: list[list[frozenset[int]]] = []

        def look(_: str) -> None:
            seen.append(slots(receiver, identifier))

        receiver.store.before_add = look
        receiver.start()
        (again,) = receiver.registry.all()
        assert again.commit().stored == 12
        assert receiver.store.added[:3] == [identify(FILES[index]) for index in suspects]
        assert [one[-1] for one in seen[:3]] == [{index} for index in suspects]


def slots(receiver: Receiver, identifier: str) -> list[frozenset[int]]:
    return deaths(receiver.root / identifier)
