"""Orthanc's limits on what it stores."""

from __future__ import annotations

from orthanc_transfers.core.storage_limits import StorageLimits


def test_without_options_there_is_no_limit() -> None:
    assert not StorageLimits.parse({})
    assert not StorageLimits.parse({"MaximumPatientCount": 0, "MaximumStorageSize": 0})


def test_the_options_are_named_with_their_values() -> None:
    limits = StorageLimits.parse({"MaximumPatientCount": 3, "MaximumStorageSize": 5})
    assert (limits.patients, limits.size) == (3, 5 * 1024 * 1024)
    assert limits.options() == "MaximumPatientCount is 3 and MaximumStorageSize is 5 MB"


def test_what_orthanc_compresses_or_transcodes_may_become_smaller() -> None:
    assert StorageLimits.parse({"MaximumStorageSize": 5}).size_foretold
    assert not StorageLimits.parse({"StorageCompression": True}).size_foretold
    assert not StorageLimits.parse({"IngestTranscoding": "1.2.840.10008.1.2.4.80"}).size_foretold
