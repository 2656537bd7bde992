"""Resources named by their identifiers alone, as the buttons of Orthanc Explorer 2 send them: finds their levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orthanc_transfers.core.errors import BadRequest, UnknownResource
from orthanc_transfers.core.json_fields import json_array, shown
from orthanc_transfers.core.model import Level, Resource

MAX_PLAIN = 1000
"""Plain identifiers in a request: each costs up to four questions."""

LEVELS = (Level.STUDY, Level.SERIES, Level.PATIENT, Level.INSTANCE)
"""Those that users name most often come first."""


def with_levels(resources: Any, exists: Callable[[Resource], bool]) -> list[Any]:
    """``Resources`` of a request with each plain identifier as ``{"Level", "ID"}``; all else as it is.

    Raises ``BadFile`` if it is no array, ``BadRequest`` if it has too many plain identifiers,
    ``UnknownResource`` for one that ``exists`` at no level.
    """
    items = json_array(resources, '"Resources"')
    plain = sum(isinstance(item, str) for item in items)
    if plain > MAX_PLAIN:
        raise BadRequest(f'"Resources" has {plain} identifiers without "Level", {MAX_PLAIN} are allowed')
    return [_with_level(item, exists) if isinstance(item, str) else item for item in items]


def _with_level(identifier: str, exists: Callable[[Resource], bool]) -> dict[str, str]:
    for level in LEVELS:
        if exists(Resource(level, identifier)):
            return {"Level": level.value, "ID": identifier}
    raise UnknownResource(f"no patient, study, series or instance has the identifier {shown(identifier)}")
