"""The questions to Orthanc's index, one method for each kind.

What they cost in a large archive decides which of them are asked (``instance_index.py``). On SQLite, Orthanc 1.12 and
1.13 walk through all instances they have for each one that is named by its identifier and stored, and for each search
below something (40 ms of 100,000). Through the series only, for a search for series; through nothing, for the studies
and patients of instances, and, from 1.13 on, for up to some 50 SOP Instance UIDs (docs/measurements/small.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from orthanc_transfers.core.checksum import MD5_OF_NOTHING
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.orthanc_version import UIDS_ARE_QUICK, at_least
from orthanc_transfers.host.native.sdk import Sdk

# OrthancPluginContentType_Dicom: the file itself, among the attachments of an instance.
_DICOM = 1


class IndexedFile(NamedTuple):
    """What Orthanc's index knows of the file of an instance, as it would be downloaded."""

    size: int
    """Bytes."""
    md5: str | None
    """``None`` where Orthanc keeps none (``StoreMD5ForAttachments``), or that of nothing (2^31 bytes or more)."""
    uuid: str | None
    """Of its attachment, if Orthanc stored it as it is."""


class IndexQuestions:
    """To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk

    def get(self, uri: str) -> bytes | None:
        """``GET`` from Orthanc itself; ``None`` for what does not exist."""
        try:
            return self._sdk.rest_get(uri)
        except HostError as error:
            if error.absent:
                return None
            raise

    @cached_property
    def has_extended_find(self) -> bool:
        """Whether ``POST /tools/find`` gives the attachments of many instances at once (1.12.5 and later)."""
        system = json.loads(self._sdk.rest_get("/system"))
        return bool(system.get("Capabilities", {}).get("HasExtendedFind"))

    @cached_property
    def finds_uids(self) -> bool:
        """Whether a search for SOP Instance UIDs costs the same whatever is stored."""
        return self.has_extended_find and self.may_find_uids

    @cached_property
    def may_find_uids(self) -> bool:
        """The same by the version alone, which Orthanc need not be asked for: never raises."""
        return at_least(self._sdk.version, UIDS_ARE_QUICK)

    @cached_property
    def max_instances(self) -> int:
        """Instances that a search finds at most; 0: any number."""
        return self._limit("LimitFindInstances")

    @cached_property
    def _max_series(self) -> int:
        return self._limit("LimitFindResults")

    def _limit(self, option: str) -> int:
        limit = self._sdk.configuration().get(option, 0)
        return limit if isinstance(limit, int) else 1

    def file(self, identifier: str) -> IndexedFile | None:
        """The file of one instance; ``None`` if it is not stored."""
        info = self.get(f"/instances/{identifier}/attachments/dicom/info")
        return None if info is None else _parse(json.loads(info))

    def find_files(self, query: Mapping[str, Any]) -> dict[str, IndexedFile]:
        """The files of the instances that a search finds; needs ``has_extended_find``."""
        return {
            item["ID"]: _parse(attachment)
            for item in self._find(Level.INSTANCE, "Attachments", query)
            for attachment in item["Attachments"]
            if attachment["ContentType"] == _DICOM
        }

    def find_series(self, resource: Resource) -> dict[str, list[str]] | None:
        """The series below a resource, each with its instances; needs ``has_extended_find``.

        ``None`` where the configuration limits what is found to fewer, maybe.
        """
        query = {"Query": {}, f"Parent{resource.level.value}": resource.id}
        found = self._find(Level.SERIES, "Children", query)
        if self._max_series and len(found) >= self._max_series:
            return None
        return {item["ID"]: item["Instances"] for item in found}

    def _find(self, level: Level, content: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        body = json.dumps({"Level": level.value, "ResponseContent": [content], **query}).encode()
        found: list[dict[str, Any]] = json.loads(self._sdk.rest_post("/tools/find", body))
        return found

    def at_level(self, level: Level, identifiers: Sequence[str]) -> list[dict[str, Any]]:
        """Those of the resources that are stored, or their parents or children at that level, each once."""
        query = {"Resources": identifiers, "Level": level.value, "Metadata": False}
        found: list[dict[str, Any]] = json.loads(
            self._sdk.rest_post("/tools/bulk-content", json.dumps(query).encode())
        )
        return found


def ids(items: Iterable[Mapping[str, Any]]) -> set[str]:
    """The identifiers of what a question returned."""
    return {item["ID"] for item in items}


def _parse(attachment: Mapping[str, Any]) -> IndexedFile:
    # The uncompressed ones: with StorageCompression, the others are of the file on Orthanc's disk.
    size, md5 = int(attachment["UncompressedSize"]), attachment.get("UncompressedMD5", "")
    as_it_is = int(attachment["CompressedSize"]) == size and attachment.get("CompressedMD5", "") == md5
    unknown_md5 = not md5 or (size > 0 and md5 == MD5_OF_NOTHING)
    return IndexedFile(size, None if unknown_md5 else md5, attachment.get("Uuid") if as_it_is else None)
