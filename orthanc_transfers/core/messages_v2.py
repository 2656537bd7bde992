"""JSON messages of version 2, and its headers: dataclass <-> JSON, strict about types.

As in ``messages_v1.py``. See docs/protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import LEVEL, SLOW_LINK_LEVEL, Codec, Compression
from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.extras import Accepted
from orthanc_transfers.core.json_fields import (
    array_field,
    compression_field,
    decimal_string,
    flag_field,
    instances_field,
    instances_to_json,
    json_object,
    more_field,
    name_field,
    natural_number,
    path_field,
    patients_field,
    required_field,
    shown,
    string_field,
    string_items,
)
from orthanc_transfers.core.model import Chunk, Manifest, PushState
from orthanc_transfers.core.paths import push_v2
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.core.transfer_syntaxes import transcode_field, transcode_to_json

CODEC_HEADER = "transfers-codec"
"""Name of a bucket's codec."""
FIRST_HEADER = "transfers-first"
"""In a lookup: only so many instances are asked for, the first ones."""
PATIENTS_HEADER = "transfers-patients"
"""In a lookup, with any value: the patients are asked for."""
STORED_HEADER = "transfers-stored"
"""In a lookup, with any value: resources that are not stored are left out, instead of being an error."""
WHOLE_HEADER = "transfers-whole"
"""In a lookup: the bytes of all the instances are wanted with the list, if they are few: a ``WholePull``, JSON."""
XXH3_HEADER = "transfers-xxh3"
"""XXH3 of the body as it is on the wire, 16 hexadecimal digits."""
ENCODING_HEADER = "transfers-encoding-seconds"
"""Seconds that encoding took; in a response to ``POST …/chunks``."""

PROBE_HEADERS = {CODEC_HEADER: Codec.NONE.value, FIRST_HEADER: "0", XXH3_HEADER: xxh3([])}
"""On the request for the capabilities, and on its response: whether our headers come through all that is between."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The response to ``GET /transfers/capabilities``. Unknown codecs are left out."""

    protocols: tuple[int, ...]
    version: str
    originator: str
    codecs: tuple[Codec, ...]
    max_body_size: int
    """Bytes that a body may have, before and after its codec."""
    growing: bool = False
    """Whether a push may be created with its first instances, and the others be announced later."""
    parts: bool = False
    """Whether an announcement may leave out the instances that were announced before."""
    headers: frozenset[str] | None = None
    """Those of ``PROBE_HEADERS`` that came with the request; ``None`` if the peer does not say."""
    patients_wanted: bool = False
    """Whether the creation of a push should name its patients: their number is limited there."""
    whole: bool = False
    """Whether a small transfer may be one request: announced, carried and committed."""
    whole_pulls: bool = False
    """Whether the list of a lookup may come with the bytes of all its instances: see ``WHOLE_HEADER``."""
    measurable: bool = False
    """Whether it has the routes that measure the link: ``paths.MEASURE``."""
    extras: Accepted | None = None
    """What it takes besides DICOM; ``None``: it does not know of that."""
    transcodes: bool = False
    """Whether what is fetched from it may be transcoded on the way: ``paths.TRANSCODED``."""
    max_connections: int | None = None
    """Connections that it can spare for all transfers together; 0: one, not kept alive; ``None``: unknown."""

    @property
    def max_bucket_target(self) -> int:
        """Largest size in bytes to aim at for a bucket: some get twice as large as what is aimed at."""
        return max(1, self.max_body_size // 2)

    @classmethod
    def parse(cls, value: Any) -> Capabilities:
        body = json_object(value, "the response")
        protocols = array_field(body, "Protocols")
        return cls(
            tuple(natural_number(protocol, 'each of "Protocols"') for protocol in protocols),
            string_field(body, "Version"),
            string_field(body, "Originator"),
            _codecs(body),
            natural_number(required_field(body, "MaxBodySize"), '"MaxBodySize"'),
            flag_field(body, "Growing"),
            flag_field(body, "Parts"),
            _headers(body),
            flag_field(body, "PatientsWanted"),
            flag_field(body, "Whole"),
            flag_field(body, "WholePulls"),
            flag_field(body, "Measurable"),
            _accepted(body),
            flag_field(body, "Transcodes"),
            natural_number(body["MaxConnections"], '"MaxConnections"') if "MaxConnections" in body else None,
        )

    def to_json(self) -> dict[str, Any]:
        headers = {} if self.headers is None else {"Headers": sorted(self.headers)}
        value: dict[str, Any] = {
            "Protocols": list(self.protocols),
            "Version": self.version,
            "Originator": self.originator,
            "Codecs": [codec.value for codec in self.codecs],
            "MaxBodySize": self.max_body_size,
            "Growing": self.growing,
            "Parts": self.parts,
            "Whole": self.whole,
            **headers,
        }
        if self.max_connections is not None:
            value["MaxConnections"] = self.max_connections
        if self.whole_pulls:
            value["WholePulls"] = True
        if self.measurable:
            value["Measurable"] = True
        if self.transcodes:
            value["Transcodes"] = True
        if self.extras is not None:
            value["Extras"] = self.extras.names()
        return {**value, "PatientsWanted": True} if self.patients_wanted else value


@dataclass(frozen=True, slots=True)
class PushCreationV2:
    """``POST /transfers/v2/push``. ``token``, 32 hexadecimal digits, is the same for the same transfer.

    ``more`` instances will be announced by a later creation with all of them, or, of a receiver that takes parts,
    with those from index ``before`` on. ``patients`` are
    their identifiers, if the receiver wants to know. ``sender_name`` is the ``Name`` of the sender's Orthanc,
    ``originator`` its process, as in its capabilities.
    """

    token: str
    manifest: Manifest
    more: int = 0
    before: int = 0
    patients: frozenset[str] | None = None
    sender_name: str | None = None
    originator: str | None = None

    @classmethod
    def parse(cls, value: Any) -> PushCreationV2:
        body = json_object(value, "the body")
        token = string_field(body, "Token")
        if not re.fullmatch("[0-9a-f]{32}", token):
            raise BadRequest(f'"Token" must be 32 lower-case hexadecimal digits, and is {shown(token)}')
        before = natural_number(body.get("Before", 0), '"Before"')
        return cls(
            token,
            Manifest(instances_field(body)),
            more_field(body),
            before,
            patients_field(body),
            name_field(body, "SenderName"),
            name_field(body, "Originator"),
        )

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"Token": self.token, "Instances": instances_to_json(self.manifest)}
        if self.more:
            value["More"] = self.more
        if self.before:
            value["Before"] = self.before
        if self.patients is not None:
            value["Patients"] = sorted(self.patients)
        if self.sender_name is not None:
            value["SenderName"] = self.sender_name
        if self.originator is not None:
            value["Originator"] = self.originator
        return value


@dataclass(frozen=True, slots=True)
class PushStatus:
    """State of a push of version 2: the response to its creation, to ``GET`` and to ``POST …/commit``."""

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
    rows: tuple[Any, ...] | None = None
    """JSON, as it came: what became of each instance, with its ``ID``. Of a whole push that has ended."""

    @classmethod
    def parse(cls, value: Any) -> PushStatus:
        body = json_object(value, "the response")
        identifier = string_field(body, "ID")
        state = string_field(body, "State")
        if state not in _STATES:
            raise BadFile(f'"State" must be one of {", ".join(_STATES)}, and is {shown(state)}')
        return cls(
            id=identifier,
            path=path_field(body) if "Path" in body else push_v2(identifier),
            state=_STATES[state],
            missing=tuple(map(_range, array_field(body, "Missing"))),
            imported=natural_number(body.get("Imported", 0), '"Imported"'),
            total=natural_number(body.get("Total", 0), '"Total"'),
            already_stored=natural_number(body.get("AlreadyStored", 0), '"AlreadyStored"'),
            already_stored_size=(
                decimal_string(body["AlreadyStoredSize"], "AlreadyStoredSize")
                if "AlreadyStoredSize" in body
                else 0
            ),
            error=string_field(body, "Error") if "Error" in body else None,
            report=_report(body["Report"]) if "Report" in body else None,
            rows=tuple(array_field(body, "Instances")) if "Instances" in body else None,
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
        if self.rows is not None:
            value["Instances"] = list(self.rows)
        return value


@dataclass(frozen=True, slots=True)
class ChunksRequest:
    """``POST /transfers/v2/chunks``. ``codecs`` are the accepted ones, without unknown ones.

    ``level`` is of zstd. ``transcode``: UID of the transfer syntax in which the chunks are counted, not as stored.
    """

    chunks: tuple[Chunk, ...]
    codecs: tuple[Codec, ...]
    compression: Compression = Compression.AUTO
    level: int = LEVEL
    transcode: str | None = None

    @classmethod
    def parse(cls, value: Any) -> ChunksRequest:
        body = json_object(value, "the body")
        chunks = []
        for item in array_field(body, "Chunks"):
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
                raise BadFile(f'each of "Chunks" must be [id, offset, size], and one is {shown(item)}')
            offset, size = (natural_number(number, 'each offset and size of "Chunks"') for number in item[1:])
            chunks.append(Chunk(item[0], offset, size))
        return cls(tuple(chunks), _codecs(body), compression_field(body), _level(body), transcode_field(body))

    def to_json(self) -> dict[str, Any]:
        return {
            **transcode_to_json(self.transcode),
            "Chunks": [[chunk.id, chunk.offset, chunk.size] for chunk in self.chunks],
            "Codecs": [codec.value for codec in self.codecs],
            "Compression": self.compression.value,
            "Level": self.level,
        }


@dataclass(frozen=True, slots=True)
class WholePull:
    """``WHOLE_HEADER``: how the bytes of all the instances are to come with their list, in ``ChunksRequest``'s terms.

    They are to come if they are at most ``max_size``.
    """

    max_size: int
    codecs: tuple[Codec, ...]
    compression: Compression = Compression.AUTO
    level: int = LEVEL

    @classmethod
    def parse(cls, value: Any) -> WholePull:
        body = json_object(value, f"the header {WHOLE_HEADER}")
        max_size = natural_number(required_field(body, "MaxSize"), '"MaxSize"')
        return cls(max_size, _codecs(body), compression_field(body), _level(body))

    def to_json(self) -> dict[str, Any]:
        return {
            "MaxSize": self.max_size,
            "Codecs": [codec.value for codec in self.codecs],
            "Compression": self.compression.value,
            "Level": self.level,
        }


def parse_seconds(text: str | None) -> float:
    """The value of a header with a duration in seconds; 0 if it is absent or invalid."""
    if text is None or not _SECONDS.fullmatch(text):
        return 0.0
    return float(text)


_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")

_STATES = {state.value: state for state in PushState}

_KNOWN_CODECS = {codec.value: codec for codec in Codec}


def _headers(body: Mapping[str, Any]) -> frozenset[str] | None:
    if "Headers" not in body:
        return None
    names = array_field(body, "Headers")
    if not all(isinstance(name, str) and name.isascii() for name in names):
        raise BadFile(f'"Headers" must be names, and is {shown(names)}')
    return frozenset(names)


def _accepted(body: Mapping[str, Any]) -> Accepted | None:
    if "Extras" not in body:
        return None
    return Accepted.of(string_items(body, "Extras"))


def _codecs(body: Mapping[str, Any]) -> tuple[Codec, ...]:
    names = array_field(body, "Codecs")
    if not all(isinstance(name, str) for name in names):
        raise BadFile('"Codecs" must be an array of strings')
    return tuple(_KNOWN_CODECS[name] for name in names if name in _KNOWN_CODECS)


def _level(body: Mapping[str, Any]) -> int:
    level = natural_number(body.get("Level", LEVEL), '"Level"')
    if level not in (LEVEL, SLOW_LINK_LEVEL):
        raise BadRequest(f'"Level" must be {LEVEL} or {SLOW_LINK_LEVEL}, and is {shown(level)}')
    return level


def _range(value: Any) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise BadFile(f'each of "Missing" must be [start, stop], and one is {shown(value)}')
    start, stop = (natural_number(number, 'each of "Missing"') for number in value)
    if start > stop:
        raise BadRequest(f'each of "Missing" must be [start, stop], and one is [{start}, {stop}]')
    return Range(start, stop)


def _report(value: Any) -> dict[str, int]:
    return {
        key: natural_number(number, 'each of "Report"')
        for key, number in json_object(value, '"Report"').items()
    }
