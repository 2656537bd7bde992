"""Every message of both versions of the protocol (``docs/protocol.md``): dataclass <-> JSON, strict about types.

``parse`` takes decoded JSON and raises ``BadRequest`` (400) with a sentence that names the key; ``to_json`` gives
what goes over the wire. Unknown keys are accepted: clients send more than they must.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orthanc_transfers.core.codec import Codec, Compression
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.model import Chunk, Instance, Level, Manifest, Resource
from orthanc_transfers.core.ranges import Range

SENDER_TRANSFER_ID = "sender-transfer-id"
"""On every request of a transfer, so that a load balancer can keep it on one server."""
CODEC_HEADER = "transfers-codec"
"""``Codec`` of a body of bytes, version 2."""
XXH3_HEADER = "transfers-xxh3"
"""``checksum.xxh3`` of a body of bytes as it is on the wire, version 2."""

_MB = 1024 * 1024
# 19 digits hold any size of a file, and are converted in no time.
_NATURAL = re.compile(r"[0-9]{1,20}", re.ASCII)
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)
# Priorities are 32-bit integers in Orthanc.
_INT32 = 2**31

# Spellings of C++ peers and clients, in lower case.
_LEVELS = {
    spelling: level
    for level, spellings in {
        Level.PATIENT: ("patient", "patients"),
        Level.STUDY: ("study", "studies"),
        Level.SERIES: ("series",),
        Level.INSTANCE: ("instance", "instances", "image", "images"),
    }.items()
    for spelling in spellings
}


class PushState(enum.Enum):
    """Where a push stands on its receiver."""

    RECEIVING = "receiving"
    COMMITTING = "committing"
    COMMITTED = "committed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """``POST /transfers/send`` and ``/transfers/pull``. ``resources_json`` is ``Resources`` as it came."""

    resources: tuple[Resource, ...]
    resources_json: Any = field(compare=False)
    peer: str
    compression: Compression = Compression.AUTO
    priority: int = 0
    sender_transfer_id: str | None = None
    originator: str | None = None

    @classmethod
    def parse(cls, value: Any) -> TransferRequest:
        message = _object(value, "a transfer")
        compression = message.get("Compression", Compression.AUTO.value)
        return cls(
            resources=parse_resources(_get(message, "Resources")),
            resources_json=message["Resources"],
            peer=_string(message, "Peer"),
            compression=_member(Compression, compression, "Compression"),
            priority=_int32(message.get("Priority", 0), "Priority"),
            sender_transfer_id=_header_text(message, "SenderTransferID"),
            originator=_string(message, "Originator") if "Originator" in message else None,
        )

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "Resources": self.resources_json,
            "Peer": self.peer,
            "Compression": self.compression.value,
            "Priority": self.priority,
        }
        if self.sender_transfer_id is not None:
            value["SenderTransferID"] = self.sender_transfer_id
        if self.originator is not None:
            value["Originator"] = self.originator
        return value


def parse_resources(value: Any) -> tuple[Resource, ...]:
    """The array of ``Resources``; also the body of ``POST /transfers/lookup``."""
    return tuple(_resource(item) for item in _array(value, "Resources"))


def _resource(value: Any) -> Resource:
    item = _object(value, "an item of Resources")
    level = _string(item, "Level")
    known = _LEVELS.get(level.lower())
    if known is None:
        raise BadRequest(f"Level must be Patient, Study, Series or Instance, not {_shown(level)}")
    return Resource(known, _string(item, "ID"))


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """The answer of ``POST /transfers/lookup``: instances in ascending order of identifier."""

    instances: tuple[Instance, ...]
    originator: str

    @classmethod
    def parse(cls, value: Any) -> LookupAnswer:
        message = _object(value, "the answer to a lookup")
        return cls(_instances(message), _string(message, "Originator"))

    def to_json(self) -> dict[str, Any]:
        size = sum(instance.size for instance in self.instances)
        return {
            "Instances": _instances_json(self.instances),
            "Originator": self.originator,
            "CountInstances": len(self.instances),
            "TotalSize": str(size),
            "TotalSizeMB": (size + _MB // 2) // _MB,
        }


@dataclass(frozen=True, slots=True)
class PushCreation:
    """``POST /transfers/push``. Whether the buckets fit the instances is found out when they arrive."""

    compression: Compression
    manifest: Manifest
    buckets: tuple[tuple[Chunk, ...], ...]

    @classmethod
    def parse(cls, value: Any) -> PushCreation:
        message = _object(value, "a push")
        compression = _member(Compression, _get(message, "Compression"), "Compression")
        if compression not in (Compression.NONE, Compression.GZIP):
            raise BadRequest(f"Compression must be none or gzip, not {compression.value}")
        # The last of several of the same name wins, as in the C++ plugin.
        instances = {instance.id: instance for instance in _instances(message)}
        buckets = tuple(
            tuple(_chunk(chunk) for chunk in _array(bucket, "an item of Buckets"))
            for bucket in _array(_get(message, "Buckets"), "Buckets")
        )
        return cls(compression, Manifest(instances.values()), buckets)

    def to_json(self) -> dict[str, Any]:
        return {
            "Compression": self.compression.value,
            "Instances": _instances_json(self.manifest),
            "Buckets": [
                [{"ID": chunk.id, "Offset": str(chunk.offset), "Size": str(chunk.size)} for chunk in bucket]
                for bucket in self.buckets
            ],
        }


@dataclass(frozen=True, slots=True)
class PushCreated:
    """The answer of ``POST /transfers/push``; ``path`` is relative to the root of the peer."""

    id: str
    path: str

    @classmethod
    def parse(cls, value: Any) -> PushCreated:
        message = _object(value, "the answer to a push")
        return cls(_string(message, "ID"), _path(message))

    def to_json(self) -> dict[str, Any]:
        return {"ID": self.id, "Path": self.path}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The answer of ``GET /transfers/capabilities``. ``max_body_size`` in bytes, before any codec."""

    protocols: tuple[int, ...]
    version: str
    originator: str
    codecs: tuple[Codec, ...]
    max_body_size: int

    @classmethod
    def parse(cls, value: Any) -> Capabilities:
        message = _object(value, "capabilities")
        protocols = _array(_get(message, "Protocols"), "Protocols")
        return cls(
            protocols=tuple(_natural(item, "an item of Protocols") for item in protocols),
            version=_string(message, "Version"),
            originator=_string(message, "Originator"),
            codecs=_codecs(message),
            max_body_size=_natural(_get(message, "MaxBodySize"), "MaxBodySize"),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "Protocols": list(self.protocols),
            "Version": self.version,
            "Originator": self.originator,
            "Codecs": [codec.value for codec in self.codecs],
            "MaxBodySize": self.max_body_size,
        }


@dataclass(frozen=True, slots=True)
class PushCreation2:
    """``POST /transfers/v2/push``. ``token``: 32 hex digits that name the transfer, chosen by the sender."""

    token: str
    manifest: Manifest

    @classmethod
    def parse(cls, value: Any) -> PushCreation2:
        message = _object(value, "a push")
        token = _string(message, "Token")
        if not _TOKEN.fullmatch(token):
            raise BadRequest("Token must be 32 lower-case hex digits")
        return cls(token, _manifest(message))

    def to_json(self) -> dict[str, Any]:
        return {"Token": self.token, "Instances": _instances_json(self.manifest)}


@dataclass(frozen=True, slots=True)
class PushStatus:
    """How a push of version 2 stands. ``missing`` and sizes in bytes; ``report`` counts outcomes of instances."""

    id: str
    path: str
    state: PushState
    missing: tuple[Range, ...] = ()
    imported: int = 0
    total: int = 0
    already_stored: int = 0
    already_stored_size: int = 0
    error: str | None = None
    report: dict[str, int] | None = None

    @classmethod
    def parse(cls, value: Any) -> PushStatus:
        message = _object(value, "the status of a push")
        report = message.get("Report")
        return cls(
            id=_string(message, "ID"),
            path=_path(message),
            state=_member(PushState, _get(message, "State"), "State"),
            missing=tuple(_range(item) for item in _array(_get(message, "Missing"), "Missing")),
            imported=_natural(_get(message, "Imported"), "Imported"),
            total=_natural(_get(message, "Total"), "Total"),
            already_stored=_natural(_get(message, "AlreadyStored"), "AlreadyStored"),
            already_stored_size=_size(message, "AlreadyStoredSize"),
            error=_string(message, "Error") if message.get("Error") is not None else None,
            report=None if report is None else _counts(report),
        )

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "ID": self.id,
            "Path": self.path,
            "State": self.state.value,
            "Missing": [[item.start, item.stop] for item in self.missing],
            "Imported": self.imported,
            "Total": self.total,
            "AlreadyStored": self.already_stored,
            "AlreadyStoredSize": str(self.already_stored_size),
        }
        if self.error is not None:
            value["Error"] = self.error
        if self.report is not None:
            value["Report"] = self.report
        return value


@dataclass(frozen=True, slots=True)
class ChunksRequest:
    """``POST /transfers/v2/chunks``. ``codecs``: those that the caller can decode."""

    chunks: tuple[Chunk, ...]
    codecs: tuple[Codec, ...]
    compression: Compression

    @classmethod
    def parse(cls, value: Any) -> ChunksRequest:
        message = _object(value, "a request for chunks")
        return cls(
            chunks=tuple(_compact_chunk(item) for item in _array(_get(message, "Chunks"), "Chunks")),
            codecs=_codecs(message),
            compression=_member(Compression, _get(message, "Compression"), "Compression"),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "Chunks": [[chunk.id, chunk.offset, chunk.size] for chunk in self.chunks],
            "Codecs": [codec.value for codec in self.codecs],
            "Compression": self.compression.value,
        }


# -- Parts of messages --------------------------------------------------------------------------------


def _instances(message: dict[str, Any]) -> tuple[Instance, ...]:
    return tuple(_instance(item) for item in _array(_get(message, "Instances"), "Instances"))


def _instance(value: Any) -> Instance:
    item = _object(value, "an item of Instances")
    return Instance(_string(item, "ID"), _size(item, "Size"), _string(item, "MD5").lower())


def _instances_json(instances: Iterable[Instance]) -> list[dict[str, str]]:
    return [{"ID": instance.id, "Size": str(instance.size), "MD5": instance.md5} for instance in instances]


def _manifest(message: dict[str, Any]) -> Manifest:
    try:
        return Manifest(_instances(message))
    except ValueError as error:
        raise BadRequest(f"Instances: {error}") from None


def _chunk(value: Any) -> Chunk:
    item = _object(value, "a chunk of Buckets")
    return Chunk(_string(item, "ID"), _size(item, "Offset"), _size(item, "Size"))


def _compact_chunk(value: Any) -> Chunk:
    item = _array(value, "an item of Chunks")
    if len(item) != 3 or not isinstance(item[0], str):
        raise BadRequest("an item of Chunks must be [identifier, offset, size]")
    return Chunk(item[0], _natural(item[1], "an offset of Chunks"), _natural(item[2], "a size of Chunks"))


def _range(value: Any) -> Range:
    item = _array(value, "an item of Missing")
    if len(item) != 2:
        raise BadRequest("an item of Missing must be [start, stop]")
    start, stop = (_natural(bound, "a bound of Missing") for bound in item)
    if start > stop:
        raise BadRequest("a range of Missing ends before it starts")
    return Range(start, stop)


def _codecs(message: dict[str, Any]) -> tuple[Codec, ...]:
    """Those that this version knows: a later one may name more."""
    known = {codec.value: codec for codec in Codec}
    names = _array(_get(message, "Codecs"), "Codecs")
    return tuple(known[name] for name in names if isinstance(name, str) and name in known)


def _counts(value: Any) -> dict[str, int]:
    return {name: _natural(count, f"Report.{name}") for name, count in _object(value, "Report").items()}


def _path(message: dict[str, Any]) -> str:
    path = _string(message, "Path")
    # The path becomes a part of a URL of ours, and of a line of HTTP.
    if not re.fullmatch(r"/[!-~]*", path):
        raise BadRequest(f"Path is not one: {_shown(path)}")
    return path


# -- Types ----------------------------------------------------------------------------------------------


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(f"{what} must be a JSON object, not {_shown(value)}")
    return value


def _array(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadFile(f"{what} must be a JSON array, not {_shown(value)}")
    return value


def _get(message: dict[str, Any], key: str) -> Any:
    if key not in message:
        raise BadRequest(f"the key {key} is missing")
    return message[key]


def _string(message: dict[str, Any], key: str) -> str:
    value = _get(message, key)
    if not isinstance(value, str):
        raise BadRequest(f"{key} must be a string, not {_shown(value)}")
    return value


def _header_text(message: dict[str, Any], key: str) -> str | None:
    """A string that is going to be the value of an HTTP header."""
    if key not in message:
        return None
    value = _string(message, key)
    if len(value) > 256 or not re.fullmatch(r"[ -~]*", value):
        raise BadRequest(f"{key} must be up to 256 printable ASCII characters")
    return value


def _size(message: dict[str, Any], key: str) -> int:
    """A decimal number in a string: JSON's own numbers are doubles to many."""
    value = _get(message, key)
    if not isinstance(value, str) or not _NATURAL.fullmatch(value):
        raise BadRequest(f"{key} must be a string with a decimal number, not {_shown(value)}")
    return int(value)


def _natural(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise BadRequest(f"{what} must be a natural number, not {_shown(value)}")
    return value


def _int32(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT32 <= value < _INT32:
        raise BadRequest(f"{what} must be an integer of 32 bits, not {_shown(value)}")
    return value


E = TypeVar("E", bound=enum.Enum)


def _member(kind: type[E], value: Any, key: str) -> E:
    names = [member.value for member in kind]
    # A list or an object would not be hashable, a number never equal.
    if not isinstance(value, str) or value not in names:
        raise BadRequest(f"{key} must be {', '.join(names[:-1])} or {names[-1]}, not {_shown(value)}")
    return kind(value)


def _shown(value: Any) -> str:
    """A value as an error may quote it: short, whatever a peer sent."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:60] + "…"
