"""Files on disk: fsync, reads and writes in full, atomic replacement.

What is written survives the death of the process, since it is in the kernel's cache. Only what is fsynced
survives a power failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import uuid
from pathlib import Path

from orthanc_transfers.core.disk_room import Disk


def disk_of(path: Path) -> Disk:
    """The file system of a file or folder. Raises ``OSError``."""
    found = os.statvfs(path)
    # Some network file systems do not tell how large they are.
    free = found.f_bavail * found.f_frsize if found.f_blocks else sys.maxsize
    return Disk(os.stat(path).st_dev, free, found.f_frsize)


def sync(path: Path | str) -> None:
    """Fsync a file, or the names in a directory, so that it survives a power failure. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems keep names safe by themselves, and refuse this for directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not os.path.isdir(path):
            raise
    finally:
        os.close(fd)


def create(path: Path | str, content: bytes, *, synced: bool) -> None:
    """Write a new file, readable by its owner only; ``synced``: fsync its content. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        if synced:
            os.fsync(fd)


def replace(path: Path | str, content: bytes, *, synced: bool, modified: float | None = None) -> None:
    """Write a file under a temporary name, then rename it: a reader sees the old content or the new, never a part.

    ``synced``: the content is fsynced before the rename, so that a power failure cannot leave the name
    without the content. For the name itself to survive one, ``sync`` the directory.
    ``modified`` is the modification time of the new file, in seconds since the epoch; now by default.
    Raises ``OSError``, and leaves no temporary file then.
    """
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}")
    try:
        create(temporary, content, synced=synced)
        if modified is not None:
            os.utime(temporary, (modified, modified))
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` from ``offset`` on. Raises ``OSError``."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def read_at(fd: int, buffer: memoryview, offset: int) -> None:
    """Fill ``buffer`` from ``offset`` on. Raises ``OSError``; ``EOFError`` if the file ends before."""
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if not count:
            raise EOFError(f"the file ends at byte {offset + done}")
        done += count
