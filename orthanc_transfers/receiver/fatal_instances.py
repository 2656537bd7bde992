"""The instances whose import ended Orthanc twice, remembered for some days: other transfers with them are refused.

A small JSON file: identifier -> MD5, and when it was, in seconds since the epoch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from orthanc_transfers.core.errors import FatalInstance
from orthanc_transfers.core.model import Instance, name_instances
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime import files

log = logging.getLogger(__name__)

_DAY = 86400.0
# The oldest go.
_MAX = 10_000


class FatalInstances:
    """Remembered for ``days``; 0: not at all. Thread-safe. Errors are logged only: then nothing is remembered."""

    def __init__(self, path: Path, days: int, clock: Clock) -> None:
        self._path = path
        self._days = days
        self._clock = clock
        self._lock = threading.Lock()
        self._known = self._read() if days else {}

    def _read(self) -> dict[str, tuple[str, float]]:
        try:
            content = json.loads(self._path.read_bytes())
            return {str(one): (str(md5), float(when)) for one, (md5, when) in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("which instances ended Orthanc is not known any more: %s: %s", self._path, error)
            return {}

    def record(self, instances: Iterable[Instance]) -> None:
        """Orthanc ended twice while these were being imported."""
        now = self._clock.now()
        fresh = {one.id: (one.md5, now) for one in instances}
        if not fresh or not self._days:
            return
        with self._lock:
            oldest = now - self._days * _DAY
            kept = {**{one: known for one, known in self._known.items() if known[1] >= oldest}, **fresh}
            self._known = dict(sorted(kept.items(), key=lambda item: item[1][1])[-_MAX:])
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                files.replace(self._path, json.dumps(self._known).encode(), synced=True)
            except OSError as error:
                log.warning("which instances ended Orthanc is not remembered: %s: %s", self._path, error)

    def check(self, instances: Iterable[Instance]) -> None:
        """Raise ``FatalInstance`` if some are such, with the same content."""
        if not self._known:
            return
        oldest = self._clock.now() - self._days * _DAY
        found = []
        for one in instances:
            md5, when = self._known.get(one.id, ("", 0.0))
            if md5 == one.md5 and when >= oldest:
                found.append(one.id)
        if found:
            raise FatalInstance(
                f"this Orthanc ended twice while it imported {name_instances(found)}: nothing was received; send the"
                f" others without it. (It is remembered for {self._days} days: FatalInstanceRetention of the receiving"
                " server; with 0 it is tried again)"
            )
