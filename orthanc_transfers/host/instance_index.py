"""Questions to Orthanc's index: which instances are below a resource, and the size and MD5 of each file.

Each question takes about a tenth of a second at most, since Orthanc cannot be interrupted in one; work that was
canceled stops between two.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from orthanc_transfers.core.checksum import MD5_OF_NOTHING
from orthanc_transfers.core.dicom import UidOf
from orthanc_transfers.core.errors import HostError, UnknownResource
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.core.paths import COLLECTIONS, resource_path
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.runtime.cancellation import Cancellation

# For each level, the key of its children in Orthanc's JSON, and their level.
_CHILDREN = {
    Level.PATIENT: ("Studies", Level.STUDY),
    Level.STUDY: ("Series", Level.SERIES),
    Level.SERIES: ("Instances", Level.INSTANCE),
}

# OrthancPluginContentType_Dicom: the file itself, among the attachments of an instance.
_DICOM = 1

# Instances that are cheaper to ask for one by one.
_FEW = 16

# Instances imported lately whose UIDs are remembered.
_MAX_IMPORTED = 10_000

# UIDs of instances to search for at once. Up to some 50 are found by an index of Orthanc's (3 ms with 80,000 instances
# stored on 1.13.0), of 200 each takes a millisecond.
_UIDS = 32

# Of a series, to find a few instances among them.
_SOME = 256

# Instances to ask for at once: few at first, since each that is stored costs time and one would do; never more than
# take about that many seconds, since Orthanc cannot be interrupted.
_FIRST_BATCH = _FEW + 1
_MAX_BATCH = 4096
_BATCH_SECONDS = 0.1

# Resources whose patients are asked for at once.
_PATIENTS_BATCH = 1000

# Instances below a resource that Orthanc lists at once, in the time of a batch.
_PAGE = 2048


class IndexedFile(NamedTuple):
    """What Orthanc's index knows of the file of an instance, as it would be downloaded."""

    size: int
    """Bytes."""
    md5: str | None
    """``None`` where Orthanc keeps none (``StoreMD5ForAttachments``), or that of nothing (2^31 bytes or more)."""
    uuid: str | None
    """Of its attachment, if Orthanc stored it as it is."""


class InstanceIndex:
    """Orthanc's index of instances. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        # Needs no lock: each use is a single operation of a dict.
        self._imported: dict[str, str] = {}

    def imported(self, identifier: str, uid: str) -> None:
        """An instance with that SOP Instance UID was imported just now; to be asked about it later costs less then."""
        if len(self._imported) >= _MAX_IMPORTED:
            self._imported = {}
        self._imported[identifier] = uid

    def exists(self, resource: Resource) -> bool:
        """Whether it is stored."""
        if not IDENTIFIER.fullmatch(resource.id):
            return False
        return self.get(resource_path(resource)) is not None

    def file(self, identifier: str) -> IndexedFile | None:
        """The file of one instance; ``None`` if it is not stored."""
        if not IDENTIFIER.fullmatch(identifier):
            return None
        info = self.get(f"/instances/{identifier}/attachments/dicom/info")
        return None if info is None else _parse(json.loads(info))

    def files(
        self, wanted: Sequence[str], cancellation: Cancellation, uid_of: UidOf | None = None
    ) -> dict[str, IndexedFile]:
        """The files of those instances that are stored, out of any number.

        Orthanc 1.12 and 1.13 look one instance up by walking through all that they have (2 ms each of 10,000, 40 ms
        of 100,000), stored or not, and even 1.10 takes 0.1 ms. So those whose SOP Instance UIDs are known, because
        they were imported lately or by ``uid_of``, are searched for by these, which takes 3 ms whatever there is.
        """
        imported = self._imported
        uids = {one: imported[one] for one in wanted if one in imported}
        if not uids and uid_of is not None:
            # Who has them at hand is about to store them: as a rule, none is there. One question says so.
            if not self.patients_of(wanted, cancellation):
                return {}
            uids = {one: uid for one in wanted if (uid := uid_of(one)) is not None}
        found = self._search(uids, cancellation) if uids and self.has_extended_find else {}
        others = [one for one in wanted if one not in found]
        found.update(self._looked_up(others, cancellation))
        return {identifier: found[identifier] for identifier in wanted if identifier in found}

    def _search(self, uids: Mapping[str, str], cancellation: Cancellation) -> dict[str, IndexedFile]:
        """The files of those instances, by their identifiers, that are found by their SOP Instance UIDs."""
        found: dict[str, IndexedFile] = {}
        waiting = iter(uids.items())
        while batch := dict(itertools.islice(waiting, _UIDS)):
            cancellation.check()
            # Others, of another patient say, may have the same.
            files = self._ask({"Query": {"SOPInstanceUID": "\\".join(dict.fromkeys(batch.values()))}})
            found.update((one, file) for one, file in files.items() if one in batch)
        return found

    def _looked_up(self, wanted: Sequence[str], cancellation: Cancellation) -> dict[str, IndexedFile]:
        """The files of those that are stored, and maybe of others.

        Many are asked for at once, which is quick for those that are not stored; and one that is stored leads to its
        whole series, which costs what one does.
        """
        found: dict[str, IndexedFile] = {}
        first, few = (1, 0) if self.has_extended_find else (_FIRST_BATCH, _FEW)
        waiting, batch = (identifier for identifier in wanted if identifier not in found), first
        while len(asked := list(itertools.islice(waiting, batch))) > few:
            cancellation.check()
            began = time.monotonic()
            stored = self._series_of(asked)
            fitting = int(batch * _BATCH_SECONDS / max(time.monotonic() - began, 1e-6))
            batch = max(first, min(fitting, batch * 4, _MAX_BATCH))
            for series in set(stored.values()):
                found.update(self._files_of_series(series, len(wanted), cancellation))
            if any(one not in found for one in stored) and len(wanted) <= _FEW:
                # A large series was not listed to its end.
                asked = [one for one in wanted if one not in found]
                break
            self._add_each((one for one in stored if one not in found), found, cancellation)
        self._add_each(asked, found, cancellation)
        return found

    def _files_of_series(
        self, series: str, wanted: int, cancellation: Cancellation
    ) -> Mapping[str, IndexedFile]:
        """Its files, or some of them if it has many more than are ``wanted``; none if it was deleted meanwhile."""
        resource = Resource(Level.SERIES, series)
        if not self.has_extended_find:
            with contextlib.suppress(UnknownResource):
                return dict(self.files_below(resource, cancellation))
            return {}
        try:
            return self._find(resource, cancellation, _SOME if wanted <= _FEW else None)
        except HostError:
            return {}  # it was deleted meanwhile; whatever else it is, each is asked for by itself then

    def _add_each(
        self, identifiers: Iterable[str], found: dict[str, IndexedFile], cancellation: Cancellation
    ) -> None:
        for identifier in identifiers:
            cancellation.check()
            file = self.file(identifier)
            if file is not None:
                found[identifier] = file

    def files_below(
        self, resource: Resource, cancellation: Cancellation
    ) -> Iterator[tuple[str, IndexedFile]]:
        """The files of all instances below a resource. Raises ``UnknownResource``; ``Canceled``."""
        below = list(self.instances_below(resource.level, resource.id, cancellation))
        at_once = self._find(resource, cancellation) if self.has_extended_find else {}
        for identifier in below:
            cancellation.check()
            # One by one also those that a limit of the configuration (LimitFindInstances) cut off.
            file = at_once.get(identifier) or self.file(identifier)
            if file is None:
                raise unknown(Level.INSTANCE, identifier)
            yield identifier, file

    def all_files_below(
        self, resource: Resource, fewer_than: int, cancellation: Cancellation
    ) -> dict[str, IndexedFile] | None:
        """The files of all instances below a resource, in one question; ``None`` where that cannot be told.

        To ask for a study and each of its series takes Orthanc 1.13 three to ten times as long.
        """
        if not self.has_extended_find or resource.level is Level.INSTANCE or fewer_than < 1:
            return None
        found = self._find(resource, cancellation, fewer_than)
        return found if 0 < len(found) < min(fewer_than, self._limit or fewer_than) else None

    def some_files_below(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation
    ) -> dict[str, IndexedFile]:
        """Files below some resources, ``count`` or about as many, that Orthanc lists at once; none before 1.12.5."""
        found: dict[str, IndexedFile] = {}
        if self.has_extended_find:
            for resource in resources:
                if resource.level is not Level.INSTANCE and len(found) < count:
                    found.update(self._find(resource, cancellation, count))
        return found

    def instances_below(self, level: Level, identifier: str, cancellation: Cancellation) -> Iterator[str]:
        """The identifiers of all instances below a resource. Raises ``UnknownResource``; ``Canceled``."""
        if level is Level.INSTANCE:
            yield identifier
            return
        cancellation.check()
        answer = self.get(f"/{COLLECTIONS[level]}/{identifier}")
        if answer is None:
            raise unknown(level, identifier)
        key, child_level = _CHILDREN[level]
        for child in json.loads(answer)[key]:
            yield from self.instances_below(child_level, child, cancellation)

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        """The patients of those resources, of any level, that are stored."""
        found: set[str] = set()
        waiting = (identifier for identifier in identifiers if IDENTIFIER.fullmatch(identifier))
        while batch := list(itertools.islice(waiting, _PATIENTS_BATCH)):
            cancellation.check()
            query = {"Resources": batch, "Level": "Patient", "Metadata": False}
            items = json.loads(self._sdk.rest_post("/tools/bulk-content", json.dumps(query).encode()))
            found.update(item["ID"] for item in items)
        return frozenset(found)

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
    def _limit(self) -> int:
        """Instances that a search finds at most; 0: any number."""
        limit = self._sdk.configuration().get("LimitFindInstances", 0)
        return limit if isinstance(limit, int) else 1

    def _find(
        self, resource: Resource, cancellation: Cancellation, enough: int | None = None
    ) -> dict[str, IndexedFile]:
        """The files of the instances below a resource, many at once; of all, unless the configuration limits them.

        Or, if ``enough`` will do, of one page at most.
        """
        page = _PAGE if enough is None else min(enough, _PAGE)
        query = {"Query": {}, f"Parent{resource.level.value}": resource.id, "Limit": page}
        found: dict[str, IndexedFile] = {}
        for since in itertools.count(0, page):
            cancellation.check()
            some = self._ask({**query, "Since": since})
            found.update(some)
            if len(some) < page or enough is not None:
                break
        return found

    def _ask(self, query: Mapping[str, Any]) -> dict[str, IndexedFile]:
        """The files of the instances that a search finds."""
        body = json.dumps({"Level": "Instance", "ResponseContent": ["Attachments"], **query}).encode()
        items = json.loads(self._sdk.rest_post("/tools/find", body))
        return {
            item["ID"]: _parse(attachment)
            for item in items
            for attachment in item["Attachments"]
            if attachment["ContentType"] == _DICOM
        }

    def _series_of(self, instances: Sequence[str]) -> dict[str, str]:
        """Those instances that are stored, each with its series; maybe also some that were deleted lately."""
        query = {"Resources": instances, "Level": "Instance", "Metadata": False}
        items = json.loads(self._sdk.rest_post("/tools/bulk-content", json.dumps(query).encode()))
        return {item["ID"]: item["ParentSeries"] for item in items}


def check_identifier(level: Level, identifier: str) -> None:
    """Raises ``UnknownResource`` for what cannot be an identifier of Orthanc."""
    if not IDENTIFIER.fullmatch(identifier):
        raise unknown(level, identifier[:100])


def unknown(level: Level, identifier: str) -> UnknownResource:
    """The error for a resource that does not exist."""
    return UnknownResource(f"there is no {level.value.lower()} {identifier} in this Orthanc")


def _parse(attachment: dict[str, Any]) -> IndexedFile:
    # The uncompressed ones: with StorageCompression, the others are of the file on Orthanc's disk.
    size, md5 = int(attachment["UncompressedSize"]), attachment.get("UncompressedMD5", "")
    as_it_is = int(attachment["CompressedSize"]) == size and attachment.get("CompressedMD5", "") == md5
    unknown_md5 = not md5 or (size > 0 and md5 == MD5_OF_NOTHING)
    return IndexedFile(size, None if unknown_md5 else md5, attachment.get("Uuid") if as_it_is else None)
