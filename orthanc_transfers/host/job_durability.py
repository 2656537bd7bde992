"""Fsyncs Orthanc's index soon after a job was submitted.

Orthanc writes a new job into its database within 0.2 s, but fsyncs that only every 10 s. A power failure before would
make it forget a job that a user has seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from orthanc_transfers.runtime.threads import Periodic

AFTER = (0.3, 1.5)
"""Seconds after a submission at which the index is fsynced: soon, and again should Orthanc have been slow."""

log = logging.getLogger(__name__)


class JobDurability:
    """Calls ``force``, which may raise ``OSError``, after each submission. Thread-safe; a thread runs meanwhile.

    Jobs submitted at once share the calls.
    """

    def __init__(self, force: Callable[[], None], after: tuple[float, ...] = AFTER) -> None:
        self._force = force
        self._after = after
        self._submitted = 0.0
        """When the last job was submitted, by the monotonic clock."""
        self._round = 0.0
        """The submission whose fsyncs are due."""
        self._step = len(after)
        """How many of its fsyncs are done."""
        self._calls = Periodic("submitted-jobs", self._delay, self._call)

    def add(self) -> None:
        """A job was submitted at this moment. Never waits."""
        self._submitted = time.monotonic()
        self._calls.start()

    def close(self) -> None:
        """Stop: Orthanc is stopping, and saves everything itself."""
        self._calls.close()

    def _delay(self) -> float | None:
        if self._step == len(self._after):
            # Submissions meanwhile are looked after together.
            if self._round == self._submitted:
                return None
            self._round, self._step = self._submitted, 0
        return max(0.0, self._round + self._after[self._step] - time.monotonic())

    def _call(self) -> None:
        self._step += 1
        try:
            self._force()
        except OSError as error:
            log.warning("a new job may not survive a power failure: %s", error)
