"""The staging directory: its lock, its quota, and the transfers found in it after a restart.

root/
  lock                 held by the Orthanc that uses this folder
  <32 hex digits>/     one incoming transfer: area, manifest, journal (see ``area.py``)
  history/             index of ended transfers (see ``ledger/past_transfers.py``)
  rules/               queue of the rules (see ``rules/database.py``)
  settings.json        what was set at run time (see ``net/throttle.py``)
  sent/                pushes of version 1 that this server sends (see ``jobs/ack_log.py``)
  fatal                instances whose import ended Orthanc (see ``fatal_instances.py``)
  undos/               what is still to be deleted of transfers that failed (see ``unfinished_undo.py``)
  in-memory/           transfers whose bytes are in memory only (see ``memory_staging.py``)
  node                 number of this server's last start in its cluster (see ``clustering.py``)
  set-aside/           what was found here and is not a transfer of this version
  server-N/            the same again, for another Orthanc that shares the folder
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc_transfers.core.disk_room import Demand, OrthancDisks, shortage
from orthanc_transfers.core.errors import BadFile, ConfigurationError, NoSpace
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.interfaces import Clock, Disks
from orthanc_transfers.receiver.area import JOURNAL, Area
from orthanc_transfers.receiver.disk_errors import disk_error
from orthanc_transfers.receiver.memory_staging import MemoryStaging
from orthanc_transfers.receiver.staging_lock import LOCK, claim_folder
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.files import disk_of

log = logging.getLogger(__name__)

SET_ASIDE = "set-aside"
CHANGED = "changed"
"""Folder with what this server changed in what it stored (``changed_instances.py``)."""
FATAL = "fatal"
"""File of the instances whose import ended Orthanc (``fatal_instances.py``)."""
UNDOS = "undos"
"""Folder of what undos could not delete yet (``unfinished_undo.py``)."""
SENT = "sent"
"""Folder of the buckets acknowledged to pushes of version 1 that this server sends (``jobs/ack_log.py``)."""
HISTORY = "history"
"""Folder with the index of ended transfers (``ledger/past_transfers.py``)."""
RULES = "rules"
"""Folder with the queue of the rules (``rules/database.py``)."""
SETTINGS = "settings.json"
"""File of what was set at run time (``net/throttle.py``)."""
IN_MEMORY = "in-memory"
"""Folder of what is known of transfers whose bytes are in memory only (``memory_staging.py``)."""
_KEPT = re.compile(
    rf"{LOCK}|reports|{SENT}|{CHANGED}|{FATAL}|{HISTORY}|{RULES}|{re.escape(SETTINGS)}|{UNDOS}|{IN_MEMORY}"
    rf"|server-[0-9]+|node|{SET_ASIDE}"
)
_UNFINISHED = re.compile(r"\.(new|gone)-[0-9a-f]{32}")
_TRANSFER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Needed:
    """What is to be received of a transfer: bytes, and instances."""

    size: int
    count: int


class Staging:
    """The areas below one folder.

    ``max_size`` is the limit in bytes of all areas together, 0 for no limit but the disk's. ``disks`` are those on
    which they are imported: these must have room, too. ``shared``: in a cluster with shared storage, the folder of this
    node's areas, another one at each call; ``root`` has the rest.
    Raises ``ConfigurationError`` if the folder cannot be created or written.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_size: int = 0,
        clock: Clock,
        disks: Disks | None = None,
        shared: Callable[[], Path] | None = None,
    ) -> None:
        self._max_size = max_size
        self._disks = disks
        self._clock = clock
        self._lock = threading.Lock()
        self._promised: dict[str, Demand] = {}
        self._areas: dict[str, Area] = {}
        self._moved: list[Path] = []
        """Folders of transfers that another node had, not opened yet."""
        self._given = root
        self._shared = shared
        try:
            self.home, self._lock_file = claim_folder(root)
            self.root = self._areas_folder()
        except OSError as error:
            raise ConfigurationError(f"StagingDirectory {root} cannot be used: {error}") from error
        self._memory = MemoryStaging(self.root / IN_MEMORY)

    @property
    def shared(self) -> bool:
        """Whether all of it is on storage that several machines share: files there are neither locked nor mapped."""
        return self._shared is not None

    def _areas_folder(self) -> Path:
        if self._shared is None:
            return self.home
        folder = self._shared()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def start_over(self) -> None:
        """Let go of all areas, which another node of the cluster has now."""
        if self._shared is None:
            for path in self.root.iterdir():
                if _TRANSFER.fullmatch(path.name) or path.name == IN_MEMORY:
                    shutil.rmtree(path, ignore_errors=True)
        with self._lock:
            self._promised.clear()
            self._areas.clear()
            self._moved.clear()
            self.root = self._areas_folder()
            self._memory = MemoryStaging(self.root / IN_MEMORY)

    def create(
        self,
        identifier: str,
        manifest: Manifest,
        meta: dict[str, Any],
        needed: Needed,
        *,
        in_memory: bool = False,
    ) -> Area:
        """A new area, of which ``needed`` will be written; ``in_memory`` if there is room. Raises ``NoSpace``.

        ``identifier``: 32 hex digits.
        """
        self._claim_again_if_deleted()
        area: Area | None = self._memory.create(identifier, manifest, meta) if in_memory else None
        try:
            self.promise(identifier, needed, in_memory=area is not None)
            if area is None:
                area = Area.create(self.root / identifier, manifest, meta, shared=self.shared)
        except BaseException:
            self.forget(identifier)
            if area is not None:
                area.discard()
            raise
        with self._lock:
            self._areas[identifier] = area
        return area

    def _claim_again_if_deleted(self) -> None:
        with self._lock:
            if (self.home / LOCK).exists() and self.root.exists():
                return
            log.warning("the staging directory %s was deleted, it is created again", self.root)
            try:
                home, lock_file = claim_folder(self._given)
                self._lock_file.close()
                self.home, self._lock_file = home, lock_file
                self.root = self._areas_folder()
            except OSError as error:
                raise disk_error(error) from error
            self._memory = MemoryStaging(self.root / IN_MEMORY)

    def promise(self, identifier: str, needed: Needed, *, in_memory: bool = False) -> None:
        """Reserve room for what is further ``needed`` of an area, in staging and in Orthanc. Raises ``NoSpace``."""
        own = Demand(0 if in_memory else needed.size, needed.size, needed.count)
        # What costs a question to Orthanc is asked only where it would be refused otherwise.
        for exactly in (False, True):
            try:
                staging = disk_of(self.root)
            except OSError as error:
                raise disk_error(error) from error
            orthanc = self._disks.look(exactly=exactly) if self._disks is not None else OrthancDisks()
            with self._lock:
                refusal = shortage(staging, orthanc, own, self._outstanding()) or self._beyond_limit(own.size)
                if refusal is None:
                    self._promised[identifier] = self._promised.get(identifier, Demand(0, 0, 0)) + own
                    return
        raise NoSpace(str(refusal))

    @property
    def memory_free(self) -> int:
        """Bytes that a new area may have in memory."""
        free = self._memory.free
        if self._max_size:
            with self._lock:
                free = min(free, max(0, self._max_size - self._staged()))
        return free

    def _outstanding(self) -> Demand:
        """What was promised and is not used yet: the disks still count it as free."""
        total = Demand(0, 0, 0)
        for identifier, promised in self._promised.items():
            area = self._areas.get(identifier)
            total += promised if area is None else promised.beyond(area.written, *area.imported)
        return total

    def _staged(self) -> int:
        return sum(promised.size for promised in self._promised.values())

    def _beyond_limit(self, needed: int) -> str | None:
        staged = self._staged()
        if not self._max_size or staged + needed <= self._max_size:
            return None
        free = max(0, self._max_size - staged)
        return (
            f"{needed} bytes are needed for this transfer, {free} of MaxStagingSize are free:"
            " wait for other transfers or allow more, then resubmit the job"
        )

    def forget(self, identifier: str) -> None:
        """Release what is reserved for an area."""
        with self._lock:
            self._promised.pop(identifier, None)
            self._areas.pop(identifier, None)

    def reopen(self) -> list[Area]:
        """The transfers on disk, to be called once, at the start.

        Anything else is moved to ``set-aside`` with a warning. Never raises because of it.
        """
        areas: list[Area] = []
        for path in sorted(self.root.iterdir()):
            if _KEPT.fullmatch(path.name):
                continue
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                if not _TRANSFER.fullmatch(path.name):
                    raise BadFile("it is not an incoming transfer")
                area = Area.reopen(path, shared=self.shared)
            except BadFile as error:
                self.set_aside(path, str(error))
                continue
            areas.append(area)
        try:
            areas += self._memory.reopen()
        except OSError as error:
            self.set_aside(self.root / IN_MEMORY, f"it cannot be read: {error}")
        for area in areas:
            self._count(area)
        return areas

    def adopt(self, folder: Path, known: Container[str], gate: Callable[[], None]) -> Iterator[Area]:
        """The transfers of another node of the cluster, which is gone, from its folder on the shared storage.

        Moved here one by one: who dies meanwhile leaves a rest that is adopted by the next. ``known``: identifiers
        of those that are here already. ``gate`` raises if none may be moved any more. Raises ``OSError``: the next
        call goes on where this one failed, and returns none again.
        """
        while found := self._transfers_in(folder):
            for path in found:
                gate()
                own = self.root / path.name
                # An heir that is stopping, or was stopped, may just have moved it.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, own)
                    self._moved.append(own)
                yield from self._opened()
        yield from self._opened()
        for area in self._memory.adopt(folder / IN_MEMORY, known):
            self._count(area)
            yield area

    def _transfers_in(self, folder: Path) -> list[Path]:
        # Where the storage is not mounted, no folder is there: that says nothing of the others.
        os.stat(self.root)
        return (
            sorted(path for path in folder.iterdir() if _TRANSFER.fullmatch(path.name))
            if folder.is_dir()
            else []
        )

    def _opened(self) -> Iterator[Area]:
        """What was moved here, and could not be opened before."""
        while self._moved:
            own = self._moved[-1]
            try:
                area = Area.reopen(own, shared=self.shared)
                # A node that is not dead but stopped has the old journal open, and may write to it once more.
                if area.history.outcome is None and (own / JOURNAL).exists():
                    files.replace(own / JOURNAL, (own / JOURNAL).read_bytes(), synced=True)
                    area = Area.reopen(own, shared=self.shared)
            except BadFile as error:
                self.set_aside(own, str(error))
                self._moved.pop()
                continue
            self._moved.pop()
            self._count(area)
            yield area

    def adopt_record(
        self,
        identifier: str,
        manifest: Manifest,
        meta: Mapping[str, Any],
        absent: Collection[int] | None,
        outcome: Mapping[str, Any] | None,
    ) -> Area:
        """A transfer whose bytes were on the disk of another node, which is gone: only the database tells of it."""
        return self._memory.adopt_record(identifier, manifest, meta, absent, outcome)

    def _count(self, area: Area) -> None:
        if area.history.outcome is None:
            wanted = [one.size for index, one in enumerate(area.manifest) if index not in area.history.stored]
            self._promised[area.id] = Demand(sum(wanted), sum(wanted), len(wanted))
            self._areas[area.id] = area

    def set_aside(self, path: Path, reason: str) -> None:
        """Move something out of the way, for the administrator to look at."""
        log.warning(
            "%s is set aside in %s, to be examined and deleted: %s",
            path,
            self.root / SET_ASIDE,
            reason,
        )
        try:
            (self.root / SET_ASIDE).mkdir(mode=0o700, exist_ok=True)
            os.rename(path, self.root / SET_ASIDE / f"{path.name}-{uuid.uuid4().hex[:8]}")
        except OSError as error:
            log.warning("%s cannot be set aside: %s", path, error)

    def close(self) -> None:
        """Unlock the folder for another process."""
        self._lock_file.close()
