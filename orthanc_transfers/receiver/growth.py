"""Adds to an incoming transfer the instances that its sender announces later, and looks up which are stored already."""

from __future__ import annotations

from collections.abc import Collection, Container

from orthanc_transfers.core.errors import Conflict, FatalInstance, NoSpace, TooLarge, TransferError
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.storage_limits import check_sizes
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.changed_instances import ChangedInstances
from orthanc_transfers.receiver.commit import same_indices
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.recycling import Recycling
from orthanc_transfers.receiver.staging import Needed, Staging
from orthanc_transfers.runtime.cancellation import Cancellation


class Growth:
    """Thread-safe. ``max_instances`` is the limit of one transfer; ``recycling`` knows Orthanc's, if it has some."""

    def __init__(
        self,
        staging: Staging,
        store: InstanceStore,
        changed: ChangedInstances,
        max_instances: int,
        fatal: FatalInstances,
        recycling: Recycling | None = None,
    ) -> None:
        self._staging = staging
        self._store = store
        self._changed = changed
        self._max_instances = max_instances
        self._fatal = fatal
        self._recycling = recycling

    def check_count(self, count: int) -> None:
        """Raise ``TooLarge`` if no transfer may have so many instances."""
        if count > self._max_instances:
            raise TooLarge(
                f"{count} instances in one transfer are more than MaxManifestInstances, {self._max_instances}:"
                " send them in several transfers, or raise the limit on the receiving server"
            )

    def check_capacity(
        self, manifest: Manifest, patients: Collection[str] | None, cancellation: Cancellation
    ) -> None:
        """Raise ``TooLarge`` if Orthanc can never hold that, whatever it recycles; ``Canceled``."""
        check_sizes(manifest)
        if self._recycling is not None:
            self._recycling.check_announced(manifest, patients, cancellation)

    def check_fatal(self, manifest: Manifest, first: int, stored: Container[int]) -> None:
        """Raise ``FatalInstance`` if Orthanc died of one, from index ``first`` on, that it has not ``stored``."""
        new = enumerate(manifest.instances[first:], first)
        self._fatal.check(instance for index, instance in new if index not in stored)

    def look_up(
        self, manifest: Manifest, first: int, cancellation: Cancellation, *, sure: bool = False
    ) -> tuple[frozenset[int], Needed]:
        """Which instances, from index ``first`` on, Orthanc has with the announced MD5, and what the others need.

        Not ``sure``: see ``InstanceStore.md5s``. What is sent in vain then is found at the commit.
        Raises ``Canceled``; ``FatalInstance`` if Orthanc died of one of the others.
        """
        new = manifest.instances[first:]
        stored = self._store.md5s([instance.id for instance in new], cancellation, sure=sure)
        same = same_indices(new, stored | self._changed.announced_md5s(new, stored), first)
        try:
            self.check_fatal(manifest, first, same)
        except FatalInstance:
            if sure:
                raise
            return self.look_up(manifest, first, cancellation, sure=True)
        wanted = [instance.size for index, instance in enumerate(new, first) if index not in same]
        return same, Needed(sum(wanted), len(wanted))

    def grow(
        self, transfer: IncomingTransfer, manifest: Manifest, more: int, cancellation: Cancellation
    ) -> None:
        """Add the instances that ``manifest`` has behind the transfer's own; ``more`` are still to be announced.

        Raises ``Conflict`` if it does not begin with those; ``NoSpace``, ``TooLarge``, ``FatalInstance``: it is
        dropped then; ``UnknownTransaction``: it was dropped before.
        """
        with transfer.growth:
            if not transfer.growing or (more and len(manifest) <= transfer.count):
                return  # another request was faster
            if not manifest.starts_with(transfer.manifest):
                raise Conflict(
                    f"the instances of transfer {transfer.id} have changed since they were announced: send again"
                )
            try:
                self.check_count(len(manifest) + more)
                self.check_capacity(manifest, None, cancellation)
                stored, needed = self.look_up(manifest, transfer.count, cancellation)
                self._staging.promise(transfer.id, needed)
                transfer.grow(manifest, stored, growing=more > 0)
            except TransferError as error:
                if transfer.dropped:
                    self._staging.forget(transfer.id)
                elif isinstance(error, (NoSpace, TooLarge, FatalInstance)):
                    # It will never be complete, and takes room.
                    transfer.discard()
                raise
