"""Commit reports on disk, found by the identifiers of transfers and jobs; expired after some days."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.threads import Periodic

log = logging.getLogger(__name__)

_DAY = 86400.0
_SWEEP_EVERY = 3600.0

SOON = 0.2
"""Seconds after which reports are synced for which nobody waits."""

# Reports that ``take`` need not read, and how many instances these have at most.
_WRITTEN = 8
_FEW = 100

# What a file system without hard links says, or one whose file has too many.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Reports:
    """Reports by identifier, each kept for ``retention_days``.

    One file for each report, with a name for each identifier: links, which cost neither an inode nor an fsync of their
    own. Earlier releases, and file systems without links, have ``{"See": identifier}`` instead. Identifiers may come
    from the network: a file is named after the hash of one.
    """

    def __init__(self, directory: Path, retention_days: float, clock: Clock) -> None:
        self._directory = directory
        self._retention = retention_days * _DAY
        self._clock = clock
        self._lock = threading.Lock()
        self._next_sweep = 0.0
        self._folder = os.fspath(directory)
        # Needs no lock: each use is a single operation of a dict.
        self._written: dict[str, dict[str, Any]] = {}
        """Written lately, and not taken yet."""
        self._unsynced: deque[str] = deque()
        self._syncing = Periodic("transfers-reports", self._delay, self._sync_all)

    def write(self, report: dict[str, Any], aliases: Iterable[str] = (), *, synced: bool = True) -> None:
        """Keep a report (``core/commit_report.py``) under its ``ID``, and let it be found by other identifiers too.

        Survives a power failure if it is ``synced``, here or later by ``sync``. Raises ``OSError``.
        """
        path = self._path(report["ID"])
        self._replace(path, report)
        for alias in aliases:
            self.alias(report["ID"], alias)
        if synced:
            # Once for the content and all names: they are not relied on before. (On ext4, XFS and btrfs, the fsync of
            # a new file takes its names along.)
            files.sync(path)
        if len(report.get("Instances", ())) <= _FEW:
            self._keep(report)
        self.expire()

    def sync(self, identifier: str) -> None:
        """Let a report by its ``ID``, if it is still there, survive a power failure from now on. Raises ``OSError``."""
        with contextlib.suppress(FileNotFoundError):
            files.sync(self._path(identifier))

    def sync_soon(self, identifier: str) -> None:
        """The same, in the background."""
        self._unsynced.append(identifier)
        self._syncing.start()

    def _delay(self) -> float | None:
        return SOON if self._unsynced else None

    def _sync_all(self) -> None:
        for _ in range(len(self._unsynced)):
            self.sync(self._unsynced.popleft())

    def restore(self, report: dict[str, Any], aliases: Iterable[str] = ()) -> None:
        """Write one again that was lost, unless it is so old that it would be deleted by now. Raises ``OSError``."""
        if self._clock.now() - report["Finished"] < self._retention and self.read(report["ID"]) is None:
            self.write(report, aliases)

    def _keep(self, report: dict[str, Any]) -> None:
        """For ``take``."""
        self._written[report["ID"]] = report
        while len(self._written) > _WRITTEN:
            with contextlib.suppress(KeyError, RuntimeError, StopIteration):  # another thread did
                del self._written[next(iter(self._written))]

    def correct(self, report: Mapping[str, Any]) -> None:
        """Replace what is kept of a report, by whatever identifier it is found. Raises ``OSError``."""
        path = self._path(report["ID"])
        self._written.pop(report["ID"], None)
        try:
            inode = os.stat(path).st_ino
            names = [entry.name for entry in os.scandir(self._directory) if entry.inode() == inode]
        except FileNotFoundError:
            names = []
        self._replace(path, report)
        for name in names:
            if name != os.path.basename(path):
                # A rename is atomic; a link cannot replace a name.
                temporary = self._directory / f".{uuid.uuid4().hex}"
                os.link(path, temporary)
                os.rename(temporary, self._directory / name)
        files.sync(path)

    def alias(self, identifier: str, alias: str) -> None:
        """Let the report ``identifier`` be found as ``alias``, too; without effect unless it is written.

        An alias may come from the network: it never hides the report of another transfer. Raises ``OSError``.
        """
        path, other = self._path(identifier), self._path(alias)
        if path == other:
            return
        try:
            os.link(path, other)
        except FileNotFoundError:
            return
        except FileExistsError:
            if not os.path.samefile(path, other) and not self._is_own(alias):
                self._replace(other, {"See": identifier})
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not self._is_own(alias):
                self._replace(other, {"See": identifier})

    def _is_own(self, identifier: str) -> bool:
        """Whether what is found by an identifier is the report of that transfer itself."""
        content = self._read(identifier)
        return content is not None and content.get("ID") == identifier

    def read(self, identifier: str) -> dict[str, Any] | None:
        """A report by its ``ID`` or an alias; ``None`` if there is none (any more)."""
        content = self._read(identifier)
        if content is not None and "See" in content:
            content = self._read(content["See"])
        return content

    def take(self, identifier: str) -> dict[str, Any] | None:
        """A report by its ``ID``, for the one who waited until it was written: a small one need not be read."""
        written = self._written.pop(identifier, None)
        return self.read(identifier) if written is None else written

    def exists(self, identifier: str) -> bool:
        """Whether there is a file for it."""
        return os.path.exists(self._path(identifier))

    def all(self, since: float, known: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
        """Each report that was written since then (seconds since the epoch), once. Reads one file after the other.

        Those whose ``ID`` is ``known`` are left out, and not read.
        """
        names = {os.path.basename(self._path(identifier)) for identifier in known}
        seen: set[int] = set()
        if names:
            with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
                seen.update(entry.inode() for entry in entries if entry.name in names)
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError, ValueError):
                    # All names of a report are links to one file.
                    if entry.inode() in seen or entry.stat().st_mtime < since:
                        continue
                    seen.add(entry.inode())
                    content = json.loads(Path(entry.path).read_bytes())
                    if isinstance(content, dict) and "ID" in content:
                        yield content

    def expire(self) -> None:
        """Delete what is older than the retention; looks once an hour at most."""
        with self._lock:
            if self._clock.monotonic() < self._next_sweep:
                return
            self._next_sweep = self._clock.monotonic() + _SWEEP_EVERY
        oldest = self._clock.now() - self._retention
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                        os.unlink(entry.path)

    def _path(self, identifier: str) -> str:
        # A Path costs more than the hash.
        name = hashlib.sha256(identifier.encode("utf-8", "replace")).hexdigest()
        return f"{self._folder}/{name}.json"

    def _replace(self, path: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        # The age of a file is measured by the clock that will judge it.
        now = self._clock.now()
        try:
            files.replace(path, text, synced=False, modified=now)
        except FileNotFoundError:
            # The mode applies to the last folder only, and its parents may have been deleted.
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            files.replace(path, text, synced=False, modified=now)

    def _read(self, identifier: str) -> dict[str, Any] | None:
        try:
            with open(self._path(identifier), "rb") as file:
                content = json.loads(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning(
                "the commit report of %.80s cannot be read, it is shown as missing: %s", identifier, error
            )
            return None
        return content if isinstance(content, dict) else None
