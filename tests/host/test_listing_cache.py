"""What the store remembers of files that were listed: an SDK in place of Orthanc, which makes up as many as needed."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.listing_cache import LIFETIME, ListingCache
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.host.store import OrthancStore

SIZE = 8
EACH = 500
"""Instances of a series."""


def name(number: int) -> str:
    """An identifier of Orthanc."""
    return f"{number:08x}-00000000-00000000-00000000-00000000"


class EndlessSdk:
    """Series 0 has the first instances, series 1 the next ones, and so on; ``asked`` of the files of single ones."""

    def __init__(self) -> None:
        self.asked = 0

    def rest_get(self, uri: str) -> bytes:
        match uri.strip("/").split("/"):
            case ["system"]:
                return b"{}"
            case ["series", series]:
                first = EACH * int(series[:8], 16)
                return json.dumps({"Instances": [name(first + number) for number in range(EACH)]}).encode()
            case ["instances", identifier, *_]:
                self.asked += 1
                number = int(identifier[:8], 16)
                info = {
                    "Uuid": f"{number:08x}-0000-0000-0000-000000000000",
                    "UncompressedSize": str(SIZE),
                    "CompressedSize": str(SIZE),
                    "UncompressedMD5": f"{number:032x}",
                    "CompressedMD5": f"{number:032x}",
                }
                return json.dumps(info).encode()
        raise HostError(uri, Code.UNKNOWN_RESOURCE)

    def dicom(self, identifier: str) -> memoryview:
        return memoryview(bytes(SIZE))


class AnyFile(StorageArea):
    """A storage folder in which every file is."""

    def read_into(self, view: memoryview, uuid: str, whole: int, offset: int) -> bool:
        return True


@pytest.fixture
def sdk() -> EndlessSdk:
    return EndlessSdk()


def store_of(sdk: EndlessSdk, folder: Path) -> OrthancStore:
    durability = Durability(folder, folder, files_synced=True)
    return OrthancStore(cast(Sdk, sdk), AnyFile(folder), durability, StorageCheck(folder, lambda: False))


def test_what_is_never_sent_is_forgotten_in_time() -> None:
    now = 0.0
    listed = ListingCache[int](lambda: now)
    listed.add({"a": 1, "b": 2})
    now = LIFETIME
    listed.add({"c": 3})
    assert (listed.get("a"), listed.get("c")) == (1, 3)
    now = LIFETIME + 1
    listed.add({"d": 4})
    assert (listed.get("a"), listed.get("d"), len(listed)) == (1, 4, 4)
    listed.forget("b")
    assert listed.get("b") is None
    now = 2 * LIFETIME + 2
    listed.add({"e": 5})
    assert (listed.get("a"), listed.get("d"), len(listed)) == (None, 4, 2)


def in_parts(store: OrthancStore, identifier: str) -> None:
    view = memoryview(bytearray(SIZE // 2))
    for offset in (0, SIZE // 2):
        assert store.read_into(view, identifier, offset)


def whole(store: OrthancStore, identifier: str) -> None:
    store.read(identifier)


@pytest.mark.parametrize("send", [in_parts, whole])
def test_files_that_were_sent_are_not_remembered(
    sdk: EndlessSdk, tmp_path: Path, send: Callable[[OrthancStore, str], None]
) -> None:
    store = store_of(sdk, tmp_path)

    def transfer(series: int) -> None:
        for instance in store.manifest([Resource(Level.SERIES, name(series))]):
            send(store, instance.id)

    transfer(0)
    tracemalloc.start()
    try:
        for series in range(1, 10):
            transfer(series)
        assert tracemalloc.get_traced_memory()[0] < 100 * EACH
    finally:
        tracemalloc.stop()


def test_a_file_that_was_listed_is_not_asked_for_again_while_it_is_sent(
    sdk: EndlessSdk, tmp_path: Path
) -> None:
    store = store_of(sdk, tmp_path)
    manifest = store.manifest([Resource(Level.SERIES, name(0))])
    listed = sdk.asked
    for instance in manifest:
        assert store.instance(instance.id) == instance
        in_parts(store, instance.id)
    assert sdk.asked == listed
