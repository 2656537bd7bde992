"""A disk of a few MB that can be full or read-only: a tmpfs, or an ext4 in a file (a loop device). Needs root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_BALLAST = "ballast"


class SmallDisk:
    """Mounted at ``path`` with room for ``size`` bytes. Raises ``OSError`` where mounting is not permitted."""

    def __init__(self, path: Path, size: int, *, ext4: bool = False) -> None:
        self.path = path
        self._mounted = 0
        path.mkdir(parents=True, exist_ok=True)
        if ext4:
            image = path.with_name(f"{path.name}.ext4")
            with open(image, "wb") as file:
                file.truncate(size)
            # Without blocks for root, who runs these tests.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
            self._mount("-o", "loop", str(image))
        else:
            self._mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs")

    @property
    def free(self) -> int:
        """Bytes."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Another program's file takes all room but ``leave`` bytes."""
        with open(self.path / _BALLAST, "ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), self.free - leave)

    def make_room(self) -> None:
        """Delete that file."""
        (self.path / _BALLAST).unlink()

    def make_read_only(self) -> None:
        """Nothing can be made or changed from now on, but through files that are open already.

        (A mount over the same folder: the kernel does not let a disk become read-only while files are open.)
        """
        self._mount("--bind", str(self.path))
        subprocess.run(["mount", "-o", "remount,bind,ro", self.path], check=True)

    def take_inodes(self) -> None:
        """No file or folder can be made from now on."""
        self._remount(f"nr_inodes={self._inodes_in_use()}")

    def give_inodes(self) -> None:
        """Undo ``take_inodes``."""
        self._remount("nr_inodes=100000")

    def _inodes_in_use(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_files - disk.f_ffree

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)

    def make_writable(self) -> None:
        """Undo ``make_read_only``."""
        self._unmount()

    def close(self) -> None:
        """Unmount it, even while it is in use."""
        while self._mounted:
            self._unmount()

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, self.path], check=False, capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(f"a file system cannot be mounted here: {done.stderr.strip()}")
        self._mounted += 1

    def _unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)
        self._mounted -= 1
