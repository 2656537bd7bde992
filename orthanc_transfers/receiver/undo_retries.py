"""Tries undos again that Orthanc did not let finish, until they succeeded: with exponential backoff, and at each start.

What is left of such an undo is in Orthanc meanwhile. A transfer that counts on some of it keeps it, if it succeeds;
nothing of it is deleted while that one is being committed. What somebody deletes and stores anew stays. What Orthanc
dies of twice while it deletes it is left alone, and named.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.extras import Extra
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.interfaces import ExtrasStore, InstanceStore
from orthanc_transfers.receiver.import_log import MAX_DEATHS, ImportLog
from orthanc_transfers.receiver.leftovers import Fate, Leftovers
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import Claim, SharedInstances
from orthanc_transfers.receiver.unfinished_undo import GIVEN_UP, ExtrasLeft, Leftover, Settled, UnfinishedUndo
from orthanc_transfers.receiver.verdicts import VERDICT_TEXTS, Verdict
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_BACKOFF = Backoff(retries=0, first=1.0, ceiling=60.0)

_UNDONE = Settled(VERDICT_TEXTS[Verdict.UNDONE], None)
_STUCK = Settled(VERDICT_TEXTS[Verdict.LEFT], GIVEN_UP)
_ANOTHERS = Settled(VERDICT_TEXTS[Verdict.UNDONE], "deleted, and stored anew by others since")
_KEPT = "a later transfer has succeeded with it"


class UndoRetries:
    """The unfinished undos of this server, in a folder. Thread-safe. Reads what an earlier process left.

    ``closing``: the server stops. ``leftovers``: what the cluster knows of them. ``corrected`` is called with each
    commit report that says something else now. ``extras``: where labels, metadata and attachments are.
    """

    def __init__(
        self,
        directory: Path,
        store: InstanceStore,
        reports: Reports,
        shared: SharedInstances,
        closing: Cancellation,
        leftovers: Leftovers,
        corrected: Callable[[dict[str, Any]], None] = lambda report: None,
        extras: ExtrasStore | None = None,
    ) -> None:
        self._corrected = corrected
        self._extras = extras
        self._directory = directory
        self._store = store
        self._reports = reports
        self._shared = shared
        self._closing = closing
        self._leftovers = leftovers
        self._lock = threading.Lock()
        self._round = threading.Lock()
        self._undos: dict[str, UnfinishedUndo] = {}
        self._held: set[str] = set()
        self._attempts = 0
        self._retries = threads.Periodic("transfers-undo-retries", self._delay, self.try_all)
        shared.on_kept(self._keep)
        if directory.is_dir():
            for path in sorted(directory.iterdir()):
                self._load(path)

    def adopt(self, folder: Path) -> None:
        """Take over the undos of another node of the cluster, which is gone."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(path, self._directory / path.name)
            self._load(self._directory / path.name)
        self.start()

    def _load(self, path: Path) -> None:
        try:
            self._undos[path.name] = UnfinishedUndo.load(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what is left of an undo in %s cannot be read, see there: %r", path, error)

    @property
    def _all(self) -> list[UnfinishedUndo]:
        with self._lock:
            return list(self._undos.values())

    # --- what could not be deleted

    def leave(
        self,
        transfer: str,
        claim: Claim,
        left: Mapping[str, int],
        error: str | None,
        deaths: Mapping[int, int],
    ) -> tuple[int, bool]:
        """Take over what a commit imported and could not delete: identifier -> index in its manifest.

        ``error``: why it failed, unless it goes on receiving. ``deaths`` of Orthanc while it deleted, by index.
        Nothing is tried before ``release``. Returns how many instances are left, and whether the disk knows of them.
        """
        items = {one: Leftover(index, one, self._received(one), deaths[index]) for one, index in left.items()}
        self._leftovers.leave(transfer, items)
        done = (0, True)

        def keep(identifiers: Collection[str]) -> None:
            nonlocal done
            mine = [item for one, item in items.items() if one in identifiers]
            if mine:
                done = len(mine), self._take(transfer, len(claim.manifest), error, mine)

        self._shared.leave_behind(claim, items, keep)
        return done

    def leave_inherited(self, transfer: str, manifest: Manifest, identifier: str) -> None:
        """The same for what another commit had left to this one to delete. Called with the lock of the shared held."""
        self._leftovers.leave(transfer, [identifier])
        item = Leftover(manifest.index_of(identifier), identifier, self._received(identifier))
        with self._lock:
            known = self._undos.get(transfer)
        self._take(transfer, len(manifest), None if known is None else known.error, [item])

    def pending(self, manifest: Manifest) -> dict[str, int]:
        """What is still to be deleted of those instances, with their indices."""
        names = {item.id for undo in self._all for item in undo.left}
        return {one: manifest.index_of(one) for one in names if one in manifest}

    def _received(self, identifier: str) -> str | None:
        for undo in self._all:
            known = undo.find(identifier)
            if known is not None:
                return known.received
        try:
            return self._store.received(identifier)
        except TransferError:
            return None

    def leave_extras(
        self,
        transfer: str,
        total: int,
        error: str | None,
        left: ExtrasLeft,
        hand_over: Callable[[Path], None],
    ) -> bool:
        """Take over labels, metadata and attachments that a commit could not put back.

        ``hand_over`` moves their plan into a folder. Returns whether the disk knows of them.
        """
        with self._lock:
            undo = self._held_undo(transfer, total, error)
        durable = undo.extend_extras(error, left)
        try:
            hand_over(undo.beside.next_folder)
        except (TransferError, OSError) as trouble:
            log.error("what is to be put back of transfer %s stays in its folder: %s", transfer, trouble)
            return False
        return durable

    def keep_extras(self, items: Collection[Extra]) -> None:
        """Leave alone what another transfer is about to succeed with. To be called while no items are put back."""
        for undo in self._all if items else ():
            if undo.extras.left:
                with contextlib.suppress(TransferError, OSError, ValueError, KeyError):
                    undo.beside.leave_alone(items)

    def _held_undo(self, transfer: str, total: int, error: str | None) -> UnfinishedUndo:
        """That of a transfer, not to be tried before ``release``. Called with the lock held."""
        self._held.add(transfer)
        undo = self._undos.get(transfer)
        if undo is None:
            undo = self._undos[transfer] = UnfinishedUndo(
                self._directory / transfer, total=total, error=error, left=[]
            )
        self._attempts = max(self._attempts, 1)
        return undo

    def _take(self, transfer: str, total: int, error: str | None, left: Collection[Leftover]) -> bool:
        with self._lock:
            undo = self._held_undo(transfer, total, error)
        durable = undo.extend(error, left)
        log.error(
            "%d instances of transfer %s, which is undone, could not be deleted: that is tried again until it"
            " succeeded%s",
            len(left),
            transfer,
            ""
            if durable
            else "; should this server end before, at the next start, for it cannot be written to disk",
        )
        return durable

    def release(self, transfer: str) -> None:
        """The commit is over, and its report written: from now on it is tried again."""
        with self._lock:
            if transfer not in self._held:
                return
            self._held.discard(transfer)
        self.start()

    def _keep(self, manifest: Manifest) -> None:
        for undo in self._all:
            undo.keep(manifest, _KEPT)

    # --- trying again

    def start(self) -> None:
        """Try again from now on, those that an earlier process left at once. To be called once Orthanc has started."""
        if self._undos and not self._closing.requested:
            self._retries.start()

    def _delay(self) -> float | None:
        with self._lock:
            if not self._undos.keys() - self._held:
                return None
            return _BACKOFF.seconds(self._attempts - 1, random.random()) if self._attempts else 0.0

    def try_all(self) -> None:
        """One attempt at each. Never raises because of Orthanc."""
        with self._lock:
            undos = [undo for undo in self._undos.values() if undo.id not in self._held]
            self._attempts += 1
        for undo in undos:
            if self._closing.requested:
                return
            with self._round:
                self._try(undo)

    def _try(self, undo: UnfinishedUndo) -> None:
        if not undo.durable:
            undo.save()
        put_back, refused = self._put_back(undo)
        settled, trouble = self._delete(undo)
        trouble = trouble or refused
        try:
            if settled:
                self._store.sync()
        except TransferError as error:
            trouble = str(error)  # or a power failure would bring them back, and nothing would know of them
        else:
            undo.settle(settled)
        if settled or put_back:
            with self._lock:
                self._attempts = 1
        if trouble is not None:
            level = logging.WARNING if self._attempts <= 1 else logging.INFO
            log.log(level, "the undo of transfer %s is not finished yet: %s", undo.id, trouble)
        self._report(undo)
        with self._lock:
            over = undo.over and undo.id not in self._held
            if over:
                del self._undos[undo.id]
        if over and not self._closing.requested:
            self._leftovers.forget(undo.id)
            undo.delete()
            log.warning("the undo of transfer %s is finished now: %s", undo.id, undo.text or "all is deleted")

    def _put_back(self, undo: UnfinishedUndo) -> tuple[bool, str | None]:
        """Put labels, metadata and attachments back. Returns whether any was settled, and why others were refused."""
        before = undo.extras.left
        if not before or self._extras is None:
            return False, None
        refused: str | None = None
        try:
            refused = next(iter(undo.beside.put_back(self._extras, self._store.sync)), None)
            undo.count_extras()
        except (TransferError, OSError, ValueError, KeyError) as error:
            refused = str(error)
        return undo.extras.left < before, refused

    def _delete(self, undo: UnfinishedUndo) -> tuple[dict[str, Settled], str | None]:
        """Delete what is left, until something cannot be. Returns what is settled now, and why not all."""
        settled: dict[str, Settled] = {}
        with contextlib.ExitStack() as stack:
            deaths: Mapping[int, int] = {}
            import_log = None
            with contextlib.suppress(TransferError):
                import_log = stack.enter_context(ImportLog(undo.directory, self._closing))
                deaths = import_log.deaths_deleting
            died = {one.id: one.deaths + deaths.get(one.index, 0) for one in undo.left}
            # Those that Orthanc may have died of last: the others are deleted then.
            for item in sorted(undo.left, key=lambda one: died[one.id]):
                if self._closing.requested:
                    break
                if died[item.id] >= MAX_DEATHS:
                    log.error("instance %s of transfer %s: %s", item.id, undo.id, GIVEN_UP)
                    settled[item.id] = _STUCK
                    for other in self._all:
                        other.settle({item.id: _STUCK})
                    continue
                try:
                    with import_log.deleting(item.index) if import_log else contextlib.nullcontext():
                        outcome = self._settle(undo, item)
                except Exception as error:  # noqa: BLE001  whatever it is, it is tried again
                    undo.postpone(item)
                    return settled, f"instance {item.id} cannot be deleted: {error}"
                if outcome is not None:
                    settled[item.id] = outcome
        return settled, None

    def _settle(self, undo: UnfinishedUndo, item: Leftover) -> Settled | None:
        """What becomes of an instance; ``None`` while a commit that is running counts on it."""
        received = self._store.received(item.id)
        if received is None:
            return _UNDONE
        if item.received and received != item.received:
            return _ANOTHERS
        fate = self._leftovers.begin(undo.id, item.id)
        if fate is Fate.KEEP:
            return Settled(VERDICT_TEXTS[Verdict.STORED], _KEPT)
        if fate is Fate.WAIT:
            return None
        try:
            return self._remove(undo, item)
        finally:
            self._leftovers.end(undo.id, item.id)

    def _remove(self, undo: UnfinishedUndo, item: Leftover) -> Settled | None:
        outcome: Settled | None = None

        def remove() -> None:
            nonlocal outcome
            if undo.find(item.id) is not None:  # a transfer may have succeeded with it since
                self._leftovers.check()
                self._store.remove(item.id)
                outcome = _UNDONE

        self._shared.remove_unclaimed(item.id, remove)
        return outcome

    def _report(self, undo: UnfinishedUndo) -> None:
        """Let the commit report say how it stands."""
        settled, text = undo.settled, undo.text
        told = text is not None and (settled or undo.extras.total)
        report = self._reports.read(undo.id) if told else None
        if report is None or report.get("State") != PushState.FAILED.value:
            return
        before = json.dumps(report)
        for row in report["Instances"]:
            if row["ID"] in settled:
                row["Outcome"], reason = settled[row["ID"]]
                row.pop("Reason", None)
                if reason is not None:
                    row["Reason"] = reason
        report["Error"] = text
        if json.dumps(report) == before:
            return
        try:
            self._reports.correct(report)
        except OSError as error:
            log.warning("the commit report of transfer %s cannot be written: %s", undo.id, error)
        self._corrected(report)

    def close(self, deadline: float) -> None:
        """Stop. Waits for a deletion until then, by the monotonic clock."""
        self._retries.close()
        if self._round.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._round.release()
