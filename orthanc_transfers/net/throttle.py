"""The limits on bandwidth in force: of the configuration, or set at run time; the latter survive restarts."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orthanc_transfers.core.bandwidth_limits import KB, BandwidthLimits
from orthanc_transfers.core.bandwidth_schedule import minutes_until_change
from orthanc_transfers.core.errors import BadRequest, NoSpace
from orthanc_transfers.core.weekly_hours import DAY
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.net.bandwidth import Bandwidth
from orthanc_transfers.runtime import files

log = logging.getLogger(__name__)


class Throttle:
    """One bucket for all, and one for each peer. Thread-safe.

    ``file`` keeps what was set at run time, together with the configuration of that time: a configuration that was
    changed since is newer, and counts. Without one, nothing is kept.
    """

    def __init__(
        self, configured: BandwidthLimits, clock: Clock, file: Callable[[], Path] | None = None
    ) -> None:
        self._configured = configured
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self.limits = configured
        self._all = Bandwidth(lambda: self.limits.of_all(self._minute()) * KB * 8, clock)
        self._peers: dict[str, Bandwidth] = {}

    def of(self, peer: str) -> tuple[Bandwidth, Bandwidth]:
        """The buckets of a transfer with a peer: one limit per peer, however many transfers there are with it."""
        with self._lock:
            if peer not in self._peers:
                self._peers[peer] = Bandwidth(lambda: self.limits.of_peer(peer) * KB * 8, self._clock)
            return self._all, self._peers[peer]

    def limited(self, peer: str) -> bool:
        """Whether a transfer with a peer has to keep to a limit now."""
        return self.limits.of_all(self._minute()) > 0 or self.limits.of_peer(peer) > 0

    # --- what is in force

    def to_json(self) -> dict[str, Any]:
        """All limits, and ``NowKBs``, that of all together now."""
        return {**self.limits.to_json(), "NowKBs": self.limits.of_all(self._minute())}

    def now(self) -> tuple[float, float | None]:
        """The limit of all together in KB/s, and until when (seconds since the epoch); ``None``: for good."""
        minute = self._minute()
        wait = minutes_until_change(self.limits.schedule, minute)
        now = self._clock.now()
        until = None if wait is None else now - now % 60 + wait * 60
        return self.limits.of_all(minute), until

    def _minute(self) -> int:
        local = time.localtime(self._clock.now())
        return local.tm_wday * DAY + local.tm_hour * 60 + local.tm_min

    # --- changes

    def change(self, value: Any) -> None:
        """Take the keys of a user, ``None``: those of the configuration. Running transfers obey within a second.

        Raises ``BadRequest``; ``NoSpace`` if it cannot be kept, and is not changed then.
        """
        with self._lock:
            limits = self._configured if value is None else self.limits.changed(value)
            self._save(limits)
            self.limits = limits
            for bandwidth in (self._all, *self._peers.values()):
                bandwidth.look_again()
        log.warning("limits on bandwidth changed: %s", json.dumps(limits.to_json()))

    def _save(self, limits: BandwidthLimits) -> None:
        if self._file is None:
            return
        try:
            if limits == self._configured:
                self._file().unlink(missing_ok=True)
                return
            content = {"Bandwidth": limits.to_json(), "Configured": self._configured.to_json()}
            files.replace(self._file(), json.dumps(content).encode(), synced=True)
        except OSError as error:
            raise NoSpace(
                f"the limits cannot be kept in {self._file()}, and stay as they were: {error}"
            ) from error

    def load(self) -> None:
        """Take what an earlier process kept. Never raises."""
        if self._file is None:
            return
        try:
            content = json.loads(self._file().read_bytes())
            if content["Configured"] != self._configured.to_json():
                log.warning(
                    "limits on bandwidth that were set at run time are dropped: the configuration changed since"
                )
                return
            self.limits = BandwidthLimits().changed(content["Bandwidth"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, BadRequest) as error:
            log.warning(
                "limits on bandwidth set at run time cannot be read, the configuration counts: %s", error
            )
