"""Something that is ended if it lasts too long."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.runtime import threads


class Deadline:
    """Calls ``late`` once if the body of the ``with`` has not ended after ``seconds``."""

    def __init__(self, name: str, seconds: float, late: Callable[[], None]) -> None:
        self._name, self._seconds, self._late = name, seconds, late
        self._over = threading.Event()

    def __enter__(self) -> None:
        threads.start(self._name, self._watch)

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        if not self._over.wait(self._seconds):
            self._late()
