"""Files, threads and memory of a process, from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def open_files(pid: int) -> int:
    """How many file descriptors it has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def memory(pid: int) -> int:
    """Bytes of it that are in memory now."""
    return _status(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """Let ``peak_memory`` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory(pid: int) -> int:
    """The most bytes that were in memory at once."""
    return _status(pid, "VmHWM")


def is_stopped(pid: int) -> bool:
    """Whether it stands still (SIGSTOP), with all its threads."""
    return all("\nState:\tT" in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel says no {key} of process {pid}")


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1) or "\nState:\tZ" in status
