"""What a stopped node imported too late: deleted if its successor undid it, and nobody else has it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

import pytest

from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver import late_imports
from orthanc_transfers.receiver.late_imports import settle_late_imports
from orthanc_transfers.receiver.leftovers import Fate, OwnLeftovers
from orthanc_transfers.receiver.single_server import SingleServer
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import MemoryStore, dicom, wait_until


class Known(OwnLeftovers):
    """What the cluster says of each instance, one answer after the other."""

    def __init__(self) -> None:
        self.fates: dict[str, Iterator[Fate]] = {}
        self.calls: list[str] = []

    def leave(self, transfer: str, instances: Collection[str]) -> None:
        self.calls.append("leave")

    def begin(self, transfer: str, instance: str) -> Fate:
        self.calls.append("begin")
        return next(self.fates.get(instance, iter([Fate.DELETE])))

    def forget(self, transfer: str) -> None:
        self.calls.append("forget")


class Undone(SingleServer):
    """Another node has ended the transfer: one row for each instance."""

    def __init__(self, state: str, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self._leftovers = self.known = Known()
        self._reports = iter([None, {"State": state, "Instances": rows}])
        self._last: dict[str, Any] | None = None

    def report(self, name: str) -> dict[str, Any] | None:
        self._last = next(self._reports, self._last)
        return self._last


@pytest.mark.parametrize("state", ["failed", "committed"])
def test_it_is_deleted_unless_somebody_else_has_it(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(late_imports, "_PERIOD", 0.01)
    store = MemoryStore()
    gone, kept, left, there, counted = late = [store.put(dicom(f"late {number}", 100)) for number in range(5)]
    ownership = Undone(
        state,
        [
            {"ID": gone, "Outcome": "undone"},
            {"ID": kept, "Outcome": "not imported"},
            {"ID": left, "Outcome": "undone", "Reason": "another transfer of this cluster has it now"},
            {"ID": there, "Outcome": "already there"},
            {"ID": counted, "Outcome": "refused", "Reason": "no room"},
        ],
    )
    known = ownership.known
    known.fates = {kept: iter([Fate.KEEP]), counted: iter([Fate.WAIT, Fate.WAIT, Fate.DELETE])}
    settle_late_imports("0" * 32, late, ownership, cast(InstanceStore, store), Cancellation())
    wait_until(lambda: "forget" in known.calls)
    assert set(store.files) == ({kept, left, there} if state == "failed" else set(late))
    assert known.calls[0] == "leave"
