"""Buckets of version-1 pushes that their receivers acknowledged, on disk.

A receiver of version 1 cannot be asked what it has, and Orthanc saves a job every ten seconds at most: a sender that
is killed would send again what was acknowledged meanwhile. So each such push has a small file of its own, named
after its token, for as long as it can go on. Nothing depends on it but what is sent again: without the file, the push
succeeds as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.core.ranges import Range
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.journal import Kind, encode_range, encode_record, read_records

log = logging.getLogger(__name__)

OLDEST = 86400.0
"""Seconds after which a file is deleted: of a push that stands still, Orthanc has saved the job."""


class AckLog:
    """The file of one push. Thread-safe. Nothing raises: a failure to write is logged, once per push.

    A ``state`` is what ``ResumeState.to_json`` has of a push: ``Transaction``, ``Plan``, ``Cookie``, ``Completed``.
    """

    def __init__(self, path: Path) -> None:
        # A Path takes four times as much, and hundreds of jobs that have ended keep theirs.
        self._file = str(path)
        self._lock = threading.Lock()
        self._warned = False

    @property
    def _path(self) -> Path:
        return Path(self._file)

    def read(self) -> dict[str, Any]:
        """The state of the push, empty if there is no valid file."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning(
                "the acknowledged buckets of an interrupted push cannot be read, and are sent again: %s",
                error,
            )
            return {}
        state: dict[str, Any] = {}
        completed: list[Any] = []
        for record in read_records(data):
            # A record that is not valid counts as absent.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if record.kind is Kind.SENDING:
                    parsed = json.loads(record.payload)
                    completed = [*parsed["Completed"]]
                    state = parsed
                elif record.kind is Kind.SENT:
                    completed.append([record.range.start, record.range.stop])
        return {**state, "Completed": completed} if state else {}

    def write(self, state: Mapping[str, Any]) -> None:
        """Write the file anew: the receiver knows the push, and has that much of it."""
        with self._lock:
            self._warned = False
            self._write(state)

    def append(self, index: int, state: Callable[[], Mapping[str, Any] | None]) -> None:
        """Record that a bucket arrived. A file that vanished is written anew from ``state``, if that has any."""
        record = encode_range(Kind.SENT, Range(index, index + 1))
        with self._lock:
            try:
                self._append_record(record)
            except FileNotFoundError:
                whole = state()
                if whole is not None:
                    self._write(whole)
            except OSError as error:
                self._warn(error)

    def delete(self) -> None:
        """Delete the file: the push is over, or has to start over."""
        with self._lock, contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _append_record(self, record: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            # Cut short by a full disk, it fails its checksum: the bucket counts as not sent.
            os.write(fd, record)
        finally:
            os.close(fd)

    def _write(self, state: Mapping[str, Any]) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(self._path, encode_record(Kind.SENDING, json.dumps(state).encode()), synced=False)
            _delete_old(self._path)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "the acknowledged buckets of a push cannot be written to disk: "
                "should this server be killed, the push would send some of them again: %s",
                error,
            )


class AckLogs:
    """The files of all pushes of this server, in a folder of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: list[Path] = []
        """Files of an earlier process."""
        with contextlib.suppress(OSError):
            self._found = list(directory.iterdir())

    def of(self, token: str) -> AckLog:
        """The log of a push by its token, 32 hexadecimal digits. Nothing is read or written yet."""
        return AckLog(self._directory / token)

    def drop_lost(self, tokens: Collection[str]) -> None:
        """Delete the files of an earlier process, except those of ``tokens``, whose jobs Orthanc has reloaded."""
        for path in self._found:
            if path.name not in tokens:
                with contextlib.suppress(OSError):
                    path.unlink()
        self._found = []


def _delete_old(young: Path) -> None:
    """Delete the files that are much older than another one in their folder."""
    oldest = young.stat().st_mtime - OLDEST
    with os.scandir(young.parent) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)
