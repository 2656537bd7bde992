"""Exponential backoff with jitter: the delay before the next attempt, or none."""

from __future__ import annotations

from dataclasses import dataclass

from orthanc_transfers.core.errors import TransferError

MAX_RETRY_AFTER = 3600.0
"""Seconds. A peer that asks for more than this gets this: its clock or its proxy may be wrong."""

# Any first delay is beyond any ceiling by then, and a float can still hold the power.
_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential: ``first`` seconds, then twice as long each time, up to ``ceiling``; ``retries`` times."""

    retries: int
    first: float = 0.5
    ceiling: float = 60.0

    def delay(self, attempt: int, error: TransferError, jitter: float) -> float | None:
        """Seconds to wait after ``error``; ``None``: give up.

        ``attempt`` is the number of retries made before, 0 after the first failure. ``jitter``, from 0 to
        1, spreads the delay from half to all of the attempt's full delay, so that several senders do not
        come back at the same moment. The delay is never shorter than what the error asks for as its
        ``retry_after``.
        """
        if attempt >= self.retries or not error.retryable:
            return None
        asked: float | None = getattr(error, "retry_after", None)
        return max(self.seconds(attempt, jitter), min(asked or 0.0, MAX_RETRY_AFTER))

    def seconds(self, attempt: int, jitter: float) -> float:
        """The delay of an attempt, whatever the error."""
        full = min(self.ceiling, self.first * 2.0 ** min(attempt, _MAX_DOUBLINGS))
        return full * (0.5 + 0.5 * jitter)
