"""All or nothing: verify an area, import it, or undo; through a crash as well.

    verify what is not verified yet ─▶ journal what Orthanc does not have ─▶ import ─▶ (outcome)
                                                     │                         │
                                  a process that dies from here on             └─▶ undo
                                  rolls forward at its next start

Orthanc's index is fsynced before the outcome, or the undo, is journalled. Rolling forward is in ``recovery.py``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping

from orthanc_transfers.core import dicom
from orthanc_transfers.core.commit_report import InstanceOutcome
from orthanc_transfers.core.errors import Canceled, Corrupted, ImportRefused, TransferError
from orthanc_transfers.core.model import Instance
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.changed_instances import ChangedInstances
from orthanc_transfers.receiver.commit_summary import CommitSummary, summarize
from orthanc_transfers.receiver.extras_commit import ExtrasCommit
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from orthanc_transfers.receiver.import_log import ImportLog
from orthanc_transfers.receiver.importer import Importer
from orthanc_transfers.receiver.ownership import Fenced, Ownership
from orthanc_transfers.receiver.recycling import Recycling
from orthanc_transfers.receiver.shared_instances import Claim, SharedInstances
from orthanc_transfers.receiver.undo_retries import UndoRetries
from orthanc_transfers.receiver.unfinished_undo import NO_EXTRAS, ExtrasLeft, told
from orthanc_transfers.receiver.verdicts import CHANGED_HERE, VERDICT_TEXTS, Judge, Verdict
from orthanc_transfers.receiver.writer import AreaWriter
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_BEGINNING = 1024
"""Bytes of a file that have its UID."""


def same_indices(
    instances: Iterable[Instance], stored: Mapping[str, str | None], first: int = 0
) -> frozenset[int]:
    """The indices, counted from ``first``, of the instances that are stored with the announced MD5."""
    return frozenset(
        index for index, instance in enumerate(instances, first) if stored.get(instance.id) == instance.md5
    )


class Commit:
    """One attempt at committing an area, to which nothing is written any more.

    ``resumable``: missing bytes can be asked for again, and the sender understands a conflict.
    ``closing``: the server stops, and everything is left as it is. ``shared`` knows the concurrent commits, ``changed``
    what this server made of what it stored, ``recycling`` the limits of Orthanc, if it has some. ``undo_retries``
    takes over what an undo cannot delete, ``fatal`` knows what Orthanc died of. ``extras`` are applied once all is
    imported. ``accept_renamed``: this server may change identifiers. ``ownership`` is asked before anything is changed:
    another node of the cluster may have the transfer.
    """

    resumed = False
    """Whether an earlier process began the import."""

    def __init__(
        self,
        area: Area,
        writer: AreaWriter,
        store: InstanceStore,
        *,
        resumable: bool,
        threads: int,
        closing: Cancellation,
        shared: SharedInstances,
        changed: ChangedInstances,
        accept_renamed: bool,
        undo_retries: UndoRetries,
        fatal: FatalInstances,
        ownership: Ownership,
        extras: ExtrasCommit,
        recycling: Recycling | None = None,
    ) -> None:
        self._area = area
        self._manifest = area.manifest
        self._writer = writer
        self._store = store
        self._resumable = resumable
        self._threads = threads
        self._closing = closing
        self._shared = shared
        self._recycling = recycling
        self._undo_retries = undo_retries
        self._fatal = fatal
        self._ownership = ownership
        self._extras = extras
        self._changed = changed
        self._judge = Judge(store, changed, strict=resumable, accept_renamed=accept_renamed)
        self._changed_before: frozenset[str] = frozenset()
        """Instances that were found as this server changed them."""
        self._claim: Claim | None = None
        self._log: ImportLog
        self._importer: Importer | None = None
        self._fenced = False
        self._blindly = False
        """Whether an undo cannot know what was imported."""
        self._extras_left = NO_EXTRAS
        self.undo_known = True
        """Whether the disk knows what an undo had to leave, so that the outcome may be journalled."""

    @property
    def begun(self) -> bool:
        """Whether the disk says that an import has begun, and was not undone."""
        return self._area.absent is not None

    @property
    def done(self) -> int:
        """Number of instances that are settled."""
        return 0 if self._importer is None else self._importer.done

    @property
    def late(self) -> list[str]:
        """Instances imported when another node of the cluster had taken the transfer over."""
        return [] if self._importer is None else self._importer.late

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
        whether there is an import to resume.
        Raises ``Fenced``: left as it is, to another node of the cluster.
        """
        try:
            with contextlib.ExitStack() as stack:
                summary = self._run(cancellation, stack)
        except BaseException as error:
            self._fenced |= isinstance(error, Fenced)
            self._release()
            raise
        assert self._claim is not None
        self._shared.succeed(self._claim)
        return summary

    def _run(self, cancellation: Cancellation, stack: contextlib.ExitStack) -> CommitSummary:
        try:
            self._writer.quiesce()
            self._log = stack.enter_context(ImportLog(self._area.directory, self._closing))
            stored = self._prepare(cancellation)
            return self._import(stored, cancellation)
        except Canceled:
            if not self._closing.requested:
                self._undo()
            raise
        except Corrupted as error:
            if not self._resumable and self.begun:
                raise self._refusal(error) from error
            if self._resumable and not self._writer.missing():
                raise self._refusal(error) from error  # an empty file with an MD5 that no empty file has
            self._undo()
            raise
        except Fenced:
            raise
        except Exception as error:
            raise self._refusal(error) from error

    def _prepare(self, cancellation: Cancellation) -> dict[str, str | None]:
        """Verify everything, journal what is absent. Returns the MD5s of what Orthanc has."""
        self._require_complete()
        self._verify(range(len(self._manifest)), cancellation)
        self._require_complete()
        self._extras.verify()
        stored = self._look_up(cancellation)
        self._lose_vanished(stored)
        self._begin(frozenset(index for index, one in enumerate(self._manifest) if one.id not in stored))
        return stored

    def _begin(self, absent: frozenset[int]) -> None:
        """Journal what was absent, adjusted by what concurrent commits leave to this one or keep, now and later."""
        claim = self._claim
        assert claim is not None

        def journal() -> None:
            brought = (absent | self._indices(claim.inherited)) - self._indices(claim.kept)
            if brought != self._area.absent:
                self._ownership.begin_import(self._area.id, brought)
                self._area.journal_committing(brought)

        def journal_change() -> None:
            try:
                journal()
            except TransferError as error:
                # It is known in memory; only the death of the process before the end of this commit would matter.
                log.warning(
                    "transfer %s: a change made by a concurrent commit could not be journalled; should this"
                    " server be killed before the commit ends, an instance may be left over or missing: %s",
                    self._area.id,
                    error,
                )

        journal()
        self._shared.begin(claim, journal_change)

    def _indices(self, identifiers: Iterable[str]) -> set[int]:
        return {self._manifest.index_of(identifier) for identifier in identifiers}

    def _release(self) -> None:
        """Give the claim up, and remove what other commits left to this one."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        self._shared.fail(claim, self._remove_inherited)
        if claim.inherited and not self._closing.requested:
            with contextlib.suppress(TransferError):
                self._store.sync()

    def _import(self, stored: Mapping[str, str | None], cancellation: Cancellation) -> CommitSummary:
        same = same_indices(self._manifest, stored)
        wanted = [index for index in range(len(self._manifest)) if index not in same]
        present = frozenset(index for index in wanted if self._manifest.instances[index].id in stored)
        importer = self._importer = self._new_importer()
        importer.found(same, present, self._indices(self._changed_before))
        instances = self._manifest.instances
        self._area.forget_imported()
        self._area.count_imported([instances[index].size for index in same - self._writer.stored])
        if self._log.exhausted:
            self._fatal.record(instances[index] for index in self._log.culprits if index < len(instances))
        else:
            self._fatal.check(instances[index] for index in wanted)
        self._verify_again(stored, wanted, cancellation)
        ranks = None
        if self._recycling is not None:
            ranks = self._recycling.ranks(self._area, wanted, same, cancellation)
        importer.run(wanted, present, cancellation, ranks)
        if self._recycling is not None:
            self._recycling.require_kept(self._manifest, importer, cancellation)
        self._record_changes(importer, cancellation)
        if self._extras.apply(self._manifest, cancellation, self._undo_retries.keep_extras):
            self._store.sync()
        summary = summarize(self._area.id, self._manifest, importer.verdicts, importer.reasons)
        return summary.with_extras(self._extras.counts, self._extras.warnings)

    def _verify_again(
        self, stored: Mapping[str, str | None], wanted: Iterable[int], cancellation: Cancellation
    ) -> None:
        """Look once more at what an earlier process verified; nothing to do if this one has done so."""

    def _new_importer(self) -> Importer:
        assert self._area.absent is not None
        return Importer(
            self._area,
            self._store,
            absent=self._area.absent,
            resumed=self.resumed,
            judge=self._judge,
            threads=self._threads,
            take_back=self._take_back,
            log=self._log,
            ownership=self._ownership,
        )

    def _take_back(self, identifier: str) -> None:
        assert self._claim is not None
        self._shared.take_back(self._claim, identifier, self._store.remove)

    def _remove_inherited(self, identifier: str) -> None:
        if self._closing.requested or self._fenced:
            return  # this commit goes on at the next start, or on another node
        self._ownership.check()
        try:
            self._store.remove(identifier)
        except Exception as error:  # noqa: BLE001  the others still have to go
            log.info("instance %s of an undone commit cannot be deleted: %s", identifier, error)
            self._undo_retries.leave_inherited(self._area.id, self._manifest, identifier)

    def _look_up(self, cancellation: Cancellation) -> dict[str, str | None]:
        """Claim the instances, and return the MD5s of those that Orthanc has, as they were sent if it changed them."""
        # Claimed before the look: what is deleted from now on is known to be.
        self._claim = self._shared.claim(self._manifest)
        self._ownership.begin_commit(self._area.id, self._manifest)
        at_hand = self._area.in_memory and not self._area.bytes_lost
        stored = self._store.md5s(
            [one.id for one in self._manifest], cancellation, self._uid_of if at_hand else None
        )
        sent = self._changed.announced_md5s(self._manifest, stored)
        self._changed_before = frozenset(sent)
        return stored | sent

    def _uid_of(self, identifier: str) -> str | None:
        item = self._manifest.range_of(identifier)
        beginning = Range(item.start, min(item.stop, item.start + _BEGINNING))
        return dicom.instance_uid(self._area.read(beginning, memoryview(bytearray(beginning.size))))

    def _record_changes(self, importer: Importer, cancellation: Cancellation) -> None:
        """Remember what this server made of what it has stored now, where that is something else."""
        fresh = {
            one.id: index
            for index, one in enumerate(self._manifest)
            if importer.verdicts[index] in (Verdict.STORED, Verdict.LEFT)
        }
        stored = self._store.md5s(fresh, cancellation)
        changes = []
        for identifier, md5 in stored.items():
            index = fresh[identifier]
            instance = self._manifest.instances[index]
            if md5 is not None and md5 != instance.md5:
                changes.append((instance, md5))
                importer.reasons.setdefault(index, CHANGED_HERE)
        self._changed.record(changes)

    def _verify(self, indices: Iterable[int], cancellation: Cancellation) -> None:
        unchecked = self._writer.unchecked(indices)
        threads.run_all("transfers-verify", self._threads, unchecked, self._writer.check, cancellation)

    def _require_complete(self) -> None:
        flaw = self._writer.flaw()
        if flaw is not None:
            raise Corrupted(f"{flaw}; nothing was imported")

    def _lose_vanished(self, stored: Mapping[str, str | None]) -> None:
        # Instances whose bytes were not asked for, because Orthanc had them then.
        vanished = self._writer.stored - same_indices(self._manifest, stored)
        if vanished:
            self._writer.lose(sorted(vanished))
            self._require_complete()

    def _undo(self) -> None:
        self._take_all_back(None)
        self._release()
        if self.undo_known:
            self._ownership.back_to_receiving(self._area.id)
            if self.begun:
                self._area.journal_receiving()
        self._undo_retries.release(self._area.id)

    def _take_all_back(self, error: str | None) -> int:
        """Take back all that this commit did. Returns of how many instances that has to be tried again.

        Raises ``Fenced``.
        """
        self._ownership.check()
        self._put_extras_back(error)
        if self._importer is None:
            return 0
        left = self._importer.undo(self._closing, blindly=self._blindly)
        if error is not None:
            # What an earlier transfer brought, and could not delete yet, was never there for good.
            pending = self._undo_retries.pending(self._manifest)
            self._importer.found_pending(pending.values())
            left = {**pending, **left}
        if not left:
            return 0
        assert self._claim is not None
        with contextlib.suppress(TransferError):
            # Should a later transfer count on it: what this server made of it.
            self._record_changes(self._importer, self._closing)
        count, known = self._undo_retries.leave(
            self._area.id, self._claim, left, error, self._log.deaths_deleting
        )
        self.undo_known = self.undo_known and known
        return count

    def _put_extras_back(self, error: str | None) -> None:
        left = self._extras_left = ExtrasLeft(*self._extras.undo(self._store.sync))
        if left.left:
            self.undo_known = self._undo_retries.leave_extras(
                self._area.id, len(self._manifest), error, left, self._extras.leave
            )

    def _refusal(self, error: Exception) -> ImportRefused:
        # An error while everything is being closed is no outcome; nor is one of a node that was stopped, whose
        # successor works on these very bytes.
        self._closing.check()
        self._ownership.check()
        text = str(error) or type(error).__name__
        if self._importer is not None:
            with contextlib.suppress(TransferError):
                self._area.give_back()  # where all is on one disk, that is full, nothing can be deleted before
        left = self._take_all_back(text)
        if not isinstance(error, TransferError):
            log.error("the commit of transfer %s failed", self._area.id, exc_info=error)
        return ImportRefused(told(text, left, len(self._manifest), extras=self._extras_left))
