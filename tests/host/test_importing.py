"""What of the import can be shown without Orthanc: an SDK that fails as told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from orthanc_transfers.core.errors import HostError, ImportRefused
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.host.store import OrthancStore
from orthanc_transfers.interfaces import ImportStatus

NOWHERE = Path("/nowhere")


class FailingSdk:
    """Fails so often with a code, then imports. Has no other route: what is stored must not become a refusal."""

    version = "1.13.0"

    def __init__(self, times: int, code: int) -> None:
        self.left = times
        self.code = code
        self.calls = 0

    def rest_post(self, uri: str, body: bytes) -> bytes:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise HostError("it failed", self.code)
        return json.dumps({"Status": "Success", "ID": "x"}).encode()

    def describe(self, code: int) -> str:
        return f"error {code}"


def store(sdk: FailingSdk) -> OrthancStore:
    durability = Durability(NOWHERE, NOWHERE, files_synced=True)
    return OrthancStore(
        cast(Sdk, sdk), StorageArea(NOWHERE), durability, StorageCheck(NOWHERE, lambda: False)
    )


def test_a_collision_in_orthanc_s_storage_is_no_refusal() -> None:
    sdk = FailingSdk(1, Code.FILE_STORAGE_CANNOT_WRITE)
    assert store(sdk).add(b"DICOM").status is ImportStatus.SUCCESS
    assert sdk.calls == 2


def test_a_full_disk_is_a_refusal_all_the_same() -> None:
    sdk = FailingSdk(100, Code.FILE_STORAGE_CANNOT_WRITE)
    with pytest.raises(ImportRefused, match="is the disk full"):
        store(sdk).add(b"DICOM")
    assert sdk.calls == 3


def test_any_other_error_is_final() -> None:
    sdk = FailingSdk(1, Code.BAD_FILE_FORMAT)
    with pytest.raises(ImportRefused):
        store(sdk).add(b"DICOM")
    assert sdk.calls == 1


def test_a_refusal_says_that_orthanc_could_not_reach_its_index() -> None:
    for code, away in ((36, True), (Code.BAD_FILE_FORMAT, False)):
        with pytest.raises(ImportRefused) as refused:
            store(FailingSdk(1, code)).add(b"DICOM")
        assert refused.value.index_away is away
