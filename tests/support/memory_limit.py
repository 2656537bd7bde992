"""A control group in which a server may have so much memory, and is killed by the kernel when it needs more."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from pathlib import Path

from tests.support.waiting import wait_until

_ROOT = Path("/sys/fs/cgroup")


class MemoryLimit:
    """``size`` bytes. Raises ``OSError`` where no such group can be made: needs root, and the controller."""

    def __init__(self, size: int) -> None:
        name = f"orthanc-transfers-{uuid.uuid4().hex[:8]}"
        if (_ROOT / "memory").is_dir():
            own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
            self._folder = _ROOT / "memory" / (own[1] if own else "/").lstrip("/") / name
            limit, self._events = "memory.limit_in_bytes", "memory.oom_control"
        else:
            self._folder = _ROOT / name
            limit, self._events = "memory.max", "memory.events"
        os.mkdir(self._folder)
        try:
            (self._folder / limit).write_text(str(size))
            with contextlib.suppress(OSError):  # or it is swapped out instead
                (self._folder / "memory.swap.max").write_text("0")
        except OSError:
            os.rmdir(self._folder)
            raise

    @property
    def launcher(self) -> tuple[str, ...]:
        """What starts a server in it."""
        return ("sh", "-c", f'echo $$ > {self._folder}/cgroup.procs && exec "$@"', "sh")

    @property
    def kills(self) -> int:
        """How often the kernel has killed for lack of memory there."""
        match = re.search(r"^oom_kill (\d+)$", (self._folder / self._events).read_text(), re.MULTILINE)
        return int(match[1]) if match else 0

    def close(self) -> None:
        """Remove it, once all in it has ended."""

        def removed() -> bool:
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)
            return not self._folder.exists()

        wait_until(removed, "its processes have ended")
