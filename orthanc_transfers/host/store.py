"""The Orthanc in whose process we run, as a store of DICOM files."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import HostError, ImportRefused, UnknownResource
from orthanc_transfers.core.model import Beginning, Instance, Level, Manifest, Resource
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.listing_cache import ListingCache
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.interfaces import Imported, ImportStatus
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
"""An Orthanc identifier (a SHA-1). Nothing else may go into a path of the core's REST API."""

_COLLECTIONS = {
    Level.PATIENT: "patients",
    Level.STUDY: "studies",
    Level.SERIES: "series",
    Level.INSTANCE: "instances",
}

# For each level, the key of its children in the core's answer, and their level.
_CHILDREN = {
    Level.PATIENT: ("Studies", Level.STUDY),
    Level.STUDY: ("Series", Level.SERIES),
    Level.SERIES: ("Instances", Level.INSTANCE),
}

# OrthancPluginContentType_Dicom: the file itself, among the attachments of an instance.
_DICOM = 1

# What the core says of something that is not there (any more).
_ABSENT = (Code.UNKNOWN_RESOURCE, Code.INEXISTENT_ITEM, Code.INEXISTENT_FILE)

_REASONS: dict[int, str] = {
    Code.BAD_FILE_FORMAT: "it is not a DICOM file that Orthanc can read",
    Code.FULL_STORAGE: "Orthanc's storage is full (MaximumStorageSize, MaximumPatientCount)",
    Code.NOT_ENOUGH_MEMORY: "Orthanc has not enough memory",
    Code.CANNOT_WRITE_FILE: "Orthanc cannot write to its storage; is the disk full?",
    Code.FILE_STORAGE_CANNOT_WRITE: "Orthanc cannot write to its storage; is the disk full?",
}

_HASHING_THREADS = 4

# Orthanc's storage fails if two threads make the same folder at the same moment, which is no full disk: seen once in
# many thousand imports on 1.10.1.
_IMPORT_ATTEMPTS = 3

# Files in a row that were not in the storage folder, after which none is looked for there any more.
_TRIED = 16

# Instances that are cheaper to ask for one by one.
_FEW = 16

# Instances to ask for at once: few at first, since each that is stored costs time and one would do; never more than
# take about that many seconds, since what the core does cannot be interrupted.
_FIRST_BATCH = _FEW + 1
_LARGEST_BATCH = 4096
_BATCH_SECONDS = 0.1

# Instances below a resource that the core shows at once, in the time of a batch.
_PAGE = 2048


class _File(NamedTuple):
    """What Orthanc's index knows of the file of an instance, as it would be downloaded."""

    size: int
    md5: str | None
    uuid: str | None
    """Of its attachment, if Orthanc stored it as it is."""


class OrthancStore:
    """Implements ``ports.InstanceStore``. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk, stored_files: StorageArea, durability: Durability) -> None:
        self._sdk = sdk
        self._stored_files = stored_files
        self._durability = durability
        self._listed = ListingCache[_File]()
        self._in_vain = 0

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        """All instances below the resources, from Orthanc's index."""
        cancellation = cancellation or Cancellation()
        files: dict[str, _File] = {}
        alone: list[str] = []
        for resource in resources:
            _check(resource.level, resource.id)
            if resource.level is Level.INSTANCE:
                alone.append(resource.id)
            else:
                files.update(self._files_below(resource, cancellation))
        alone = [identifier for identifier in dict.fromkeys(alone) if identifier not in files]
        files.update(self._files(alone, cancellation))
        for identifier in alone:
            if identifier not in files:
                raise _unknown(Level.INSTANCE, identifier)
        return self._manifest_of(files, cancellation)

    def _manifest_of(self, files: Mapping[str, _File], cancellation: Cancellation) -> Manifest:
        self._listed.add(files)
        unhashed = [identifier for identifier, file in files.items() if file.md5 is None]
        hashed = self._hash(unhashed, cancellation)
        return Manifest(
            hashed.get(identifier) or Instance(identifier, file.size, file.md5 or "")
            for identifier, file in sorted(files.items())
        )

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        """The first instances, each asked for by itself unless the core shows some at once."""
        cancellation = cancellation or Cancellation()
        below: set[str] = set()
        for resource in resources:
            _check(resource.level, resource.id)
            below.update(self._instances(resource.level, resource.id, cancellation))
        wanted = sorted(below)[:count]
        # It shows them in the order of their identifiers, as a rule.
        at_once = self._some_below(resources, count, cancellation) if self._has_extended_find else {}
        files: dict[str, _File] = {}
        for identifier in wanted:
            cancellation.check()
            file = at_once.get(identifier) or self._file(identifier)
            if file is None:
                raise _unknown(Level.INSTANCE, identifier)
            files[identifier] = file
        return Beginning(self._manifest_of(files, cancellation), len(below) - len(wanted))

    def _some_below(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation
    ) -> dict[str, _File]:
        found: dict[str, _File] = {}
        for resource in resources:
            if resource.level is not Level.INSTANCE and len(found) < count:
                found.update(self._find(resource, cancellation, count))
        return found

    def md5s(
        self, identifiers: Iterable[str], cancellation: Cancellation | None = None
    ) -> dict[str, str | None]:
        """The MD5s in Orthanc's index, of those instances that are stored."""
        wanted = [identifier for identifier in identifiers if IDENTIFIER.fullmatch(identifier)]
        files = self._files(wanted, cancellation or Cancellation())
        return {identifier: file.md5 for identifier, file in files.items()}

    def instance(self, identifier: str) -> Instance:
        """As when it was listed, if it was."""
        _check(Level.INSTANCE, identifier)
        file = self._known(identifier)
        return Instance(identifier, file.size, file.md5 or "")

    def read(self, identifier: str) -> memoryview:
        """The file, in the memory into which Orthanc read it."""
        _check(Level.INSTANCE, identifier)
        self._listed.forget(identifier)
        try:
            return self._sdk.dicom(identifier)
        except HostError as error:
            if error.code in _ABSENT:
                raise _unknown(Level.INSTANCE, identifier) from None
            raise

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        """A part of the file, where Orthanc keeps it as it is in its own folder."""
        if self._in_vain >= _TRIED:
            return False  # a plugin keeps the files
        _check(Level.INSTANCE, identifier)
        file = self._known(identifier)
        if file.uuid and self._stored_files.read_into(view, file.uuid, file.size, offset):
            self._in_vain = 0
            if offset + len(view) == file.size:
                self._listed.forget(identifier)  # the end of a file is asked for last, or nearly so
            return True
        # Replaced meanwhile, or compressed, or elsewhere.
        self._listed.forget(identifier)
        self._in_vain += 1
        return False

    def _known(self, identifier: str) -> _File:
        file = self._listed.get(identifier)
        if file is None:
            file = self._file(identifier)
            if file is None:
                raise _unknown(Level.INSTANCE, identifier)
        return file

    def add(self, data: Buffer) -> Imported:
        """Import one file, without copying it on its way."""
        if bytes(data[:2]) == b"PK":
            # Orthanc would unpack it and import whatever is inside.
            raise ImportRefused("it is a ZIP archive, not a DICOM file")
        try:
            answer = json.loads(self._import(data))
            return Imported(ImportStatus(answer["Status"]), str(answer["ID"]))
        except HostError as error:
            reason = _REASONS.get(error.code) or f"Orthanc reports {self._sdk.describe(error.code)!r}"
            raise ImportRefused(f"{reason} (error {error.code})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ImportRefused(f"Orthanc's answer to its import makes no sense: {error!r}") from None

    def _import(self, data: Buffer) -> bytes:
        for _ in range(_IMPORT_ATTEMPTS - 1):
            try:
                return self._sdk.rest_post("/instances", data)
            except HostError as error:
                if error.code != Code.FILE_STORAGE_CANNOT_WRITE:
                    raise
        return self._sdk.rest_post("/instances", data)

    def remove(self, identifier: str) -> None:
        """Delete one instance, with those parents that are empty then."""
        if not IDENTIFIER.fullmatch(identifier):
            return
        try:
            self._sdk.rest_delete(f"/instances/{identifier}")
        except HostError as error:
            if error.code not in _ABSENT:
                raise

    def sync(self) -> None:
        """Force Orthanc's index to disk."""
        try:
            self._durability.force()
        except OSError as error:
            raise HostError(
                f"Orthanc's index cannot be forced to disk ({error}), see IndexDirectory and StorageDirectory",
                Code.CANNOT_WRITE_FILE,
            ) from error

    def transfer_syntax(self, identifier: str) -> str | None:
        """The metadata that Orthanc keeps of each instance."""
        if not IDENTIFIER.fullmatch(identifier):
            return None
        answer = self._get(f"/instances/{identifier}/metadata/TransferSyntax")
        return answer.decode("ascii", "replace") if answer else None

    @cached_property
    def _has_extended_find(self) -> bool:
        """Whether ``POST /tools/find`` gives the attachments of many instances at once (1.12.5 and later)."""
        system = json.loads(self._sdk.rest_get("/system"))
        return bool(system.get("Capabilities", {}).get("HasExtendedFind"))

    def _hash(self, identifiers: Iterable[str], cancellation: Cancellation) -> dict[str, Instance]:
        """Instances whose file had to be read, since Orthanc does not keep MD5s (StoreMD5ForAttachments)."""
        hashed: dict[str, Instance] = {}

        def work(identifier: str) -> None:
            data = self.read(identifier)
            hashed[identifier] = Instance(identifier, len(data), md5(data))

        threads.run_all("hashing", _HASHING_THREADS, identifiers, work, cancellation)
        return hashed

    def _files(self, wanted: Sequence[str], cancellation: Cancellation) -> dict[str, _File]:
        """The files of those instances that are stored, out of any number.

        Orthanc 1.12 looks one instance up by walking through all that it has (2 ms each of 10,000), and even 1.10
        takes 0.1 ms. So many are asked at once whether they are there, which is quick for those that are not;
        and one that is there shows a whole series.
        """
        found: dict[str, _File] = {}
        waiting, batch = (identifier for identifier in wanted if identifier not in found), _FIRST_BATCH
        while len(asked := list(itertools.islice(waiting, batch))) > _FEW:
            cancellation.check()
            began = time.monotonic()
            some = self._series_of(asked)
            fitting = int(batch * _BATCH_SECONDS / max(time.monotonic() - began, 1e-6))
            batch = max(_FIRST_BATCH, min(fitting, batch * 4, _LARGEST_BATCH))
            for series in some:
                # It may have been deleted since.
                with contextlib.suppress(UnknownResource):
                    found.update(self._files_below(Resource(Level.SERIES, series), cancellation))
        for identifier in asked:
            cancellation.check()
            file = self._file(identifier)
            if file is not None:
                found[identifier] = file
        return {identifier: found[identifier] for identifier in wanted if identifier in found}

    def _files_below(self, resource: Resource, cancellation: Cancellation) -> Iterator[tuple[str, _File]]:
        below = list(self._instances(resource.level, resource.id, cancellation))
        at_once = self._find(resource, cancellation) if self._has_extended_find else {}
        for identifier in below:
            cancellation.check()
            # One by one also those that a limit of the configuration (LimitFindInstances) cut off.
            file = at_once.get(identifier) or self._file(identifier)
            if file is None:
                raise _unknown(Level.INSTANCE, identifier)
            yield identifier, file

    def _instances(self, level: Level, identifier: str, cancellation: Cancellation) -> Iterator[str]:
        """The identifiers of all instances below a resource. Raises ``UnknownResource``."""
        if level is Level.INSTANCE:
            yield identifier
            return
        cancellation.check()
        answer = self._get(f"/{_COLLECTIONS[level]}/{identifier}")
        if answer is None:
            raise _unknown(level, identifier)
        key, child_level = _CHILDREN[level]
        for child in json.loads(answer)[key]:
            yield from self._instances(child_level, child, cancellation)

    def _find(
        self, resource: Resource, cancellation: Cancellation, most: int | None = None
    ) -> dict[str, _File]:
        """The files of the instances below a resource, many at once; of all, unless the configuration limits them.

        Or, if ``most`` are enough, of a page at most.
        """
        page = _PAGE if most is None else min(most, _PAGE)
        query = {
            "Level": "Instance",
            "Query": {},
            f"Parent{resource.level.value}": resource.id,
            "ResponseContent": ["Attachments"],
            "Limit": page,
        }
        found: dict[str, _File] = {}
        for since in itertools.count(0, page):
            cancellation.check()
            asked = json.dumps({**query, "Since": since}).encode()
            answer = json.loads(self._sdk.rest_post("/tools/find", asked))
            for item in answer:
                for attachment in item["Attachments"]:
                    if attachment["ContentType"] == _DICOM:
                        found[item["ID"]] = _parse(attachment)
            if len(answer) < page or most is not None:
                break
        return found

    def _series_of(self, instances: Sequence[str]) -> set[str]:
        """The series of those instances that are stored."""
        query = {"Resources": instances, "Level": "Instance", "Metadata": False}
        answer = json.loads(self._sdk.rest_post("/tools/bulk-content", json.dumps(query).encode()))
        return {item["ParentSeries"] for item in answer}

    def _file(self, identifier: str) -> _File | None:
        """The file of one instance; ``None`` if it is not stored."""
        if not IDENTIFIER.fullmatch(identifier):
            return None
        answer = self._get(f"/instances/{identifier}/attachments/dicom/info")
        return None if answer is None else _parse(json.loads(answer))

    def _get(self, uri: str) -> bytes | None:
        try:
            return self._sdk.rest_get(uri)
        except HostError as error:
            if error.code in _ABSENT:
                return None
            raise


def _parse(attachment: dict[str, Any]) -> _File:
    # The uncompressed ones: with StorageCompression, the others are of the file on Orthanc's disk.
    size, md5 = int(attachment["UncompressedSize"]), attachment.get("UncompressedMD5") or None
    as_it_is = int(attachment["CompressedSize"]) == size and attachment.get("CompressedMD5", "") == (
        md5 or ""
    )
    return _File(size, md5, attachment.get("Uuid") if as_it_is else None)


def _check(level: Level, identifier: str) -> None:
    if not IDENTIFIER.fullmatch(identifier):
        raise _unknown(level, identifier[:100])


def _unknown(level: Level, identifier: str) -> UnknownResource:
    return UnknownResource(f"there is no {level.value.lower()} {identifier} in this Orthanc")
