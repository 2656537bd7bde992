"""A receiver whose Orthanc has limits on what it stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ImportRefused, TooLarge
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.patient_id import orthanc_patient
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.core.storage_limits import Kept, StorageLimits
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import Receiver, dicom, fill, identify
from tests.support.dicom_data import small_instances

FILES = [dicom(f"file-{number}", 3000) for number in range(6)]


class FakeCapacity:
    def __init__(self, limits: StorageLimits, kept: Kept | None = None) -> None:
        self.limits = limits
        self._kept = kept or Kept()

    def kept(self, cancellation: Cancellation) -> Kept:
        return self._kept


def limited(tmp_path: Path, capacity: FakeCapacity) -> Receiver:
    return Receiver(tmp_path / "staging", capacity=capacity)


def test_what_is_gone_at_the_end_fails_the_commit_and_undoes_the_rest(tmp_path: Path) -> None:
    receiver = limited(tmp_path, FakeCapacity(StorageLimits(patients=3)))
    there = receiver.store.put(FILES[0])
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)

    def recycle() -> None:
        receiver.store.files.pop(there, None)
        receiver.store.files.pop(identify(FILES[3]), None)

    receiver.store.before_sync = recycle
    with pytest.raises(ImportRefused, match=r"2 of 6 instances.*MaximumPatientCount is 3"):
        transfer.commit()
    assert transfer.state is PushState.FAILED
    assert receiver.store.files == {}
    report = receiver.reports.read(transfer.id)
    assert report is not None
    rows = {row["ID"]: row["Outcome"] for row in report["Instances"]}
    assert rows[there] == rows[identify(FILES[3])] == "recycled"
    assert rows[identify(FILES[1])] == "undone"
    receiver.stop()


def test_what_the_policy_filters_out_need_not_be_there(tmp_path: Path) -> None:
    receiver = limited(tmp_path, FakeCapacity(StorageLimits(patients=3)))
    receiver.store.filtered.add(identify(FILES[2]))
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    assert transfer.commit().filtered_out == 1
    receiver.stop()


@pytest.mark.parametrize(
    ("limits", "kept", "reason"),
    [
        (StorageLimits(size=15000), Kept(), "MaximumStorageSize"),
        (StorageLimits(size=30000), Kept(frozenset("p"), 20000), "protected"),
        (
            StorageLimits(size=30000),
            Kept(frozenset("p"), 20000, rejecting=True),
            "MaximumStorageMode is Reject",
        ),
        (StorageLimits(patients=1), Kept(), "has 2 patients.*MaximumPatientCount is 1"),
        (StorageLimits(patients=3), Kept(frozenset("pq")), "has 2 patients.*MaximumPatientCount is 3"),
    ],
)
def test_what_never_fits_is_refused_before_anything_is_staged(
    tmp_path: Path, limits: StorageLimits, kept: Kept, reason: str
) -> None:
    receiver = limited(tmp_path, FakeCapacity(limits, kept))
    with pytest.raises(TooLarge, match=reason):
        receiver.pull(FILES, patients=["a", "b"])
    assert receiver.leftovers() == set()
    receiver.stop()


def test_what_is_there_already_of_protected_patients_takes_no_more_room(tmp_path: Path) -> None:
    receiver = limited(tmp_path, FakeCapacity(StorageLimits(size=30000), Kept(frozenset("p"), 20000)))
    for data in FILES[:4]:
        receiver.store.put(data)
    receiver.pull(FILES)
    receiver.stop()


def test_instances_are_imported_patient_by_patient_and_those_first_of_whom_some_are_there(
    tmp_path: Path,
) -> None:
    patients = [list(small_instances(4, name=f"Patient^{number}")) for number in range(3)]
    capacity = FakeCapacity(StorageLimits(patients=3))
    receiver = Receiver(tmp_path / "staging", settings=Settings(commit_threads_count=1), capacity=capacity)
    receiver.store.patients[orthanc_patient(b"PATIENT-1") or ""] = None
    mixed = [files[index] for index in range(4) for files in patients]
    transfer = receiver.pull(mixed)
    fill(transfer, mixed)
    transfer.commit()
    owners = {identify(data): number for number, files in enumerate(patients) for data in files}
    assert [owners[one] for one in receiver.store.added] == [1] * 4 + [0] * 4 + [2] * 4
    receiver.stop()


def test_too_many_patients_of_whom_the_sender_did_not_tell_are_refused_before_the_import(
    tmp_path: Path,
) -> None:
    capacity = FakeCapacity(StorageLimits(patients=2))
    receiver = limited(tmp_path, capacity)
    files = [next(small_instances(1, name=f"Patient^{number}")) for number in range(3)]
    receiver.store.put(files[0])
    receiver.store.patients[identify(files[0])] = None
    transfer = receiver.pull(files)
    fill(transfer, files)
    with pytest.raises(ImportRefused, match=r"has 3 patients.*MaximumPatientCount is 2.*nothing was kept"):
        transfer.commit()
    assert receiver.store.added == []
    receiver.stop()
