"""A disk that can lose its power: an ext4 file system in a file. Needs root, a loop device and e2fsprogs.

What programs write is in the page cache first. It reaches the file when it is fsynced, or
when the kernel comes round to it, after 5 to 30 s: a copy of the file is what a disk has at that moment, and all
that a power failure leaves of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_until

# All of it is made at once, so that the kernel has nothing to write later on.
_MAKE = ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")


class PowerFailureDisk:
    """Mounted at ``path``, with its bytes in ``file``, ``size`` of them at most.

    Raises ``OSError`` where such a disk cannot be made.
    """

    def __init__(self, path: Path, file: Path, size: int) -> None:
        self.path = path
        self._file = file
        self._mounted = False
        path.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as made:
            made.truncate(size)
        if os.geteuid() != 0:
            raise PermissionError("a disk can be mounted by root only")
        _run(*_MAKE, str(file))
        self._mount()
        (path / "lost+found").rmdir()
        self.sync()

    def sync(self) -> None:
        """Let all that was written reach the disk."""
        _run("sync", "--file-system", str(self.path))

    def write_names(self) -> None:
        """Let the names of files, new ones and deleted ones, reach the disk, as every 5 s; not their bytes."""
        other = self.path / "of-another-program"
        with other.open("wb") as file:
            os.fsync(file.fileno())
        other.unlink()

    def fail_power(self, end: Callable[[], None]) -> None:
        """Take away what has not reached the disk, and mount it again as after the next start of its machine.

        The process that uses it must be stopped (SIGSTOP), so that this is one moment, and is ended by ``end``.
        """
        left = self._file.with_suffix(".left")
        wait_until(lambda: self._copied(left), f"a moment at which nothing is written to {self._file}")
        end()
        self.close()
        left.replace(self._file)
        self._mount()

    def close(self) -> None:
        """Unmount it. No process may use it any more."""
        if self._mounted:
            _run("umount", str(self.path))
            self._mounted = False

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._file), str(self.path))
        self._mounted = True

    def _copied(self, to: Path) -> bool:
        """Copy the file; whether the kernel left it alone meanwhile."""
        before = self._requests()
        subprocess.run(["cp", "--sparse=always", self._file, to], check=True)
        return before == self._requests() and not before[1]

    def _requests(self) -> tuple[str, int]:
        """Number of those to write and to discard that the disk has done, and of those under way."""
        device = self.path.stat().st_dev
        for line in Path("/proc/diskstats").read_text().splitlines():
            major, minor, _, *numbers = line.split()
            if (int(major), int(minor)) == (os.major(device), os.minor(device)):
                return f"{numbers[4]} {numbers[11]}", int(numbers[8])
        raise OSError(f"the kernel knows no disk at {self.path}")


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"there is no {command[0]} here")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command[0]} failed here: {done.stderr.strip()}")
