"""JSON messages of version 1 and of the user's API: dataclass <-> JSON, strict about types.

Each message has ``parse``, which raises ``BadFile`` or ``BadRequest`` (both 400) with a sentence that names
the key, and ``to_json``. Unknown keys are ignored. See docs/protocol.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.extras import ExtrasWanted
from orthanc_transfers.core.json_fields import (
    array_field,
    compression_field,
    decimal_string,
    instances_field,
    instances_to_json,
    json_array,
    json_object,
    more_field,
    path_field,
    patients_field,
    required_field,
    shown,
    string_field,
)
from orthanc_transfers.core.model import Chunk, Instance, Level, Manifest, Resource
from orthanc_transfers.core.safe_json import MAX_NESTING
from orthanc_transfers.core.transfer_syntaxes import transcode_field, transcode_to_json

SENDER_TRANSFER_ID = "sender-transfer-id"
"""Header: what the sender calls its transfer."""

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """``POST /transfers/send`` and ``/transfers/pull``.

    ``resources_json`` is the value of ``Resources`` as the user wrote it. ``sender_transfer_id`` is ``None``
    if the user named none, ``originator`` if no particular process is expected.
    """

    resources: tuple[Resource, ...]
    resources_json: Any
    peer: str
    compression: Compression = Compression.AUTO
    priority: int = 0
    sender_transfer_id: str | None = None
    originator: str | None = None
    extras: ExtrasWanted = field(default_factory=ExtrasWanted)
    """What travels besides DICOM."""
    transcode: str | None = None
    """UID of the transfer syntax in which it is sent; ``None``: as it is stored."""

    @classmethod
    def parse(cls, value: Any) -> TransferRequest:
        body = json_object(value, "the body")
        resources_json = required_field(body, "Resources")
        resources = parse_resources(resources_json)
        _check_verbatim(resources_json)
        return cls(
            resources=resources,
            resources_json=resources_json,
            peer=string_field(body, "Peer"),
            compression=compression_field(body),
            priority=_priority(body),
            sender_transfer_id=_header_value(body, "SenderTransferID"),
            originator=string_field(body, "Originator") if "Originator" in body else None,
            extras=ExtrasWanted.parse(body),
            transcode=transcode_field(body),
        )

    def to_json(self) -> dict[str, Any]:
        value = {
            "Resources": self.resources_json,
            "Peer": self.peer,
            "Compression": self.compression.value,
            "Priority": self.priority,
        }
        if self.sender_transfer_id is not None:
            value["SenderTransferID"] = self.sender_transfer_id
        if self.originator is not None:
            value["Originator"] = self.originator
        return {**value, **transcode_to_json(self.transcode), **self.extras.to_json()}


def parse_resources(value: Any) -> tuple[Resource, ...]:
    """The array of ``{"Level", "ID"}``: the body of ``POST /transfers/lookup``, and ``Resources`` elsewhere."""
    resources = []
    for item in json_array(value, '"Resources"'):
        resource = json_object(item, 'each of "Resources"')
        level = string_field(resource, "Level")
        found = _LEVELS.get(level.lower())
        if found is None:
            raise BadRequest(f'"Level" must be Patient, Study, Series or Instance, and is {shown(level)}')
        resources.append(Resource(found, string_field(resource, "ID")))
    return tuple(resources)


@dataclass(frozen=True, slots=True)
class LookupResponse:
    """The response to ``POST /transfers/lookup``. ``originator`` is the identifier of the responding process.

    ``more`` is the number of instances that come after these, if only the first were asked for. ``patients`` are
    identifiers, if they were asked for.
    """

    instances: tuple[Instance, ...]
    originator: str
    more: int = 0
    patients: frozenset[str] | None = None

    @classmethod
    def parse(cls, value: Any) -> LookupResponse:
        """Counts and sums are ignored. An instance named twice counts once."""
        body = json_object(value, "the response")
        return cls(
            instances_field(body), string_field(body, "Originator"), more_field(body), patients_field(body)
        )

    def to_json(self) -> dict[str, Any]:
        size = sum(instance.size for instance in self.instances)
        value: dict[str, Any] = {
            "Instances": instances_to_json(self.instances),
            "Originator": self.originator,
            "CountInstances": len(self.instances),
            "TotalSize": str(size),
            "TotalSizeMB": (size + _MB // 2) // _MB,
        }
        if self.more:
            value["More"] = self.more
        if self.patients is not None:
            value["Patients"] = sorted(self.patients)
        return value


@dataclass(frozen=True, slots=True)
class PushCreationV1:
    """``POST /transfers/push``. ``compression`` is ``NONE`` or ``GZIP``, of all buckets alike.

    Buckets may name instances that are not in the manifest, or lie beyond their ends: that is found out when
    they arrive.
    """

    compression: Compression
    manifest: Manifest
    buckets: tuple[tuple[Chunk, ...], ...]

    @classmethod
    def parse(cls, value: Any) -> PushCreationV1:
        body = json_object(value, "the body")
        compression = string_field(body, "Compression")
        if compression not in (Compression.NONE.value, Compression.GZIP.value):
            raise BadRequest(f'"Compression" must be none or gzip, and is {shown(compression)}')
        return cls(
            Compression(compression),
            Manifest(instances_field(body)),
            tuple(_bucket(bucket) for bucket in array_field(body, "Buckets")),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "Compression": self.compression.value,
            "Instances": instances_to_json(self.manifest),
            "Buckets": [
                [{"ID": chunk.id, "Offset": str(chunk.offset), "Size": str(chunk.size)} for chunk in bucket]
                for bucket in self.buckets
            ],
        }


@dataclass(frozen=True, slots=True)
class PushCreated:
    """The response to ``POST /transfers/push``. ``path`` is relative to the root of the peer."""

    id: str
    path: str

    @classmethod
    def parse(cls, value: Any) -> PushCreated:
        body = json_object(value, "the response")
        return cls(string_field(body, "ID"), path_field(body))

    def to_json(self) -> dict[str, Any]:
        return {"ID": self.id, "Path": self.path}


_LEVELS = {
    "patient": Level.PATIENT,
    "patients": Level.PATIENT,
    "study": Level.STUDY,
    "studies": Level.STUDY,
    "series": Level.SERIES,
    "instance": Level.INSTANCE,
    "instances": Level.INSTANCE,
    "image": Level.INSTANCE,
    "images": Level.INSTANCE,
}


def _priority(body: Mapping[str, Any]) -> int:
    value = body.get("Priority", 0)
    if type(value) is not int:
        raise BadFile(f'"Priority" must be an integer, and is {shown(value)}')
    if not -(2**31) <= value < 2**31:
        raise BadRequest(f'"Priority" must be an integer of 32 bits, and is {shown(value)}')
    return value


def _header_value(body: Mapping[str, Any], key: str) -> str | None:
    if key not in body:
        return None
    value = string_field(body, key)
    # It travels in an HTTP header.
    if not (value.isascii() and value.isprintable()):
        raise BadRequest(f'"{key}" must be printable ASCII, and is {shown(value)}')
    return value


def _bucket(value: Any) -> tuple[Chunk, ...]:
    chunks = []
    for item in json_array(value, 'each of "Buckets"'):
        chunk = json_object(item, 'each chunk of "Buckets"')
        chunks.append(
            Chunk(
                string_field(chunk, "ID"),
                decimal_string(required_field(chunk, "Offset"), "Offset"),
                decimal_string(required_field(chunk, "Size"), "Size"),
            )
        )
    return tuple(chunks)


def _check_verbatim(value: Any) -> None:
    """What is copied into the job must be JSON that Orthanc reads: not too deep, and without NaN."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise BadRequest(f'"Resources" is nested more than {MAX_NESTING} deep')
        if isinstance(item, dict):
            waiting.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list):
            waiting.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise BadFile('"Resources" holds a number that JSON does not have')
