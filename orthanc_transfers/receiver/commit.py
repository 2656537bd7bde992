"""All or nothing: verify an area, import it, or undo; through a crash as well.

    verify what is not verified yet ─▶ note on disk what Orthanc does not have ─▶ import ─▶ (outcome)
                                                     │                             │
                                     a process that dies from here on              └─▶ undo
                                     rolls forward at its next start

What Orthanc was given is forced to disk before anything is noted that rests on it: the outcome, or that all is undone.

Rolling forward, what is not in Orthanc yet is verified once more, because the bytes of the area are not
forced to disk (``area.py`` says why). If some turn out to be broken, what was imported is undone, and the
reception goes on receiving, or fails where the sender (version 1) cannot send anything again. What is in Orthanc is
verified too: a loss of power may leave an instance in its index whose file is gone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core import checksum
from orthanc_transfers.core.commit_report import InstanceOutcome
from orthanc_transfers.core.errors import Canceled, Corrupted, ImportRefused, TransferError
from orthanc_transfers.core.model import Instance
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.importer import VERDICT_TEXTS, Importer, Verdict
from orthanc_transfers.receiver.shared_instances import Claim, SharedInstances
from orthanc_transfers.receiver.writer import AreaWriter
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommitSummary:
    """How many instances a commit stored, found, or saw filtered out by the policy of this server."""

    stored: int
    already_stored: int
    filtered_out: int
    warnings: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """As told to the sender."""
        return {
            "Stored": self.stored,
            "AlreadyStored": self.already_stored,
            "FilteredOut": self.filtered_out,
        }

    def to_json(self) -> dict[str, Any]:
        """As kept on disk."""
        return {**self.counts(), "Warnings": list(self.warnings)}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> CommitSummary:
        """The inverse of ``to_json``."""
        return cls(
            value["Stored"], value["AlreadyStored"], value["FilteredOut"], tuple(value.get("Warnings", ()))
        )


def same_places(
    instances: Iterable[Instance], stored: Mapping[str, str | None], first: int = 0
) -> frozenset[int]:
    """The places, ``first`` being that of the first, of the instances that are stored with the MD5 they should have."""
    return frozenset(
        place for place, instance in enumerate(instances, first) if stored.get(instance.id) == instance.md5
    )


class Commit:
    """One attempt at committing an area, to which nothing is written any more.

    ``resumable``: missing bytes can be asked for again, and the sender understands a conflict.
    ``closing``: the server stops; everything is left as it is then. ``overlaps`` knows the commits beside it.
    """

    def __init__(
        self,
        area: Area,
        intake: AreaWriter,
        store: InstanceStore,
        *,
        resumable: bool,
        threads: int,
        closing: Cancellation,
        overlaps: SharedInstances,
    ) -> None:
        self._area = area
        self._manifest = area.manifest
        self._intake = intake
        self._store = store
        self._resumable = resumable
        self._threads = threads
        self._closing = closing
        self._overlaps = overlaps
        self._claim: Claim | None = None
        self._importer: Importer | None = None

    @property
    def begun(self) -> bool:
        """Whether the disk says that an import has begun, and was not undone."""
        return self._area.absent is not None

    @property
    def done(self) -> int:
        """Number of instances that are settled."""
        return 0 if self._importer is None else self._importer.done

    def outcomes(self) -> list[InstanceOutcome]:
        """What became of each instance, in the order of the manifest."""
        importer = self._importer
        return [
            InstanceOutcome(one, VERDICT_TEXTS[Verdict.PENDING])
            if importer is None
            else InstanceOutcome(
                one, VERDICT_TEXTS[Verdict(importer.verdicts[index])], importer.reasons.get(index)
            )
            for index, one in enumerate(self._manifest)
        ]

    def run(self, cancellation: Cancellation) -> CommitSummary:
        """Verify and import.

        Raises ``ImportRefused``: undone, for good.
        Raises ``Corrupted``, naming an instance whose bytes are missing or wrong: undone; they are missing
        now, to be sent again.
        Raises ``Canceled``: undone, with all bytes kept; unless the server stops, then ``begun`` tells
        whether there is something to go on with.
        """
        try:
            report = self._run(cancellation)
        except BaseException:
            self._release()
            raise
        assert self._claim is not None
        self._overlaps.succeed(self._claim)
        return report

    def _run(self, cancellation: Cancellation) -> CommitSummary:
        resumed = self.begun
        try:
            self._intake.quiesce()
            stored = self._store_before_restart(cancellation) if resumed else self._prepare(cancellation)
            return self._import(stored, resumed, cancellation)
        except Canceled:
            if not self._closing.requested:
                self._undo()
            raise
        except Corrupted as error:
            if not self._resumable and self.begun:
                raise self._refusal(error) from error
            if self._resumable and not self._intake.missing():
                raise self._refusal(error) from error  # an empty file whose MD5 is not that of nothing
            self._undo()
            raise
        except Exception as error:
            raise self._refusal(error) from error

    def _prepare(self, cancellation: Cancellation) -> dict[str, str | None]:
        """Verify everything, note what is absent. Answers what Orthanc has."""
        self._require_whole()
        self._verify(range(len(self._manifest)), cancellation)
        self._require_whole()
        stored = self._stored(cancellation)
        self._lose_vanished(stored)
        self._begin(frozenset(place for place, one in enumerate(self._manifest) if one.id not in stored))
        return stored

    def _begin(self, absent: frozenset[int]) -> None:
        """Note what was absent before, but for what other commits leave to this one or keep, now and later."""
        claim = self._claim
        assert claim is not None

        def note() -> None:
            brought = (absent | self._places(claim.inherited)) - self._places(claim.kept)
            if brought != self._area.absent:
                self._area.note_committing(brought)

        def note_change() -> None:
            try:
                note()
            except TransferError as error:
                # It is known in memory; only the death of the process before the end of this commit would matter.
                log.warning(
                    "a change of transfer %s by another one cannot be noted: %s", self._area.id, error
                )

        note()
        self._overlaps.begin(claim, note_change)

    def _places(self, identifiers: Iterable[str]) -> set[int]:
        return {self._manifest.index_of(identifier) for identifier in identifiers}

    def _release(self) -> None:
        """It counts on nothing any more, and what others left to it goes."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        self._overlaps.fail(claim, self._remove_inherited)
        if claim.inherited and not self._closing.requested:
            with contextlib.suppress(TransferError):
                self._store.sync()

    def _store_before_restart(self, cancellation: Cancellation) -> dict[str, str | None]:
        try:
            stored = self._stored(cancellation)
            assert self._area.absent is not None
            self._begin(self._area.absent)
            lost = self._delete_spoilt(stored, cancellation)
        except Exception:
            # What was imported before the restart cannot be known: whatever was absent then has to go.
            self._new_importer(resumed=True).undo(self._closing, blindly=True)
            raise
        return {identifier: md5 for identifier, md5 in stored.items() if identifier not in lost}

    def _delete_spoilt(self, stored: Mapping[str, str | None], cancellation: Cancellation) -> set[str]:
        """What this commit imported before the restart, and whose file is not what Orthanc's index says.

        A loss of power leaves such: during an undoing the file may be gone, and the index not know it yet.
        """
        spoilt: set[str] = set()

        def read_tcp_info(place: int) -> None:
            instance = self._manifest.instances[place]
            try:
                whole = checksum.md5(self._store.read(instance.id)) == (stored[instance.id] or instance.md5)
            except TransferError:
                whole = False
            if not whole:
                log.warning("the file of instance %s is lost or spoilt: imported again", instance.id)
                self._store.remove(instance.id)
                spoilt.add(instance.id)

        assert self._area.absent is not None
        brought = [place for place in self._area.absent if self._manifest.instances[place].id in stored]
        threads.run_all("transfers-verify", self._threads, brought, read_tcp_info, cancellation)
        return spoilt

    def _import(
        self, stored: Mapping[str, str | None], resumed: bool, cancellation: Cancellation
    ) -> CommitSummary:
        same = same_places(self._manifest, stored)
        wanted = [place for place in range(len(self._manifest)) if place not in same]
        present = frozenset(place for place in wanted if self._manifest.instances[place].id in stored)
        importer = self._importer = self._new_importer(resumed)
        importer.found(same, present)
        if resumed:
            self._lose_vanished(stored)
            self._verify(wanted, cancellation)
            self._require_whole()
        importer.run(wanted, present, cancellation)
        return self._report(importer)

    def _new_importer(self, resumed: bool) -> Importer:
        assert self._area.absent is not None
        return Importer(
            self._area,
            self._store,
            absent=self._area.absent,
            resumed=resumed,
            strict=self._resumable,
            threads=self._threads,
            take_back=self._take_back,
        )

    def _take_back(self, identifier: str) -> None:
        assert self._claim is not None
        self._overlaps.take_back(self._claim, identifier, self._store.remove)

    def _remove_inherited(self, identifier: str) -> None:
        if self._closing.requested:
            return  # this commit goes on at the next start
        try:
            self._store.remove(identifier)
        except Exception as error:  # noqa: BLE001  the others still have to go
            log.error("instance %s of an undone commit cannot be deleted: %s", identifier, error)

    def _stored(self, cancellation: Cancellation) -> dict[str, str | None]:
        # Before it looks: what goes from now on is known to be gone.
        self._claim = self._overlaps.claim(self._manifest)
        return self._store.md5s([instance.id for instance in self._manifest], cancellation)

    def _verify(self, places: Iterable[int], cancellation: Cancellation) -> None:
        unchecked = self._intake.unchecked(places)
        threads.run_all("transfers-verify", self._threads, unchecked, self._intake.check, cancellation)

    def _require_whole(self) -> None:
        flaw = self._intake.flaw()
        if flaw is not None:
            raise Corrupted(f"{flaw}; nothing was imported")

    def _lose_vanished(self, stored: Mapping[str, str | None]) -> None:
        # Instances whose bytes were not asked for, because Orthanc had them then.
        vanished = self._intake.stored - same_places(self._manifest, stored)
        if vanished:
            self._intake.lose(sorted(vanished))
            self._require_whole()

    def _undo(self) -> None:
        if self._importer is not None:
            self._importer.undo(self._closing)
        self._release()
        if self.begun:
            self._area.note_receiving()

    def _refusal(self, error: Exception) -> ImportRefused:
        # What goes wrong while everything is being closed is no outcome.
        self._closing.check()
        if self._importer is not None:
            self._importer.undo(self._closing)
        if not isinstance(error, TransferError):
            log.error("the commit of transfer %s failed", self._area.id, exc_info=error)
        return ImportRefused(str(error) or type(error).__name__)

    def _report(self, importer: Importer) -> CommitSummary:
        warnings = tuple(
            f"instance {self._manifest.instances[place].id}: {reason}"
            for place, reason in sorted(importer.reasons.items())
            if importer.verdicts[place] == Verdict.ALREADY_THERE
        )
        return CommitSummary(
            importer.verdicts.count(Verdict.STORED),
            importer.verdicts.count(Verdict.ALREADY_THERE),
            importer.verdicts.count(Verdict.FILTERED),
            warnings,
        )
