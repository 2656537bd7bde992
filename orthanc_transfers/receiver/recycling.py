"""A receiver whose Orthanc deletes patients by itself, or refuses more of them (``core/storage_limits.py``).

What can never fit is refused: before a byte is staged as far as the sender tells, before an import in any case. An
import goes patient by patient, those first that are there in part, for Orthanc recycles those that were stored to least
lately. And at the end all must still be there. Only used where Orthanc has such a limit: each of these asks its index.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from orthanc_transfers.core.errors import ImportRefused, TooLarge
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.patient_id import orthanc_patient, patient_id
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.core.storage_limits import Kept
from orthanc_transfers.interfaces import Capacity, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.importer import Importer
from orthanc_transfers.receiver.unfinished_undo import NOTHING_KEPT
from orthanc_transfers.receiver.verdicts import THERE_BEFORE, Verdict
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes at the beginning of a file in which its patient is looked for: first few, then many.
_BEGINNINGS = (4 * 1024, 256 * 1024)

_MB = 1024 * 1024


class Recycling:
    """The limits of this server's Orthanc. Thread-safe."""

    def __init__(self, capacity: Capacity, store: InstanceStore) -> None:
        self._capacity = capacity
        self._limits = capacity.limits
        self._store = store

    def check_announced(
        self, manifest: Manifest, patients: Collection[str] | None, cancellation: Cancellation
    ) -> None:
        """Raise ``TooLarge`` if Orthanc can never hold that. ``patients`` are their identifiers, if known."""
        reason = self._excess(manifest.size, patients or (), Kept())
        if reason is None:
            kept = self._capacity.kept(cancellation)
            if kept:
                reason = self._excess(self._new_bytes(manifest, cancellation), patients or (), kept)
        if reason is not None:
            raise TooLarge(f"{reason}; nothing was received")

    def _new_bytes(self, manifest: Manifest, cancellation: Cancellation) -> int:
        stored = self._store.md5s((instance.id for instance in manifest), cancellation)
        return sum(instance.size for instance in manifest if instance.id not in stored)

    def _excess(self, size: int, patients: Collection[str], kept: Kept) -> str | None:
        """Why this never fits beside what is kept, if it does not."""
        limits, beside = self._limits, f", {kept.described()}" if kept else ""
        if limits.patients and len({*patients, *kept.patients}) > limits.patients:
            return (
                f"this transfer has {len(patients)} patients, and Orthanc's MaximumPatientCount is"
                f" {limits.patients}{beside}: send fewer patients at a time, or raise MaximumPatientCount on the"
                " receiving server"
            )
        if limits.size and limits.size_foretold and size + kept.size > limits.size:
            return (
                f"this transfer has {size} bytes, and Orthanc's MaximumStorageSize is {limits.size // _MB} MB"
                f" ({limits.size} bytes){beside}: send less at a time, or raise MaximumStorageSize on the receiving"
                " server"
            )
        return None

    def ranks(
        self, area: Area, wanted: Collection[int], present: Iterable[int], cancellation: Cancellation
    ) -> Mapping[int, int]:
        """The rank of the patient of each wanted instance in the order of the import.

        ``present`` are the instances that need no import. Raises ``ImportRefused`` if there are too many patients;
        ``Canceled``.
        """
        values = {index: _patient_of(area, index, cancellation) for index in wanted}
        identifiers = {value: None if value is None else orthanc_patient(value) for value in values.values()}
        ours = {identifier for identifier in identifiers.values() if identifier is not None}
        instances = area.manifest.instances
        if self._limits.patients:
            there = self._store.patients_of((instances[index].id for index in present), cancellation)
            reason = self._excess(0, ours | there, self._capacity.kept(cancellation))
            if reason is not None:
                raise ImportRefused(f"{reason}; {NOTHING_KEPT}")
        stored = self._store.patients_of(ours, cancellation)
        order = sorted(identifiers, key=lambda value: identifiers[value] not in stored)
        ranks = {value: rank for rank, value in enumerate(order)}
        return {index: ranks[value] for index, value in values.items()}

    def require_kept(self, manifest: Manifest, importer: Importer, cancellation: Cancellation) -> None:
        """Raise ``ImportRefused`` unless all that counts as stored is still there; what is not gets its verdict."""
        counted = [
            index
            for index in range(len(manifest))
            if importer.verdicts[index] in (Verdict.STORED, *THERE_BEFORE)
        ]
        stored = self._store.md5s([manifest.instances[index].id for index in counted], cancellation)
        gone = [index for index in counted if manifest.instances[index].id not in stored]
        for index in gone:
            importer.verdicts[index] = Verdict.RECYCLED
        if gone:
            raise ImportRefused(
                f"{len(gone)} of {len(manifest)} instances were deleted again during the import, by Orthanc's"
                f" recycling ({self._limits.options()}), and what this transfer had brought was deleted with them;"
                " patients of others may have been recycled too: raise the limit on the receiving server, or delete or"
                " protect patients there, then resubmit the job"
            )


def _patient_of(area: Area, index: int, cancellation: Cancellation) -> bytes | None:
    cancellation.check()
    item = area.manifest.range_of(area.manifest.instances[index].id)
    for size in _BEGINNINGS:
        beginning = Range(item.start, min(item.stop, item.start + size))
        value = patient_id(area.read(beginning, memoryview(bytearray(beginning.size))))
        if value is not None or beginning == item:
            return value
    return None
