"""What the filters of rules look at, asked of Orthanc's index: one question for each kind of fact.

``/tools/bulk-content`` tells of all studies, series or instances around a resource at once, with their metadata: of
2000 instances in 0.1 s (tried on 1.10.1).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from orthanc_transfers.core.errors import ABSENT, HostError
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.core.orthanc_version import at_least
from orthanc_transfers.core.paths import COLLECTIONS, resource_path
from orthanc_transfers.core.rule_filter import Facts, Wanted
from orthanc_transfers.host.native.sdk import Sdk

_LABELS = (1, 12, 0)
"""The first version of Orthanc that has labels."""

_Source = Callable[[str], frozenset[str]]
"""What is known of where an instance came from, by its identifier."""


class OrthancFacts:
    """Implements ``interfaces.ResourceFacts``. To be used once Orthanc has started. Thread-safe.

    ``origin`` are the names that Orthanc may give the metadata of series in which their origin is kept.
    """

    def __init__(self, sdk: Sdk, source: _Source, origin: Collection[str] = ()) -> None:
        self._sdk = sdk
        self._source = source
        self._origin = origin

    def why_unusable(self, wanted: Wanted) -> str | None:
        """See ``interfaces.ResourceFacts``."""
        if wanted.labels and not at_least(self._sdk.version, _LABELS):
            return f'"Labels" need Orthanc 1.12.0 or later, and this is {self._sdk.version}'
        unknown = sorted(tag for tag in wanted.tags if not self._sdk.knows_tag(tag))
        return f'"Tags" has what is no DICOM tag to this Orthanc: {", ".join(unknown)}' if unknown else None

    def facts(self, resource: Resource, wanted: Wanted) -> Facts | None:
        """See ``interfaces.ResourceFacts``."""
        if wanted == Wanted():
            return Facts()
        if not IDENTIFIER.fullmatch(resource.id):
            return None
        item = self._get(resource_path(resource)) if wanted.labels else {}
        studies = self._around(resource, Level.STUDY) if wanted.tags or wanted.labels else []
        series = self._around(resource, Level.SERIES) if wanted.modalities else []
        of_each = wanted.aets or wanted.sources
        instances = self._around(resource, Level.INSTANCE) if of_each else []
        totals = self._totals(resource, instances, counted=of_each) if wanted.totals else (0, 0)
        missing = (
            item is None
            or totals is None
            or ((wanted.tags or wanted.labels) and not studies)
            or (wanted.modalities and not series)
            or (of_each and not instances)
        )
        if missing or totals is None or item is None:
            return None
        size, count = totals
        return Facts(
            modalities=frozenset(_text(one, "MainDicomTags", "Modality") for one in series) - {""},
            tags=self._tags(resource, wanted.tags, studies),
            labels=frozenset(label for one in (item, *studies) for label in one.get("Labels", ())),
            aets=frozenset(_text(one, "Metadata", "RemoteAET") for one in instances) - {""},
            sources=self._sources(resource, instances) if wanted.sources else frozenset(),
            size=size,
            instances=count,
        )

    def _sources(self, resource: Resource, instances: list[dict[str, Any]]) -> frozenset[frozenset[str]]:
        kept: dict[str, str] = {}
        for series in self._around(resource, Level.SERIES, metadata=True) if self._origin else ():
            metadata = _object(series, "Metadata")
            for name in self._origin:
                with contextlib.suppress(ValueError):
                    kept[series["ID"]] = _text(json.loads(str(metadata.get(name))), "Peer")
        # What this server received itself is known instance by instance.
        return frozenset(
            self._source(one["ID"]) or frozenset({kept.get(one["ParentSeries"], "")} - {""})
            for one in instances
        )

    def _totals(
        self, resource: Resource, instances: list[dict[str, Any]], *, counted: bool
    ) -> tuple[int, int] | None:
        """Bytes, and the number of instances; ``None`` if it is not stored."""
        if not counted and resource.level is Level.INSTANCE:
            instances, counted = self._around(resource, Level.INSTANCE), True
        if counted:
            return (sum(int(one["FileSize"]) for one in instances), len(instances)) if instances else None
        statistics = self._get(f"{resource_path(resource)}/statistics")
        # Of what it does not have, Orthanc 1.13.0 counts nothing, where others say 404.
        if statistics is None or not int(statistics["CountInstances"]):
            return None
        return int(statistics["DicomUncompressedSize"]), int(statistics["CountInstances"])

    def _tags(
        self, resource: Resource, wanted: Iterable[str], studies: list[dict[str, Any]]
    ) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        rest = []
        for tag in wanted:
            groups = [
                _object(one, key) for one in studies for key in ("MainDicomTags", "PatientMainDicomTags")
            ]
            values = frozenset(group[tag] for group in groups if isinstance(group.get(tag), str))
            if values:
                found[tag] = values
            else:
                rest.append(tag)
        if rest:
            file = self._first_file(resource)
            names = {_text(entry, "Name"): entry for entry in file.values()}
            for tag in rest:
                value = file.get(tag, names.get(tag, {})).get("Value")
                if isinstance(value, str):
                    found[tag] = frozenset({value})
        return found

    def _first_file(self, resource: Resource) -> dict[str, dict[str, Any]]:
        """The tags of one file of it, by their digits."""
        identifier: str | None = resource.id
        for level, children in (
            (Level.PATIENT, "Studies"),
            (Level.STUDY, "Series"),
            (Level.SERIES, "Instances"),
        ):
            if _DEPTH[level] >= _DEPTH[resource.level]:
                item = self._get(f"/{COLLECTIONS[level]}/{identifier}") or {}
                identifier = next(iter(item.get(children, ())), None)
                if identifier is None:
                    return {}
        return self._get(f"/instances/{identifier}/tags") or {}

    def _around(self, resource: Resource, level: Level, *, metadata: bool = False) -> list[dict[str, Any]]:
        """All above or below it at a level; none if it is not stored."""
        metadata = metadata or level is Level.INSTANCE
        query = {"Resources": [resource.id], "Level": level.value, "Metadata": metadata}
        found: list[dict[str, Any]] = json.loads(
            self._sdk.rest_post("/tools/bulk-content", json.dumps(query).encode())
        )
        return found

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            value = json.loads(self._sdk.rest_get(path))
        except HostError as error:
            if error.code in ABSENT:
                return None
            raise
        return value if isinstance(value, dict) else None


_DEPTH = {level: depth for depth, level in enumerate(Level)}


def _object(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _text(item: Mapping[str, Any], *keys: str) -> str:
    """The text at the end of some keys, without padding; empty if there is none."""
    for key in keys[:-1]:
        item = _object(item, key)
    value = item.get(keys[-1])
    return value.strip() if isinstance(value, str) else ""
