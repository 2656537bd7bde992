"""The lock by which a server has a staging directory for itself, and the folder that another one takes beside it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from orthanc_transfers.core.errors import ConfigurationError

log = logging.getLogger(__name__)

LOCK = "lock"
_MAX_SERVERS = 64


class LockFile:
    """A lock on a folder that the kernel releases when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise
        except OSError as error:
            log.warning(
                "%s: no file locks here (%s); two servers must not share this folder",
                path,
                error,
            )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def claim_folder(root: Path) -> tuple[Path, LockFile]:
    # Several Orthancs may share one storage folder: none may touch what another is receiving.
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, _MAX_SERVERS + 1):
        folder = root if number == 1 else root / f"server-{number}"
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(BlockingIOError):
            return folder, LockFile(folder / LOCK)
    raise ConfigurationError(
        f"StagingDirectory {root} is used by {_MAX_SERVERS} servers already: choose another one"
    )
