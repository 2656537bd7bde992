"""A clock that jumps, for one process, by libfaketime (Debian's package faketime)."""

from __future__ import annotations

from pathlib import Path

DAY = 86400


class WrongClock:
    """Give ``environment`` to a process; ``days`` moves its time of day, within a second, not its monotonic clock.

    Raises ``FileNotFoundError`` where libfaketime is missing.
    """

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            raise FileNotFoundError("libfaketime is not installed (package faketime)")
        self._file = folder / "clock"
        self.days(0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            # The kernel never lets it jump, whatever is done to the time of day.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def days(self, days: int) -> None:
        """From now on the clock is that many days ahead."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{days * DAY:+d}\n")
        new.rename(self._file)
