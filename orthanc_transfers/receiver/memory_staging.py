"""The transfers whose bytes are in memory only: how many bytes they may have, and what a restart finds of them.

folder/
  log-N      what the next start has to know of them (``memory_log.py``)
  <number>/  the import log of one of them at a time (``import_log.py``): made once, since new files cost more than all
             the rest (0.3 ms each on ext4, as measured, against 0.001 ms for writing one)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.receiver.disk_errors import disk_errors
from orthanc_transfers.receiver.history import History, replay, to_bits
from orthanc_transfers.receiver.import_log import NAME, tells_nothing
from orthanc_transfers.receiver.memory_area import MemoryArea
from orthanc_transfers.receiver.memory_log import MemoryLog
from orthanc_transfers.runtime.journal import Kind, Record

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Of all transfers in memory together; beyond, a transfer has files of its own (``area.py``)."""


class MemoryStaging:
    """Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._log = MemoryLog(folder)
        self._used = 0
        self._taken: set[int] = set()
        """Numbers of the directories in use."""

    @property
    def free(self) -> int:
        """Bytes that a new area may have."""
        return max(0, self._max_bytes - self._used)

    def create(self, identifier: str, manifest: Manifest, meta: Mapping[str, Any]) -> MemoryArea | None:
        """A new area; ``None`` if there is no memory for it. Raises ``TransferError`` if the disk cannot be used."""
        with self._lock:
            if self._used + manifest.size > self._max_bytes:
                return None
            number = next(number for number in count() if number not in self._taken)
            self._taken.add(number)
            self._used += manifest.size
        release = self._releasing(number, manifest.size)
        try:
            with disk_errors():
                self._empty(number)
        except BaseException:
            release()
            raise
        return self._area(number, identifier, manifest, dict(meta), History(), release, new=True)

    def _empty(self, number: int) -> None:
        """No instance of an earlier transfer is to be suspected."""
        directory = self._directory(number)
        # Looked at first: to cut a file, and to let it grow again, costs far more.
        if tells_nothing(directory):
            return
        try:
            os.truncate(directory / NAME, 0)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)

    def reopen(self) -> list[MemoryArea]:
        """What an earlier process left: what it was importing, and remembered outcomes. Raises ``OSError``."""
        areas = []
        for identifier, records in self._log.read().items():
            area = self._reopen(identifier, records)
            if area is not None:
                areas.append(area)
            else:
                self._log.forget(identifier)
        return areas

    def adopt(self, folder: Path, known: Container[str]) -> Iterator[MemoryArea]:
        """The same of another node of the cluster, which is gone: noted here before its folder is deleted.

        Without those of the identifiers ``known``, which are here.
        """
        if not folder.is_dir():
            return
        for identifier, records in MemoryLog(folder).read().items():
            content = _opened(records)
            if content is None or identifier in known:
                continue
            number = self._reserve()
            with disk_errors():
                self._empty(number)
                with contextlib.suppress(FileNotFoundError):
                    # What it may have died of goes with it.
                    shutil.copyfile(folder / str(content["directory"]) / NAME, self._directory(number) / NAME)
            opened = json.dumps({**content, "directory": number}, separators=(",", ":")).encode()
            rest = [(record.kind, record.payload) for record in records if record.kind is not Kind.OPENED]
            self._log.append(identifier, (Kind.OPENED, opened), *rest)
            area = self._reopen(identifier, [Record(Kind.OPENED, opened), *records])
            if area is None or area.history.outcome is not None:
                self._release(number, 0)
            if area is not None:
                yield area
        shutil.rmtree(folder, ignore_errors=True)

    def adopt_record(
        self,
        identifier: str,
        manifest: Manifest,
        meta: Mapping[str, Any],
        absent: Collection[int] | None,
        outcome: Mapping[str, Any] | None,
    ) -> MemoryArea:
        """An area whose bytes are lost, noted here as if it had been this server's. Raises ``TransferError``."""
        number = self._reserve()
        with disk_errors():
            self._empty(number)
        records = [(Kind.OPENED, _opening(number, meta, manifest))]
        if absent is not None:
            records.append((Kind.COMMITTING, to_bits(absent, len(manifest))))
        if outcome is not None:
            records.append((Kind.OUTCOME, json.dumps(outcome).encode()))
        self._log.append(identifier, *records)
        area = self._reopen(identifier, [Record(kind, payload) for kind, payload in records])
        assert area is not None
        if outcome is not None:
            self._release(number, 0)
        return area

    def _reserve(self) -> int:
        """The number of a directory that nothing uses; from now on it is in use."""
        with self._lock:
            number = next(number for number in count() if number not in self._taken)
            self._taken.add(number)
            return number

    def _reopen(self, identifier: str, records: Sequence[Record]) -> MemoryArea | None:
        content = _opened(records)
        if content is None:
            return None
        try:
            number, meta = int(content["directory"]), dict(content["meta"])
            manifest = Manifest(Instance(*row) for row in content["instances"])
        except (ValueError, TypeError, LookupError) as error:
            log.warning("transfer %s is forgotten, its record is not valid: %r", identifier, error)
            return None
        history = replay(iter(records), manifest)
        if history.outcome is None and history.absent is None:
            return None  # undone before the end of the process, and its bytes are gone
        release: Callable[[], None] = lambda: None  # noqa: E731
        if history.outcome is None:
            self._taken.add(number)
            release = self._releasing(number, 0)
        return self._area(number, identifier, manifest, meta, history, release, new=False)

    def _area(
        self,
        number: int,
        identifier: str,
        manifest: Manifest,
        meta: dict[str, Any],
        history: History,
        release: Callable[[], None],
        *,
        new: bool,
    ) -> MemoryArea:
        opened = None
        if new:
            opened = _opening(number, meta, manifest)
        directory = self._directory(number)
        return MemoryArea(directory, identifier, manifest, meta, history, self._log, opened, release)

    def _directory(self, number: int) -> Path:
        return self._folder / str(number)

    def _releasing(self, number: int, size: int) -> Callable[[], None]:
        return partial(self._release, number, size)

    def _release(self, number: int, size: int) -> None:
        with self._lock, contextlib.suppress(KeyError):
            self._taken.remove(number)
            self._used -= size


def _opening(number: int, meta: Mapping[str, Any], manifest: Manifest) -> bytes:
    rows = [[one.id, one.size, one.md5] for one in manifest]
    content = {"directory": number, "meta": meta, "instances": rows}
    return json.dumps(content, separators=(",", ":")).encode()


def _opened(records: Sequence[Record]) -> dict[str, Any] | None:
    """What is known of a transfer; ``None`` if the first of its records were in a file that has been deleted."""
    opened = next((record.payload for record in records if record.kind is Kind.OPENED), None)
    try:
        content = None if opened is None else json.loads(opened)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
