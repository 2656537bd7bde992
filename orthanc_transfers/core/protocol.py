"""Every message of versions 1 and 2: dataclass <-> JSON, strict about types.

Each message has ``parse``, which raises ``BadFile`` or ``BadRequest`` (both 400) with a sentence that names
the key, and ``to_json``. Keys that are not known are accepted everywhere. See docs/protocol.md.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.codec import LEVEL, LEVEL_OF_SLOW_LINES, Codec, Compression
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.json_text import MOST_NESTED
from orthanc_transfers.core.model import Chunk, Instance, Level, Manifest, Resource
from orthanc_transfers.core.ranges import Range

SENDER_TRANSFER_ID = "sender-transfer-id"
CODEC_HEADER = "transfers-codec"
FIRST_HEADER = "transfers-first"
XXH3_HEADER = "transfers-xxh3"
ENCODING_HEADER = "transfers-encoding-seconds"

PUSH_PATH = "/transfers/v2/push"

MAX_SIZE = 2**63 - 1
"""Bytes; the largest size and offset that a message may hold."""

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """``POST /transfers/send`` and ``/transfers/pull``.

    ``resources_json`` is the value of ``Resources`` as the user wrote it. ``sender_transfer_id`` is ``None``
    if the user named none, ``originator`` if nobody is expected in particular.
    """

    resources: tuple[Resource, ...]
    resources_json: Any
    peer: str
    compression: Compression = Compression.AUTO
    priority: int = 0
    sender_transfer_id: str | None = None
    originator: str | None = None

    @classmethod
    def parse(cls, value: Any) -> TransferRequest:
        body = _object(value, "the body")
        resources_json = _required(body, "Resources")
        resources = parse_resources(resources_json)
        _check_verbatim(resources_json)
        return cls(
            resources=resources,
            resources_json=resources_json,
            peer=_string(body, "Peer"),
            compression=_compression(body),
            priority=_priority(body),
            sender_transfer_id=_header_value(body, "SenderTransferID"),
            originator=_string(body, "Originator") if "Originator" in body else None,
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
        return value


def parse_resources(value: Any) -> tuple[Resource, ...]:
    """The array of ``{"Level", "ID"}``: the body of ``POST /transfers/lookup``, and ``Resources`` elsewhere."""
    resources = []
    for item in _array(value, '"Resources"'):
        resource = _object(item, 'each of "Resources"')
        level = _string(resource, "Level")
        found = _LEVELS.get(level.lower())
        if found is None:
            raise BadRequest(f'"Level" must be Patient, Study, Series or Instance, and is {_shown(level)}')
        resources.append(Resource(found, _string(resource, "ID")))
    return tuple(resources)


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """The answer to ``POST /transfers/lookup``. ``originator`` is the identifier of the answering process.

    ``more`` is the number of instances that come after these, if only the first were asked for.
    """

    instances: tuple[Instance, ...]
    originator: str
    more: int = 0

    @classmethod
    def parse(cls, value: Any) -> LookupAnswer:
        """What matters; the counts and sums are not looked at. An instance named twice counts once."""
        body = _object(value, "the answer")
        return cls(_instances(body), _string(body, "Originator"), _more(body))

    def to_json(self) -> dict[str, Any]:
        size = sum(instance.size for instance in self.instances)
        value = {
            "Instances": _instances_json(self.instances),
            "Originator": self.originator,
            "CountInstances": len(self.instances),
            "TotalSize": str(size),
            "TotalSizeMB": (size + _MB // 2) // _MB,
        }
        return {**value, "More": self.more} if self.more else value


@dataclass(frozen=True, slots=True)
class PushCreation:
    """``POST /transfers/push``. ``compression`` is ``NONE`` or ``GZIP``, of all buckets alike.

    Buckets may name instances that are not in the manifest, or lie beyond their ends: that is found out when
    they arrive.
    """

    compression: Compression
    manifest: Manifest
    buckets: tuple[tuple[Chunk, ...], ...]

    @classmethod
    def parse(cls, value: Any) -> PushCreation:
        body = _object(value, "the body")
        compression = _string(body, "Compression")
        if compression not in (Compression.NONE.value, Compression.GZIP.value):
            raise BadRequest(f'"Compression" must be none or gzip, and is {_shown(compression)}')
        return cls(
            Compression(compression),
            Manifest(_instances(body)),
            tuple(_bucket(bucket) for bucket in _array_at(body, "Buckets")),
        )

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
    """The answer to ``POST /transfers/push``. ``path`` is relative to the root of the peer."""

    id: str
    path: str

    @classmethod
    def parse(cls, value: Any) -> PushCreated:
        body = _object(value, "the answer")
        return cls(_string(body, "ID"), _path(body))

    def to_json(self) -> dict[str, Any]:
        return {"ID": self.id, "Path": self.path}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The answer to ``GET /transfers/capabilities``. Codecs that are not known here are left out."""

    protocols: tuple[int, ...]
    version: str
    originator: str
    codecs: tuple[Codec, ...]
    max_body_size: int
    """Bytes that a body may have, before and after its codec."""
    growing: bool = False
    """Whether a push may be created with its first instances, and the others be announced later."""

    @classmethod
    def parse(cls, value: Any) -> Capabilities:
        body = _object(value, "the answer")
        protocols = _array_at(body, "Protocols")
        return cls(
            tuple(_natural(protocol, 'each of "Protocols"') for protocol in protocols),
            _string(body, "Version"),
            _string(body, "Originator"),
            _codecs(body),
            _natural(_required(body, "MaxBodySize"), '"MaxBodySize"'),
            _flag(body, "Growing"),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "Protocols": list(self.protocols),
            "Version": self.version,
            "Originator": self.originator,
            "Codecs": [codec.value for codec in self.codecs],
            "MaxBodySize": self.max_body_size,
            "Growing": self.growing,
        }


@dataclass(frozen=True, slots=True)
class PushCreation2:
    """``POST /transfers/v2/push``. ``token``, 32 hexadecimal digits, is the same for the same transfer.

    ``more`` instances will be announced by a later creation with all of them.
    """

    token: str
    manifest: Manifest
    more: int = 0

    @classmethod
    def parse(cls, value: Any) -> PushCreation2:
        body = _object(value, "the body")
        token = _string(body, "Token")
        if not re.fullmatch("[0-9a-f]{32}", token):
            raise BadRequest(f'"Token" must be 32 lower-case hexadecimal digits, and is {_shown(token)}')
        return cls(token, Manifest(_instances(body)), _more(body))

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"Token": self.token, "Instances": _instances_json(self.manifest)}
        return {**value, "More": self.more} if self.more else value


class PushState(enum.Enum):
    """Where a push stands on the receiver."""

    RECEIVING = "receiving"
    COMMITTING = "committing"
    COMMITTED = "committed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PushStatus:
    """Where a push of version 2 stands: the answer to its creation, to ``GET`` and to ``POST …/commit``."""

    id: str
    path: str
    state: PushState
    missing: tuple[Range, ...] = ()
    """Ranges of the area that the receiver needs."""
    imported: int = 0
    """Instances imported so far, of ``total``."""
    total: int = 0
    already_stored: int = 0
    """Instances that the receiver had before, and their bytes."""
    already_stored_size: int = 0
    error: str | None = None
    """One sentence, if it failed."""
    report: dict[str, int] | None = None
    """How many instances were ``Stored``, ``AlreadyStored``, ``FilteredOut``; once committed."""

    @classmethod
    def parse(cls, value: Any) -> PushStatus:
        body = _object(value, "the answer")
        identifier = _string(body, "ID")
        state = _string(body, "State")
        if state not in _STATES:
            raise BadFile(f'"State" must be one of {", ".join(_STATES)}, and is {_shown(state)}')
        return cls(
            id=identifier,
            path=_path(body) if "Path" in body else f"{PUSH_PATH}/{identifier}",
            state=_STATES[state],
            missing=tuple(map(_range, _array_at(body, "Missing"))),
            imported=_natural(body.get("Imported", 0), '"Imported"'),
            total=_natural(body.get("Total", 0), '"Total"'),
            already_stored=_natural(body.get("AlreadyStored", 0), '"AlreadyStored"'),
            already_stored_size=(
                _decimal(body["AlreadyStoredSize"], "AlreadyStoredSize") if "AlreadyStoredSize" in body else 0
            ),
            error=_string(body, "Error") if "Error" in body else None,
            report=_report(body["Report"]) if "Report" in body else None,
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
    """``POST /transfers/v2/chunks``. ``codecs`` are the accepted ones, but for those not known here.

    ``level`` is of zstd.
    """

    chunks: tuple[Chunk, ...]
    codecs: tuple[Codec, ...]
    compression: Compression = Compression.AUTO
    level: int = LEVEL

    @classmethod
    def parse(cls, value: Any) -> ChunksRequest:
        body = _object(value, "the body")
        chunks = []
        for item in _array_at(body, "Chunks"):
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
                raise BadFile(f'each of "Chunks" must be [id, offset, size], and one is {_shown(item)}')
            offset, size = (_natural(number, 'each offset and size of "Chunks"') for number in item[1:])
            chunks.append(Chunk(item[0], offset, size))
        level = _natural(body.get("Level", LEVEL), '"Level"')
        if level not in (LEVEL, LEVEL_OF_SLOW_LINES):
            raise BadRequest(f'"Level" must be {LEVEL} or {LEVEL_OF_SLOW_LINES}, and is {_shown(level)}')
        return cls(tuple(chunks), _codecs(body), _compression(body), level)

    def to_json(self) -> dict[str, Any]:
        return {
            "Chunks": [[chunk.id, chunk.offset, chunk.size] for chunk in self.chunks],
            "Codecs": [codec.value for codec in self.codecs],
            "Compression": self.compression.value,
            "Level": self.level,
        }


def parse_seconds(text: str | None) -> float:
    """The value of a header that says how long something took; 0 where it says nothing sensible."""
    if text is None or not _SECONDS.fullmatch(text):
        return 0.0
    return float(text)


# --- what messages are made of

_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")

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

_STATES = {state.value: state for state in PushState}
_KNOWN_CODECS = {codec.value: codec for codec in Codec}
_COMPRESSIONS = {compression.value: compression for compression in Compression}

# Of MAX_SIZE; what has more is not even converted.
_MOST_DIGITS = 19


def _shown(value: Any) -> str:
    # repr of something deep or long is cut before it is made.
    match value:
        case dict():
            return "an object"
        case list():
            return f"an array of {len(value)}"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:60]}…")
        case int() if not isinstance(value, bool) and abs(value) > MAX_SIZE:
            return "beyond 2^63"
    return json.dumps(value)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(f"{name} must be a JSON object, and is {_shown(value)}")
    return value


def _array(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadFile(f"{name} must be a JSON array, and is {_shown(value)}")
    return value


def _array_at(body: Mapping[str, Any], key: str) -> list[Any]:
    return _array(_required(body, key), f'"{key}"')


def _required(body: Mapping[str, Any], key: str) -> Any:
    try:
        return body[key]
    except KeyError:
        raise BadFile(f'"{key}" is missing') from None


def _string(body: Mapping[str, Any], key: str) -> str:
    value = _required(body, key)
    if not isinstance(value, str):
        raise BadFile(f'"{key}" must be a string, and is {_shown(value)}')
    try:
        value.encode()
    except UnicodeEncodeError:
        # Half a pair of UTF-16, which JSON can write, but no path, header or log.
        raise BadFile(f'"{key}" is not text: {_shown(value)}') from None
    return value


def _natural(value: Any, name: str) -> int:
    if type(value) is not int:
        raise BadFile(f"{name} must be an integer, and is {_shown(value)}")
    if not 0 <= value <= MAX_SIZE:
        raise BadRequest(f"{name} must be from 0 to 2^63 - 1, and is {_shown(value)}")
    return value


def _decimal(value: Any, key: str) -> int:
    if isinstance(value, str) and len(value) <= _MOST_DIGITS and value.isascii() and value.isdigit():
        number = int(value)
        if number <= MAX_SIZE:
            return number
    raise BadFile(f'"{key}" must be a string of decimal digits, below 2^63, and is {_shown(value)}')


def _priority(body: Mapping[str, Any]) -> int:
    value = body.get("Priority", 0)
    if type(value) is not int:
        raise BadFile(f'"Priority" must be an integer, and is {_shown(value)}')
    if not -(2**31) <= value < 2**31:
        raise BadRequest(f'"Priority" must be an integer of 32 bits, and is {_shown(value)}')
    return value


def _header_value(body: Mapping[str, Any], key: str) -> str | None:
    if key not in body:
        return None
    value = _string(body, key)
    # It travels in a header of HTTP.
    if not (value.isascii() and value.isprintable()):
        raise BadRequest(f'"{key}" must be printable ASCII, and is {_shown(value)}')
    return value


def _path(body: Mapping[str, Any]) -> str:
    value = _string(body, "Path")
    # It travels in the first line of a request, and is saved with the job.
    if not re.fullmatch("[!-~]{0,1000}", value):
        raise BadFile(f'"Path" must be printable ASCII without spaces, and is {_shown(value)}')
    return value


def _compression(body: Mapping[str, Any]) -> Compression:
    if "Compression" not in body:
        return Compression.AUTO
    value = _string(body, "Compression")
    if value not in _COMPRESSIONS:
        raise BadRequest(f'"Compression" must be one of {", ".join(_COMPRESSIONS)}, and is {_shown(value)}')
    return _COMPRESSIONS[value]


def _codecs(body: Mapping[str, Any]) -> tuple[Codec, ...]:
    names = _array_at(body, "Codecs")
    if not all(isinstance(name, str) for name in names):
        raise BadFile('"Codecs" must be an array of strings')
    return tuple(_KNOWN_CODECS[name] for name in names if name in _KNOWN_CODECS)


def _instances(body: Mapping[str, Any]) -> tuple[Instance, ...]:
    """Each identifier once, with what is said of it last."""
    found: dict[str, Instance] = {}
    for item in _array_at(body, "Instances"):
        instance = _object(item, 'each of "Instances"')
        identifier = _string(instance, "ID")
        size = _decimal(_required(instance, "Size"), "Size")
        found[identifier] = Instance(identifier, size, _string(instance, "MD5").lower())
    if sum(instance.size for instance in found.values()) > MAX_SIZE:
        raise BadRequest('the sizes of "Instances" must be below 2^63 together')
    return tuple(found.values())


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise BadFile(f'"{key}" must be true or false, and is {_shown(value)}')
    return value


def _more(body: Mapping[str, Any]) -> int:
    return _natural(body.get("More", 0), '"More"')


def _instances_json(instances: Iterable[Instance]) -> list[dict[str, str]]:
    return [{"ID": instance.id, "Size": str(instance.size), "MD5": instance.md5} for instance in instances]


def _bucket(value: Any) -> tuple[Chunk, ...]:
    chunks = []
    for item in _array(value, 'each of "Buckets"'):
        chunk = _object(item, 'each chunk of "Buckets"')
        chunks.append(
            Chunk(
                _string(chunk, "ID"),
                _decimal(_required(chunk, "Offset"), "Offset"),
                _decimal(_required(chunk, "Size"), "Size"),
            )
        )
    return tuple(chunks)


def _range(value: Any) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise BadFile(f'each of "Missing" must be [start, stop], and one is {_shown(value)}')
    start, stop = (_natural(number, 'each of "Missing"') for number in value)
    if start > stop:
        raise BadRequest(f'each of "Missing" must be [start, stop], and one is [{start}, {stop}]')
    return Range(start, stop)


def _report(value: Any) -> dict[str, int]:
    return {key: _natural(number, 'each of "Report"') for key, number in _object(value, '"Report"').items()}


def _check_verbatim(value: Any) -> None:
    """What is copied into the job must be JSON that Orthanc reads: not too deep, and without NaN."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MOST_NESTED:
            raise BadRequest(f'"Resources" is nested more than {MOST_NESTED} deep')
        if isinstance(item, dict):
            waiting.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list):
            waiting.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise BadFile('"Resources" holds a number that JSON does not have')
