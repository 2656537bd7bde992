"""Polls until a condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 60.0, every: float = 0.05) -> Any:
    """Ask again and again until the answer is true, and give it. Raises ``TimeoutError`` naming ``what``."""
    limit = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(every)
