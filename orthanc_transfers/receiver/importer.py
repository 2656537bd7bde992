"""Bringing the instances of an area into Orthanc, and taking them back.

What Orthanc says of each instance is judged at once, in the thread that imported it; the first refusal stops
all threads, and ``undo`` takes back exactly what this commit brought.

    Success                                    stored
    AlreadyStored, same MD5                    already there
    AlreadyStored, another transfer syntax     already there: the same image in another encoding
    AlreadyStored, other bytes                 a conflict: refused (version 1: a warning)
    FilteredOut                                counts: the policy of this server; named in the report
    another identifier than the manifest's     refused
    an error                                   refused
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from orthanc_transfers.core import checksum, dicom
from orthanc_transfers.core.errors import ImportRefused, TransferError
from orthanc_transfers.core.model import Instance
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.interfaces import Imported, ImportStatus, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_MAPPED_FROM = 4 * 1024 * 1024
"""Bytes. Smaller instances are read into a buffer that their thread uses again: cheaper than a mapping."""
_LONG = 16 * 1024 * 1024
"""Bytes. Instances from here on are imported first, lest one thread is left alone with one at the end."""


class Verdict(enum.IntEnum):
    """What became of an instance."""

    PENDING = 0
    STORED = 1
    ALREADY_THERE = 2
    FILTERED = 3
    REFUSED = 4
    UNDONE = 5


VERDICT_TEXTS = {
    Verdict.PENDING: "not imported",
    Verdict.STORED: "stored",
    Verdict.ALREADY_THERE: "already there",
    Verdict.FILTERED: "filtered",
    Verdict.REFUSED: "refused",
    Verdict.UNDONE: "undone",
}


class Importer:
    """The import of one area.

    ``absent`` are the places of the instances that were not in Orthanc before, ``resumed`` says that an
    earlier import of this area was cut short by the end of its process. ``strict``: a conflict is a refusal.
    ``take_back`` deletes an instance that was brought.
    """

    def __init__(
        self,
        area: Area,
        store: InstanceStore,
        *,
        absent: frozenset[int],
        resumed: bool,
        strict: bool,
        threads: int,
        take_back: Callable[[str], None],
    ) -> None:
        self._area = area
        self._manifest = area.manifest
        self._store = store
        self._absent = absent
        self._resumed = resumed
        self._strict = strict
        self._threads = threads
        self._take_back = take_back
        self._buffers = threading.local()
        self._foreign: list[str] = []
        self._quiet = threading.Condition()
        self._active = 0
        self._done = 0
        self.verdicts = bytearray(len(self._manifest))
        """A ``Verdict`` for each place of the manifest."""
        self.reasons: dict[int, str] = {}
        """One sentence for those places that need one."""

    @property
    def done(self) -> int:
        """Number of instances that are settled."""
        return self._done

    def found(self, same: Iterable[int], present: Iterable[int]) -> None:
        """Say which instances are in Orthanc: with the right MD5, so that they need no import; with another.

        What was absent when this commit began, and is there after a crash, is what this commit brought.
        """
        for place in same:
            self.verdicts[place] = Verdict.STORED if self._brought_before(place) else Verdict.ALREADY_THERE
            self._done += 1
        for place in present:
            if self._brought_before(place):
                self.verdicts[place] = Verdict.STORED

    def _brought_before(self, place: int) -> bool:
        return self._resumed and place in self._absent

    def run(self, places: Iterable[int], suspects: frozenset[int], cancellation: Cancellation) -> None:
        """Import instances, and see them safe from a loss of power.

        ``suspects`` are stored with another MD5: what fails should fail early.
        Raises ``ImportRefused``, naming the instance and the reason; ``Canceled``.
        """
        threads.run_all(
            "transfers-import",
            self._threads,
            self._ordered(list(places), suspects),
            self._import_one,
            cancellation,
        )
        self._store.sync()

    def _ordered(self, places: Sequence[int], suspects: frozenset[int]) -> list[int]:
        # The rest in the order of the area, which is how the kernel reads ahead.
        def urgency(place: int) -> int:
            if place in suspects:
                return 0
            return 1 if self._manifest.instances[place].size >= _LONG else 2

        return sorted(places, key=urgency)

    def undo(self, closing: Cancellation, *, blindly: bool = False) -> None:
        """Delete what this commit brought. ``blindly``: whatever was absent before, if it is there or not.

        What Orthanc cannot delete is logged and named in the reasons.
        Raises ``Canceled`` if the server stops.
        """
        self._quiesce(closing)
        mine = [
            place
            for place in range(len(self._manifest))
            if place in self._absent and (blindly or self.verdicts[place] == Verdict.STORED)
        ]
        identifiers = [(place, self._manifest.instances[place].id) for place in mine]
        identifiers += [(-1, identifier) for identifier in self._foreign]
        threads.run_all("transfers-undo", self._threads, identifiers, self._remove, closing)
        try:
            # Or a loss of power may bring them back, without their files, when nobody looks after them any more.
            self._store.sync()
        except TransferError as error:
            log.error("the deletions of an undone commit may not survive a loss of power: %s", error)

    def _quiesce(self, closing: Cancellation) -> None:
        # After a cancellation an import may still be under way, and what it brings has to go as well.
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

    def _remove(self, item: tuple[int, str]) -> None:
        place, identifier = item
        try:
            self._take_back(identifier)
        except Exception as error:  # noqa: BLE001  the others still have to go
            log.error("instance %s of an undone commit cannot be deleted: %s", identifier, error)
            if place >= 0:
                self.reasons[place] = f"imported, and could not be deleted again: {error}"
            return
        if place >= 0:
            self.verdicts[place] = Verdict.UNDONE

    # --- one instance

    def _import_one(self, place: int) -> None:
        with self._quiet:
            self._active += 1
        try:
            self._import_and_judge(place)
        finally:
            with self._quiet:
                self._active -= 1
                self._quiet.notify_all()

    def _import_and_judge(self, place: int) -> None:
        instance = self._manifest.instances[place]
        try:
            with self._bytes(instance) as data:
                imported = self._store.add(data)
                verdict = self._judge(place, instance, data, imported)
        except ImportRefused as error:
            self._refuse(place, str(error))
        except TransferError as error:
            self._refuse(place, f"it could not be imported: {error}")
        else:
            self.verdicts[place] = verdict
            with self._quiet:
                self._done += 1

    def _refuse(self, place: int, reason: str) -> None:
        # What was stored all the same must be known to the undoing.
        if self.verdicts[place] != Verdict.STORED:
            self.verdicts[place] = Verdict.REFUSED
        self.reasons[place] = reason
        identifier = self._manifest.instances[place].id
        raise ImportRefused(f"instance {identifier} was refused, nothing was kept: {reason}") from None

    @contextmanager
    def _bytes(self, instance: Instance) -> Iterator[memoryview]:
        item = self._manifest.range_of(instance.id)
        if item.size >= _MAPPED_FROM:
            with self._area.mapped(item) as view:
                yield view
        else:
            yield self._read(item)

    def _read(self, item: Range) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "value", None)
        if buffer is None or len(buffer) < item.size:
            buffer = self._buffers.value = memoryview(bytearray(max(item.size, 64 * 1024)))
        return self._area.read(item, buffer)

    def _judge(self, place: int, instance: Instance, data: memoryview, imported: Imported) -> Verdict:
        if imported.status is ImportStatus.FILTERED_OUT:
            self.reasons[place] = "this server's policy does not keep it"
            return Verdict.FILTERED
        if imported.id != instance.id:
            if imported.status is ImportStatus.SUCCESS:
                self._keep_in_mind(imported.id)
            raise ImportRefused(f"it is not what it was announced as, but instance {imported.id}")
        if imported.status is ImportStatus.SUCCESS:
            return Verdict.STORED
        return self._judge_present(place, instance, data)

    def _keep_in_mind(self, identifier: str) -> None:
        # What nobody announced, or another instance of the same transfer.
        if identifier not in self._manifest or self._manifest.index_of(identifier) in self._absent:
            self._foreign.append(identifier)

    def _judge_present(self, place: int, instance: Instance, data: memoryview) -> Verdict:
        stored = self._store.md5s([instance.id]).get(instance.id)
        if stored is None:
            # The index holds no MD5s (StoreMD5ForAttachments is off): the file tells.
            stored = checksum.md5(self._store.read(instance.id))
        if stored == instance.md5:
            return Verdict.STORED if self._brought_before(place) else Verdict.ALREADY_THERE
        if self._brought_before(place):
            self.reasons[place] = "stored before a restart, and changed on import by this server"
            return Verdict.STORED
        theirs, ours = self._store.transfer_syntax(instance.id), dicom.transfer_syntax(data)
        if theirs is not None and ours is not None and theirs != ours:
            self.reasons[place] = f"stored in another transfer syntax, {theirs} instead of {ours}"
            return Verdict.ALREADY_THERE
        reason = "it is stored here already with other content, and Orthanc keeps the one it has"
        if self._strict:
            raise ImportRefused(reason)
        log.warning("instance %s: %s", instance.id, reason)
        self.reasons[place] = reason
        return Verdict.ALREADY_THERE
