"""Imports the instances of an area into Orthanc, and undoes that.

What Orthanc returns for each instance is judged at once (``verdicts.py``), in the thread that imported it; the first
refusal stops all threads, and ``undo`` deletes exactly what this commit imported.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from orthanc_transfers.core.errors import ImportRefused, TransferError
from orthanc_transfers.core.model import Instance
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.interfaces import Imported, ImportStatus, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.import_log import ImportLog
from orthanc_transfers.receiver.ownership import Fenced, Ownership
from orthanc_transfers.receiver.unfinished_undo import NOTHING_KEPT
from orthanc_transfers.receiver.verdicts import CHANGED_HERE, Judge, Verdict
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_LARGE = 4 * 1024 * 1024
"""Bytes. Smaller instances are read into a buffer that their thread reuses: cheaper than a mapping, or new memory."""
_LONG = 16 * 1024 * 1024
"""Bytes. Instances from this size on are imported first, lest one thread is left alone with one at the end."""
_LONGEST_BATCH = 16
_SHORTEST_BATCH = 3
_BATCH_SIZE = 1024 * 1024
"""Instances, and bytes, that one thread imports before it takes others. The import log tells of all of them at once,
and five small instances are no work for five threads, which would only wait for the GIL and for Orthanc's index."""


class Importer:
    """The import of one area.

    Instances are named by their indices in the manifest. ``absent`` were not in Orthanc before; ``resumed``: an
    earlier import of this area was interrupted by the end of its process. ``take_back`` deletes an
    instance that was imported, by its identifier. ``log`` tells the next process of what this
    one died. ``ownership``: of the cluster, asked before each instance.
    """

    def __init__(
        self,
        area: Area,
        store: InstanceStore,
        *,
        absent: frozenset[int],
        resumed: bool,
        judge: Judge,
        threads: int,
        take_back: Callable[[str], None],
        log: ImportLog,
        ownership: Ownership,
    ) -> None:
        self._area = area
        self._manifest = area.manifest
        self._store = store
        self._absent = absent
        self._resumed = resumed
        self._judge_of = judge
        self._threads = threads
        self._take_back = take_back
        self._log = log
        self._ownership = ownership
        self._buffers = threading.local()
        self._foreign: list[str] = []
        self._quiet = threading.Condition()
        self._active = 0
        self._done = 0
        self._refused = False
        """Whether nothing more is to be imported."""
        self.verdicts = bytearray(len(self._manifest))
        """A ``Verdict`` for each instance, by index."""
        self.late: list[str] = []
        """Instances imported when another node of the cluster had taken the transfer over."""
        self.reasons: dict[int, str] = {}
        """One sentence for those instances that need one, by index."""

    @property
    def done(self) -> int:
        """Number of instances that are settled."""
        return self._done

    def found(self, same: Iterable[int], present: Iterable[int], changed: Container[int] = ()) -> None:
        """Mark the instances that are in Orthanc: with the right MD5, so that they need no import; with another.

        ``changed`` are those of ``same`` that this server changed when it stored them.

        What was absent when this commit began, and is there after a crash, was imported by this commit.
        """
        for index in same:
            if self._imported_before(index):
                self.verdicts[index] = Verdict.STORED
            elif index in changed:
                self.verdicts[index], self.reasons[index] = Verdict.CHANGED, CHANGED_HERE
            else:
                self.verdicts[index] = Verdict.ALREADY_THERE
            self._done += 1
        for index in present:
            if self._imported_before(index):
                self.verdicts[index] = Verdict.STORED

    def _imported_before(self, index: int) -> bool:
        return self._resumed and index in self._absent

    def run(
        self,
        indices: Iterable[int],
        suspects: frozenset[int],
        cancellation: Cancellation,
        ranks: Mapping[int, int] | None = None,
    ) -> None:
        """Import instances, and fsync Orthanc's index.

        ``suspects`` are stored with another MD5, and go first: what fails should fail early. ``ranks``: those of a
        lower rank before others.
        Raises ``ImportRefused``, naming the instance and the reason; ``Canceled``.
        """
        if self._log.exhausted:
            raise self._blame()
        ordered = self._ordered(list(indices), suspects, ranks or {})
        suspected = self._log.suspects
        # One after the other: should Orthanc die again, it is known of which.
        alone = [[index] for index in ordered if index in suspected]
        self._run(alone, 1, cancellation)
        rest = [index for index in ordered if index not in suspected]
        self._run(self._batches(rest), self._threads, cancellation)
        self._store.sync()

    def _run(self, batches: Sequence[Sequence[int]], count: int, cancellation: Cancellation) -> None:
        def work(batch: Sequence[int]) -> None:
            self._import_batch(batch, cancellation)

        threads.run_all("transfers-import", count, batches, work, cancellation)

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        """Divided into what a thread imports one after the other: small instances, a few at a time."""
        instances = self._manifest.instances
        length = min(_LONGEST_BATCH, max(_SHORTEST_BATCH, len(indices) // (4 * self._threads)))
        batches: list[list[int]] = []
        room = 0
        for index in indices:
            size = instances[index].size
            if not batches or size > room or len(batches[-1]) >= length:
                batches.append([])
                room = _BATCH_SIZE
            batches[-1].append(index)
            room -= size
        return batches

    def _ordered(
        self, indices: Sequence[int], suspects: frozenset[int], ranks: Mapping[int, int]
    ) -> list[int]:
        # The rest in the order of the area, which is how the kernel reads ahead.
        def urgency(index: int) -> tuple[bool, int, bool]:
            short = self._manifest.instances[index].size < _LONG
            return index not in suspects, ranks.get(index, 0), short

        return sorted(indices, key=urgency)

    def _blame(self) -> ImportRefused:
        """The refusal of an import during which Orthanc has died too often, marked at those it may have died of."""
        suspects = [index for index in sorted(self._log.suspects) if index < len(self._manifest)]
        for index in suspects:
            if self.verdicts[index] != Verdict.STORED:
                self.verdicts[index] = Verdict.REFUSED
            self.reasons[index] = "Orthanc ended while it was being imported"
        return self._log.refusal([self._manifest.instances[index].id for index in suspects])

    def undo(self, closing: Cancellation, *, blindly: bool = False) -> dict[str, int]:
        """Delete what this commit imported. ``blindly``: whatever was absent before, whether it is there or not.

        Returns what Orthanc could not delete, which is named in ``reasons`` too: identifier -> index in the manifest,
        or beyond its end. If Orthanc has died of a deletion already, that is all: they are to be deleted one by one.
        Raises ``Canceled`` if the server stops.
        """
        self._quiesce(closing)
        self._area.forget_imported()
        mine = [
            index
            for index in range(len(self._manifest))
            if index in self._absent and (blindly or self.verdicts[index] == Verdict.STORED)
        ]
        items = [(index, self._manifest.instances[index].id) for index in mine]
        items += enumerate(self._foreign, len(self._manifest))
        items = self._without_others(items)
        left: dict[str, int] = {}
        if self._log.deaths_deleting:
            for item in items:
                self._leave(item, left, "Orthanc ended while this was being undone")
            return left
        threads.run_all(
            "transfers-undo", self._threads, items, lambda item: self._remove(item, left), closing
        )
        try:
            # Or a power failure may bring them back, without their files, when nothing knows of them any more.
            self._store.sync()
        except TransferError as error:
            log.error("the deletions of an undone commit may not survive a power failure: %s", error)
        return left

    def _without_others(self, items: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """Those of ``items`` that are this commit's to delete in its cluster, and what others have left to it."""
        overlap = self._ownership.overlap(self._area.id, [identifier for _, identifier in items])
        for index, identifier in items:
            if identifier in overlap.kept and index < len(self._manifest):
                self.verdicts[index] = Verdict.UNDONE
                self.reasons[index] = "another transfer of this cluster brought it too, and has it now"
        mine = [item for item in items if item[1] not in overlap.kept]
        more = overlap.left - {identifier for _, identifier in mine}
        return mine + [(self._manifest.index_of(identifier), identifier) for identifier in sorted(more)]

    def found_pending(self, indices: Iterable[int]) -> None:
        """Mark what is still to be deleted again by the undo of an earlier transfer."""
        for index in indices:
            if self.verdicts[index] != Verdict.LEFT:
                self.verdicts[index] = Verdict.LEFT
                self.reasons[index] = (
                    "an earlier transfer, which failed, imported it, and could not delete it yet"
                )

    def _quiesce(self, closing: Cancellation) -> None:
        # After a cancellation an import may still be under way, and what it stores has to go as well.
        def wake() -> None:
            with self._quiet:
                self._quiet.notify_all()

        forget = closing.on_cancel(wake)
        try:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._active or closing.requested)
        finally:
            forget()
        closing.check()

    def _remove(self, item: tuple[int, str], left: dict[str, int]) -> None:
        index, identifier = item
        self._ownership.check()
        try:
            with self._log.deleting(index):
                self._take_back(identifier)
        except Exception as error:  # noqa: BLE001  the others still have to go
            self._leave(item, left, str(error))
            return
        if index < len(self._manifest):
            self.verdicts[index] = Verdict.UNDONE

    def _leave(self, item: tuple[int, str], left: dict[str, int], why: str) -> None:
        index, identifier = item
        log.info("instance %s of an undone commit cannot be deleted: %s", identifier, why)
        left[identifier] = index
        if index < len(self._manifest):
            self.verdicts[index] = Verdict.LEFT
            self.reasons[index] = f"imported, and could not be deleted again yet: {why}"

    # --- one instance

    def _import_batch(self, indices: Sequence[int], cancellation: Cancellation) -> None:
        with self._quiet:
            self._active += 1
        try:
            with self._log.importing(*indices):
                for index in indices:
                    if self._refused or cancellation.requested:
                        return
                    self._ownership.check()
                    self._import_and_judge(index)
        finally:
            with self._quiet:
                self._active -= 1
                self._quiet.notify_all()

    def _import_and_judge(self, index: int) -> None:
        instance = self._manifest.instances[index]
        try:
            with self._bytes(instance) as data:
                imported = self._store.add(data)
                self._still_mine(imported)
                verdict = self._judge(index, instance, data, imported)
        except Fenced:
            raise
        except ImportRefused as error:
            self._refuse(index, str(error))
        except TransferError as error:
            self._refuse(index, f"it could not be imported: {error}")
        else:
            self.verdicts[index] = verdict
            self._area.count_imported([instance.size])
            with self._quiet:
                self._done += 1

    def _still_mine(self, imported: Imported) -> None:
        """Raises ``Fenced``: another node of the cluster may have ended this transfer before the import."""
        try:
            self._ownership.check()
        except Fenced:
            if imported.status is ImportStatus.SUCCESS:
                self.late.append(imported.id)
            raise

    def _refuse(self, index: int, reason: str) -> None:
        self._refused = True
        # What was stored all the same must be known to the undo.
        if self.verdicts[index] != Verdict.STORED:
            self.verdicts[index] = Verdict.REFUSED
        self.reasons[index] = reason
        identifier = self._manifest.instances[index].id
        raise ImportRefused(f"instance {identifier} was refused, {NOTHING_KEPT}: {reason}") from None

    @contextmanager
    def _bytes(self, instance: Instance) -> Iterator[memoryview]:
        item = self._manifest.range_of(instance.id)
        if item.size >= _LARGE:
            with self._area.whole(item) as view:
                yield view
        else:
            yield self._read(item)

    def _read(self, item: Range) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "value", None)
        if buffer is None or len(buffer) < item.size:
            buffer = self._buffers.value = memoryview(bytearray(max(item.size, 64 * 1024)))
        return self._area.read(item, buffer)

    def _judge(self, index: int, instance: Instance, data: memoryview, imported: Imported) -> Verdict:
        if imported.id != instance.id and imported.status is ImportStatus.SUCCESS:
            self._remember_foreign(imported.id)
        verdict, reason = self._judge_of.judge(
            instance, data, imported, self._manifest, before=self._imported_before(index)
        )
        if reason is not None:
            self.reasons[index] = reason
        return verdict

    def _remember_foreign(self, identifier: str) -> None:
        # An instance that was not announced, or another one of the same transfer.
        if identifier not in self._manifest or self._manifest.index_of(identifier) in self._absent:
            self._foreign.append(identifier)
