"""Lists labels, user-defined metadata and attachments of resources, of those below and of those above them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.extras import MAX_ATTACHMENT, MAX_ORIGIN, MAX_VALUE, Extra, Kind
from orthanc_transfers.core.json_fields import is_text
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.paths import resource_path
from orthanc_transfers.host.instance_index import InstanceIndex
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.user_numbers import UserNumbers
from orthanc_transfers.runtime.cancellation import Cancellation

# Instances named by a request that Orthanc is asked of at once.
_BATCH = 500
# Instances of a series that Orthanc lists at once.
_PAGE = 2048


@dataclass(slots=True)
class ExtrasListing:
    """One listing. ``run`` fills ``found`` and ``notes``, sentences on what cannot be transferred."""

    sdk: Sdk
    index: InstanceIndex
    numbers: UserNumbers
    kinds: Collection[Kind]
    cancellation: Cancellation
    found: list[Extra] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, resources: Sequence[Resource]) -> None:
        """Raises ``Canceled``, ``HostError``."""
        above = self._each_once(
            item
            for level in (Level.PATIENT, Level.STUDY, Level.SERIES)
            for item in self._bulk([one.id for one in resources], level)
        )
        if Kind.ORIGIN in self.kinds:
            for item in above:
                if item["Type"] == Level.SERIES.value:
                    self._add_origin(item)
        if not {Kind.LABEL, Kind.METADATA, Kind.ATTACHMENT} & set(self.kinds):
            return
        for item in above:
            self._add(item)
        named = [one.id for one in resources if one.level is Level.INSTANCE]
        others = [one.id for one in resources if one.level is not Level.INSTANCE]
        for item in self._each_once(self._bulk(named, Level.INSTANCE)):
            self._add(item)
        for series in self._each_once(self._bulk(others, Level.SERIES)):
            for item in self._instances(series["ID"]):
                self._add(item)

    def _each_once(self, items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return list({item["ID"]: item for item in items}.values())

    def _bulk(self, identifiers: Sequence[str], level: Level) -> Iterator[dict[str, Any]]:
        waiting = iter(identifiers)
        while batch := list(itertools.islice(waiting, _BATCH)):
            self.cancellation.check()
            query = {"Resources": batch, "Level": level.value, "Metadata": True}
            yield from json.loads(self.sdk.rest_post("/tools/bulk-content", json.dumps(query).encode()))

    def _instances(self, series: str) -> Iterator[dict[str, Any]]:
        if not self.index.has_extended_find:
            yield from self._bulk([series], Level.INSTANCE)
            return
        query = {
            "Level": "Instance",
            "Query": {},
            "ParentSeries": series,
            "ResponseContent": ["Metadata", "Labels", "Attachments"],
            "Limit": _PAGE,
        }
        for since in itertools.count(0, _PAGE):
            self.cancellation.check()
            body = json.dumps({**query, "Since": since}).encode()
            items = json.loads(self.sdk.rest_post("/tools/find", body))
            yield from items
            if len(items) < _PAGE:
                return

    def _add(self, item: Mapping[str, Any]) -> None:
        resource = Resource(Level(item["Type"]), item["ID"])
        if Kind.LABEL in self.kinds:
            self.found.extend(Extra(resource, Kind.LABEL, label) for label in item.get("Labels", ()))
        if Kind.METADATA in self.kinds:
            for name, value in item["Metadata"].items():
                self._add_metadata(resource, name, value)
        if Kind.ATTACHMENT in self.kinds:
            for number in self._attachments(resource, item):
                self._add_attachment(resource, number)

    def _add_metadata(self, resource: Resource, name: str, value: str) -> None:
        number = self.numbers.metadata(name)
        if number is None:
            return
        extra = Extra(resource, Kind.METADATA, self.numbers.metadata_name(number), number, value)
        # Orthanc replaces what is not UTF-8 in its JSON.
        if "\ufffd" in value or not is_text(value):
            self.notes.append(f"{extra.shown} is not text in UTF-8")
        elif len(value.encode()) > MAX_VALUE:
            self.notes.append(f"{extra.shown} has more than {MAX_VALUE} bytes")
        else:
            self.found.append(extra)

    def _attachments(self, resource: Resource, item: Mapping[str, Any]) -> Iterator[int]:
        if "Attachments" in item:
            numbers = [attachment["ContentType"] for attachment in item["Attachments"]]
        else:
            answer = self.index.get(f"{resource_path(resource)}/attachments?full")
            numbers = [] if answer is None else list(json.loads(answer).values())
        return (number for number in sorted(numbers) if self.numbers.is_users(number))

    def _add_attachment(self, resource: Resource, number: int) -> None:
        path = f"{resource_path(resource)}/attachments/{number}"
        self.cancellation.check()
        info = self.index.get(f"{path}/info")
        if info is None:
            return  # deleted meanwhile
        described = json.loads(info)
        size, digest = int(described["UncompressedSize"]), described.get("UncompressedMD5", "")
        name = self.numbers.attachment_name(number)
        extra = Extra(resource, Kind.ATTACHMENT, name, number, size=size, md5=digest)
        if size > MAX_ATTACHMENT:
            self.notes.append(f"{extra.shown} has {size} bytes, {MAX_ATTACHMENT} can be transferred")
            return
        if not digest:
            # Orthanc keeps none (StoreMD5ForAttachments).
            digest = md5(self.sdk.rest_get(f"{path}/data"))
        self.found.append(Extra(resource, Kind.ATTACHMENT, name, number, size=size, md5=digest))

    def _add_origin(self, series: Mapping[str, Any]) -> None:
        """From its first instance: Orthanc keeps the address of each, and the AET of the series."""
        instances = series.get("Instances") or ()
        resource = Resource(Level.SERIES, series["ID"])
        answer = self.index.get(f"/instances/{instances[0]}/metadata?expand") if instances else None
        if answer is None:
            return
        metadata = json.loads(answer)
        origin = {key: metadata[key] for key in ("Origin", "RemoteAET", "RemoteIP") if metadata.get(key)}
        value = json.dumps(origin)
        if len(value) <= MAX_ORIGIN:
            self.found.append(Extra(resource, Kind.ORIGIN, value=value))
