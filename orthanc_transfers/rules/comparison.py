"""Compares the studies here with those of a peer, by the MD5s of their instances, page by page.

With a peer that speaks version 2 a page is one lookup, with others one for each study. What the triggers of a mirror
missed is found, and what was deleted here although this server had sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orthanc_transfers.core.errors import PeerError, PeerStatus, UnknownResource
from orthanc_transfers.core.mirror import Difference, Record, compare, deleted_here
from orthanc_transfers.core.model import Instance, Level, Manifest, Resource
from orthanc_transfers.interfaces import InstanceStore, PeerRequest, PeerTransport
from orthanc_transfers.net.peer_client import PeerClient
from orthanc_transfers.rules.mirror_records import MirrorRecords
from orthanc_transfers.runtime.cancellation import Cancellation

TOO_MANY_GONE = 0.5
"""Of what was sent to a peer: the share that may be missing here before nothing is deleted there any more."""

FEW = 10
"""As many may be missing in any case."""

# Seconds for each wait on the network.
_TIMEOUT = 60.0

_NO_PLUGIN = "its Orthanc has no transfers plugin that answers POST /transfers/lookup: load one there"


@dataclass(frozen=True, slots=True)
class DeletedStudy:
    """A study that this server sent, and that is here no longer."""

    study: str
    instances: tuple[str, ...]
    """What may be deleted there."""
    changed: bool
    """There is something else now, which is left as it is."""


@dataclass(slots=True)
class Gone:
    """What was looked at of the studies that were sent, in one comparison."""

    sent: int = 0
    gone: list[str] = field(default_factory=list)

    @property
    def suspicious(self) -> bool:
        """Whether so many are missing here that it looks like a lost index, not like deletions."""
        return len(self.gone) > max(FEW, TOO_MANY_GONE * self.sent)


class Comparison:
    """Of this Orthanc with one peer. Methods raise ``PeerError``, ``HostError``, ``Canceled``."""

    def __init__(
        self,
        store: InstanceStore,
        transport: PeerTransport,
        records: MirrorRecords,
        cancellation: Cancellation,
    ) -> None:
        self._store = store
        self._transport = transport
        self._peer = PeerClient(transport, None)
        self._records = records
        self._cancellation = cancellation
        self._seen: dict[str, Manifest] = {}
        """What the peer had of each study at the last look."""

    def prepare(self) -> None:
        """To be called first. Raises ``PeerError`` if this peer cannot be compared with."""
        try:
            self._peer.originator()
        except PeerStatus as error:
            if error.peer_status != 404:
                raise
            raise PeerError(
                f"peer {self._transport.name} cannot be compared with: {_NO_PLUGIN}", self._transport.name
            ) from error

    def studies(self, studies: Sequence[str]) -> list[Difference]:
        """A page of studies; those that are here no longer are left out."""
        here: dict[str, Manifest] = {}
        for study in studies:
            try:
                here[study] = self._store.manifest([Resource(Level.STUDY, study)], self._cancellation)
            except UnknownResource:
                continue
        there = self._seen = self._there(here)
        return [
            compare(study, here[study], there[study], self._record(study, there[study])) for study in here
        ]

    def sent_studies(self, after: str, limit: int, gone: Gone) -> str | None:
        """Look at a page of the studies that were sent: add those that are here no longer to ``gone``.

        Returns where to go on; ``None`` after the last one.
        """
        page = self._records.page(self._transport.name, after, limit)
        for study in page:
            self._cancellation.check()
            gone.sent += 1
            if not self._store.exists(Resource(Level.STUDY, study)):
                gone.gone.append(study)
        return page[-1] if len(page) == limit else None

    def deleted(self, study: str) -> DeletedStudy:
        """What may be deleted there of a study that is here no longer; forgets it if there is nothing."""
        nothing = Manifest(())
        self._seen = self._there({study: nothing})
        there = self._seen[study]
        found = deleted_here(nothing, there, self._record(study, there))
        if not there:
            self._records.forget(self._transport.name, [study])
        return DeletedStudy(study, found, bool(there) and not found)

    def _record(self, study: str, there: Manifest) -> Record | None:
        """What is known of a study there; of one that was being deleted there, as far as that came."""
        record = self._records.record(self._transport.name, study)
        deleted = self._records.deletions(self._transport.name, study)
        if record is None or not deleted:
            return record
        before = _manifest([*there, *(one for one in deleted if one.id not in there)])
        return replace(record, fingerprint=there.fingerprint()) if _is(before, record) else record

    def delete(self, study: str, instances: Sequence[str]) -> None:
        """Delete instances of a study that was looked at there; those that are there no longer are no error."""
        there = self._seen[study]
        # An outage, or the end of this process, leaves some: they are known as ours all the same.
        known = [there.instance(one) for one in instances if one in there]
        self._records.keep_deletions(self._transport.name, study, known)
        for identifier in instances:
            self._cancellation.check()
            try:
                self._transport.send(PeerRequest("DELETE", f"/instances/{identifier}", timeout=_TIMEOUT))
            except PeerStatus as error:
                if error.peer_status != 404:
                    raise

    def _there(self, here: Mapping[str, Manifest]) -> dict[str, Manifest]:
        """What the peer has of each of these studies."""
        owner = {one.id: study for study, manifest in here.items() for one in manifest}
        found = self._look_up(list(here)) if len(here) > 1 else None
        if found is None or any(one.id not in owner for one in found):
            # It cannot leave out what it does not have; or it has more, and one must know of which study.
            return {study: _manifest(self._look_up([study]) or ()) for study in here}
        there: dict[str, list[Instance]] = {study: [] for study in here}
        for one in found:
            there[owner[one.id]].append(one)
        return {study: _manifest(some) for study, some in there.items()}

    def _look_up(self, studies: Sequence[str]) -> tuple[Instance, ...] | None:
        """``None``: it does not have one of them, and cannot leave that out."""
        self._cancellation.check()
        wanted = [{"Level": Level.STUDY.value, "ID": study} for study in studies]
        try:
            return self._peer.look_up(wanted, timeout=_TIMEOUT, stored=True).instances
        except PeerStatus as error:
            if error.peer_status == 404:
                return None
            raise


def _is(manifest: Manifest, record: Record) -> bool:
    return manifest.fingerprint() == record.fingerprint


def _manifest(instances: Iterable[Instance]) -> Manifest:
    """In the order of manifests of this server, so that fingerprints can be compared."""
    return Manifest(sorted(instances, key=lambda one: one.id))
