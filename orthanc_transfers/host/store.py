"""InstanceStore over the Orthanc in whose process we run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom import UidOf
from orthanc_transfers.core.errors import ABSENT, Canceled, HostError, LostFile, TransferError
from orthanc_transfers.core.model import IDENTIFIER, Beginning, Instance, Level, Manifest, Resource
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.file_hash import FileHashes
from orthanc_transfers.host.index_questions import IndexedFile
from orthanc_transfers.host.instance_import import import_instance
from orthanc_transfers.host.instance_index import InstanceIndex, check_identifier, unknown
from orthanc_transfers.host.listing_cache import ListingCache
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.interfaces import Imported
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_HASHING_THREADS = 4

# What Orthanc says of a file that is gone, cut short or damaged, or of an instance that it does not have; which of
# them depends on its version, and on what reads the file. (Another error may pass, of a storage plugin say.)
_UNREADABLE = (
    *ABSENT,
    Code.PARAMETER_OUT_OF_RANGE,
    Code.BAD_FILE_FORMAT,
    Code.CORRUPTED_FILE,
    Code.REGULAR_FILE_EXPECTED,
)

# Files in a row that were not in the storage folder, after which none is looked for there any more.
_MAX_STORAGE_MISSES = 16


class OrthancStore:
    """Implements ``interfaces.InstanceStore``. To be used once Orthanc has started. Thread-safe."""

    def __init__(
        self,
        sdk: Sdk,
        storage_area: StorageArea,
        durability: Durability,
        storage_check: StorageCheck,
    ) -> None:
        self._sdk = sdk
        self._index = InstanceIndex(sdk)
        self._storage_area = storage_area
        self._hashes = FileHashes(storage_area, self.read)
        self._durability = durability
        self._storage_check = storage_check
        self._listed = ListingCache[IndexedFile]()
        self._storage_misses = 0

    # -- Listing

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        """All instances below the resources, from Orthanc's index."""
        cancellation = cancellation or Cancellation()
        files: dict[str, IndexedFile] = {}
        alone: list[str] = []
        for resource in resources:
            check_identifier(resource.level, resource.id)
            if resource.level is Level.INSTANCE:
                alone.append(resource.id)
            else:
                files.update(self._index.files_below(resource, cancellation))
        alone = [identifier for identifier in dict.fromkeys(alone) if identifier not in files]
        files.update(self._index.files(alone, cancellation))
        for identifier in alone:
            if identifier not in files:
                raise unknown(Level.INSTANCE, identifier)
        return self._manifest_of(files, cancellation)

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        """The first instances, each asked for by itself unless Orthanc lists some at once."""
        cancellation = cancellation or Cancellation()
        whole = self._few_below(resources, count, cancellation)
        if whole is not None:
            return Beginning(self._manifest_of(whole, cancellation), 0)
        below: set[str] = set()
        for resource in resources:
            check_identifier(resource.level, resource.id)
            below.update(self._index.instances_below(resource.level, resource.id, cancellation))
        wanted = sorted(below)[:count]
        # Orthanc lists them in the order of their identifiers, as a rule.
        at_once = self._index.some_files_below(resources, count, cancellation)
        files: dict[str, IndexedFile] = {}
        for identifier in wanted:
            cancellation.check()
            file = at_once.get(identifier) or self._index.file(identifier)
            if file is None:
                raise unknown(Level.INSTANCE, identifier)
            files[identifier] = file
        return Beginning(self._manifest_of(files, cancellation), len(below) - len(wanted))

    def _few_below(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation
    ) -> dict[str, IndexedFile] | None:
        """All files below the resources, if these are ``count`` at most and Orthanc lists each resource's at once."""
        files: dict[str, IndexedFile] = {}
        for resource in resources:
            check_identifier(resource.level, resource.id)
            some = self._index.all_files_below(resource, count - len(files) + 1, cancellation)
            if some is None:
                return None
            files.update(some)
        return files if len(files) <= count else None

    def md5s(
        self,
        identifiers: Iterable[str],
        cancellation: Cancellation | None = None,
        uid_of: UidOf | None = None,
        *,
        sure: bool = True,
    ) -> dict[str, str | None]:
        """The MD5s in Orthanc's index, of those instances that are stored, or of their files."""
        cancellation = cancellation or Cancellation()
        wanted = [identifier for identifier in identifiers if IDENTIFIER.fullmatch(identifier)]
        files = self._index.files(wanted, cancellation, uid_of)
        md5s = {identifier: file.md5 for identifier, file in files.items()}

        def work(identifier: str) -> None:
            try:
                md5s[identifier] = self._hashes.md5(identifier, files[identifier], cancellation)
            except Canceled:
                raise
            except TransferError as error:
                log.warning("instance %s cannot be hashed: %s", identifier, error)

        self._hash(files, work, cancellation)
        return md5s

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        """Whether the file of a stored instance is as Orthanc's index says; where it has no MD5, has ``md5``."""
        cancellation = cancellation or Cancellation()
        try:
            file = self._index.file(identifier)
            return file is not None and self._hashes.hash(identifier, file, cancellation) == (file.md5 or md5)
        except Canceled:
            raise
        except TransferError:
            return False

    def exists(self, resource: Resource) -> bool:
        """From Orthanc's index."""
        return self._index.exists(resource)

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        """From Orthanc's index."""
        return self._index.patients_of(identifiers, cancellation)

    def instance(self, identifier: str) -> Instance:
        """As when it was listed, if it was."""
        check_identifier(Level.INSTANCE, identifier)
        file = self._known(identifier)
        return Instance(identifier, file.size, file.md5 or "")

    def transfer_syntax(self, identifier: str) -> str | None:
        """The metadata that Orthanc keeps of each instance."""
        if not IDENTIFIER.fullmatch(identifier):
            return None
        uid = self._index.get(f"/instances/{identifier}/metadata/TransferSyntax")
        return uid.decode("ascii", "replace") if uid else None

    def received(self, identifier: str) -> str | None:
        """The metadata that Orthanc keeps of each instance, to the second."""
        if self._index.file(identifier) is None:
            return None
        date = self._index.get(f"/instances/{identifier}/metadata/ReceptionDate")
        return date.decode("ascii", "replace") if date else ""

    def _manifest_of(self, files: Mapping[str, IndexedFile], cancellation: Cancellation) -> Manifest:
        self._listed.add(files)
        hashed: dict[str, str] = {}

        def work(identifier: str) -> None:
            hashed[identifier] = self._hashes.md5(identifier, files[identifier], cancellation)

        self._hash(files, work, cancellation)
        return Manifest(
            Instance(identifier, file.size, file.md5 or hashed[identifier])
            for identifier, file in sorted(files.items())
        )

    def _hash(
        self, files: Mapping[str, IndexedFile], work: Callable[[str], None], cancellation: Cancellation
    ) -> None:
        """Let ``work`` hash those files of which Orthanc's index has no MD5."""
        unhashed = [identifier for identifier, file in files.items() if file.md5 is None]
        threads.run_all("hashing", _HASHING_THREADS, unhashed, work, cancellation)

    def _known(self, identifier: str) -> IndexedFile:
        file = self._listed.get(identifier) or self._index.file(identifier)
        if file is None:
            raise unknown(Level.INSTANCE, identifier)
        return file

    # -- Reading

    def read(self, identifier: str) -> memoryview:
        """The file, in the memory into which Orthanc read it."""
        check_identifier(Level.INSTANCE, identifier)
        self._listed.forget(identifier)
        try:
            return self._sdk.dicom(identifier)
        except HostError as error:
            if error.code not in _UNREADABLE:
                raise
            if self._index.file(identifier) is None:
                raise unknown(Level.INSTANCE, identifier) from None
            raise LostFile(
                f"the file of instance {identifier} cannot be read from this Orthanc's storage: it is missing or"
                f" damaged (Orthanc reports {self._sdk.describe(error.code)!r}); restore it, or delete the instance"
            ) from None

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        """A part of the file, where Orthanc keeps it as it is in its own folder."""
        if self._storage_misses >= _MAX_STORAGE_MISSES:
            return False  # a plugin keeps the files
        check_identifier(Level.INSTANCE, identifier)
        file = self._known(identifier)
        if file.uuid and self._storage_area.read_into(view, file.uuid, file.size, offset):
            self._storage_misses = 0
            if offset + len(view) == file.size:
                self._listed.forget(identifier)  # the end of a file is asked for last, or nearly so
            return True
        # Replaced meanwhile, or compressed, or elsewhere.
        self._listed.forget(identifier)
        self._storage_misses += 1
        return False

    # -- Importing and deleting

    def add(self, data: Buffer) -> Imported:
        """Import one file, without copying it on its way."""
        with self._storage_check.room_for(len(data)):
            imported = import_instance(self._sdk, data)
        self._index.imported(imported.id, data)
        return imported

    def remove(self, identifier: str) -> None:
        """Delete one instance, with those parents that are empty then."""
        if not IDENTIFIER.fullmatch(identifier):
            return
        try:
            self._sdk.rest_delete(f"/instances/{identifier}")
        except HostError as error:
            if error.code not in ABSENT:
                raise

    def sync(self) -> None:
        """Fsync Orthanc's index."""
        try:
            self._durability.force()
        except OSError as error:
            raise HostError(
                f"Orthanc's index cannot be synced to disk ({error}), see IndexDirectory and StorageDirectory",
                Code.CANNOT_WRITE_FILE,
            ) from error
