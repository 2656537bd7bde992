"""Who and what a transfer carries, asked of Orthanc's index, and remembered for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.transfer_record import StudyText
from orthanc_transfers.interfaces import Clock, StudyTexts

KNOWN = 2000
"""Resources whose text is remembered."""

AGAIN = 30.0
"""Seconds after which a resource that was not here is asked for again."""


class Texts:
    """Texts by resource. Thread-safe."""

    def __init__(self, index: StudyTexts, clock: Clock) -> None:
        self._index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[Resource, tuple[StudyText | None, float]] = OrderedDict()

    def remembered(self, resource: Resource) -> tuple[bool, StudyText | None]:
        """Whether it need not be asked for, and the text. Never blocks."""
        with self._lock:
            text, asked = self._known.get(resource, (None, float("-inf")))
        return text is not None or self._clock.monotonic() - asked < AGAIN, text

    def ask(self, resource: Resource) -> StudyText | None:
        """The text as the index has it now; ``None`` if the resource is not here."""
        text = self._index.text(resource)
        with self._lock:
            self._known[resource] = (text, self._clock.monotonic())
            self._known.move_to_end(resource)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return text


def first_resource(shown: Mapping[str, Any]) -> Resource | None:
    """The resource that stands for a transfer that is shown."""
    resources = shown.get("Resources") or ()
    return Resource(Level(resources[0]["Level"]), resources[0]["ID"]) if resources else None
