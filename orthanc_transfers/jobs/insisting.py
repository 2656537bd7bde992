"""A peer that answers 200 and nonsense is asked again: the page of a proxy came instead, or bytes were damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import PeerAnswer
from orthanc_transfers.jobs.job import RunContext

T = TypeVar("T")

# Whatever MaxHttpRetries says: damaged bytes are a matter of this protocol, not of HTTP.
_FEWEST = 2


def insist(drive: RunContext, attempt: Callable[[], T]) -> T:
    """What ``attempt`` answers, tried as often as other errors of a peer are when it raises ``PeerAnswer``.

    Raises what the last attempt did; ``Canceled`` in the middle of a wait.
    """
    backoff = Backoff(max(_FEWEST, drive.environment.settings.max_http_retries))
    for failures in count():
        try:
            return attempt()
        except PeerAnswer as error:
            delay = backoff.delay(failures, error, random.random())
            if delay is None:
                raise
        drive.cancellation.wait(delay)
    raise AssertionError("a count has no end")
