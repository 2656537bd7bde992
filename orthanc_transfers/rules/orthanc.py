"""What rules ask of the Orthanc in whose process they run, by its own REST API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource

_PARENTS = {
    Level.INSTANCE: ("ParentSeries", Level.SERIES),
    Level.SERIES: ("ParentStudy", Level.STUDY),
    Level.STUDY: ("ParentPatient", Level.PATIENT),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One row of Orthanc's list of changes."""

    number: int
    type: str
    resource: str


class LocalOrthanc:
    """``get``, ``post``, ``put`` and ``delete`` are Orthanc's own responses; they raise ``HostError``. Thread-safe."""

    def __init__(
        self,
        get: Callable[[str], bytes],
        put: Callable[[str, Buffer], bytes],
        post: Callable[[str, Buffer], bytes],
        delete: Callable[[str], None],
    ) -> None:
        self.get = get
        self.post = post
        self.delete = delete
        self._get = get
        self._put = put

    # --- changes

    def changes(self, since: int, limit: int) -> tuple[list[Change], bool]:
        """Those after a number, and whether there are no others."""
        value = json.loads(self._get(f"{paths.CHANGES}?since={since}&limit={limit}"))
        rows = [Change(int(one["Seq"]), str(one["ChangeType"]), str(one["ID"])) for one in value["Changes"]]
        return rows, bool(value["Done"])

    def last_change(self) -> int:
        """The number of the last one; 0 if there was none."""
        return int(json.loads(self._get(f"{paths.CHANGES}?last"))["Last"])

    # --- resources

    def described(self, resource: Resource) -> Mapping[str, Any] | None:
        """What Orthanc says of it; ``None`` if it is not stored."""
        text = self._of(resource)
        value = None if text is None else json.loads(text)
        return value if isinstance(value, dict) else None

    def _of(self, resource: Resource, more: str = "") -> bytes | None:
        if not IDENTIFIER.fullmatch(resource.id):
            return None
        try:
            return self._get(paths.resource_path(resource) + more)
        except HostError as error:
            if error.absent:
                return None
            raise

    def last_update(self, resource: Resource) -> str | None:
        """When it last got an instance, as Orthanc writes it; empty for instances, ``None`` if it is not stored."""
        described = self.described(resource)
        return None if described is None else str(described.get("LastUpdate", ""))

    def lifted(self, resource: Resource, level: Level) -> Resource | None:
        """The resource of that level to which it belongs; ``None`` if it is not stored."""
        while resource.level is not level:
            described = self.described(resource)
            if described is None:
                return None
            key, above = _PARENTS[resource.level]
            resource = Resource(above, str(described[key]))
        return resource

    def parents(self, level: Level, identifiers: Sequence[str]) -> dict[str, str]:
        """Of those resources of a level that are stored, each with the one above it."""
        key, _ = _PARENTS[level]
        query = {"Resources": list(identifiers), "Level": level.value, "Metadata": False}
        items = json.loads(self.post(paths.BULK_CONTENT, json.dumps(query).encode()))
        return {str(item["ID"]): str(item[key]) for item in items}

    def page(self, level: Level, since: int, limit: int) -> list[str]:
        """Identifiers of some of the resources of a level."""
        found = json.loads(self._get(f"/{paths.COLLECTIONS[level]}?since={since}&limit={limit}"))
        return [str(one) for one in found]

    # --- marks

    def add_label(self, resource: Resource, label: str) -> None:
        """Raises ``HostError``: before Orthanc 1.12 there are no labels."""
        self._put(f"{paths.resource_path(resource)}/labels/{label}", b"")

    def set_metadata(self, resource: Resource, name: str, value: str) -> None:
        """Raises ``HostError``."""
        self._put(f"{paths.resource_path(resource)}/metadata/{name}", value.encode())
