"""Instances whose import ended Orthanc twice are refused in other transfers too, for some days."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import FatalInstance, ImportRefused
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from tests.receiver.memory_receiver import (
    Receiver,
    TestClock,
    crash_while_importing,
    dicom,
    fill,
    identify,
    manifest_of,
    running_receiver,
)
from tests.receiver.test_import_log import die

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(6)]
DAY = 86400


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with running_receiver(tmp_path / "staging", fatal_instance_retention=3) as receiver:
        yield receiver


def die_of(receiver: Receiver, *indices: tuple[int, ...]) -> None:
    """A transfer during which Orthanc ended, each time with these under way."""
    folder = receiver.root / crash_while_importing(receiver, FILES)
    for one in indices:
        die(folder, *one)
    receiver.start()
    (again,) = receiver.registry.all()
    with pytest.raises(ImportRefused, match="ended 2 times"):
        again.commit()


def test_another_transfer_with_it_is_refused_before_anything_is_received_also_after_a_restart(
    receiver: Receiver,
) -> None:
    die_of(receiver, (3, 4), (4,))
    receiver.restart()
    with pytest.raises(
        FatalInstance, match=rf"{identify(FILES[4])}.*nothing was received.*FatalInstanceRetention"
    ):
        receiver.pull(FILES, "b" * 32)
    assert len(receiver.registry.all()) == 1
    others = [*FILES[:4], FILES[5]]
    transfer = receiver.pull(others, "c" * 32)
    fill(transfer, others)
    assert transfer.commit().stored == 5


def test_one_that_is_announced_later_is_refused_too(receiver: Receiver) -> None:
    die_of(receiver, (4,), (4,))
    receiver.pull(FILES[:2], "b" * 32, more=4)
    with pytest.raises(FatalInstance):
        receiver.pull(FILES, "b" * 32)
    assert receiver.registry.find("pull", "b" * 32) is None


def test_a_transfer_that_had_begun_before_is_refused_at_its_commit(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES, "b" * 32)
    fill(transfer, FILES)
    receiver.registry._services.fatal.record([manifest_of(FILES).instances[4]])
    with pytest.raises(ImportRefused, match="ended twice"):
        transfer.commit()
    assert receiver.store.files == {}


def test_it_counts_as_there_where_it_is_there(receiver: Receiver) -> None:
    die_of(receiver, (4,), (4,))
    receiver.store.put(FILES[4])
    transfer = receiver.pull(FILES, "b" * 32)
    fill(transfer, FILES)
    assert transfer.commit().already_stored == 1


def test_other_content_of_it_is_tried(receiver: Receiver) -> None:
    die_of(receiver, (4,), (4,))
    mended = [*FILES[:4], dicom("file-4", 50), FILES[5]]
    transfer = receiver.pull(mended, "b" * 32)
    fill(transfer, mended)
    assert transfer.commit().stored == 6


def test_after_some_days_it_is_tried_again(receiver: Receiver) -> None:
    die_of(receiver, (4,), (4,))
    receiver.clock.seconds += 3 * DAY + 1
    receiver.pull(FILES, "b" * 32)


def test_nothing_is_remembered_if_it_was_another_each_time(receiver: Receiver) -> None:
    die_of(receiver, (3,), (4,))
    receiver.pull(FILES, "b" * 32)


def test_nothing_is_remembered_without_retention(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "staging", fatal_instance_retention=0) as receiver:
        die_of(receiver, (4,), (4,))
        receiver.pull(FILES, "b" * 32)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}', b'{"a": ["b", "c"]}'])
def test_a_damaged_file_refuses_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fatal").write_bytes(content)
    FatalInstances(tmp_path / "fatal", 3, TestClock()).check(manifest_of(FILES))
