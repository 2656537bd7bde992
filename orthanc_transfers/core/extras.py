"""What Orthanc keeps of a resource beside DICOM: labels, user-defined metadata and attachments; as JSON messages.

Messages raise ``BadFile`` or ``BadRequest`` (both 400) with a sentence that names the key. See docs/protocol.md.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from orthanc_transfers.core.errors import BadRequest, TooLarge
from orthanc_transfers.core.json_fields import (
    array_field,
    decimal_string,
    flag_field,
    json_object,
    natural_number,
    required_field,
    shown,
    string_field,
)
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource

MAX_ITEMS = 200_000
"""Items of one transfer: all are in memory at once."""
MAX_VALUE = 1024 * 1024
"""Bytes of the value of a metadata, in UTF-8."""
MAX_VALUES_SIZE = 64 * 1024 * 1024
"""Bytes of all values of a transfer together."""
MAX_ATTACHMENT = 256 * 1024 * 1024
"""Bytes of one attachment: Orthanc takes and gives it as a whole, in memory."""
MAX_NAME = 128
"""Characters of the name of a metadata or an attachment, and of the sender's."""
MAX_ORIGIN = 256
"""Characters of the origin of a series: an AET of 16 characters, an address, and JSON around them."""

E = TypeVar("E", bound=enum.Enum)

# ServerEnumerations.h of Orthanc: what users may define.
_USER_NUMBERS = range(1024, 65536)
# "A label must be a non-empty, alphanumeric string, possibly with '_' or '-' characters, with maximum 64 characters"
# (Orthanc 1.13.0); names of metadata and attachments go by the same rule there, without a limit.
_LABEL = re.compile("[0-9A-Za-z_-]{1,64}")
_NAME = re.compile(f"[0-9A-Za-z_-]{{0,{MAX_NAME}}}")
_MD5 = re.compile("[0-9a-f]{32}")


class Kind(enum.Enum):
    """What an item is. The values are those of messages and of the option ``AcceptMetadata``."""

    LABEL = "Labels"
    METADATA = "Metadata"
    ATTACHMENT = "Attachments"
    ORIGIN = "Origin"
    """Where the sender had a series from; the receiver keeps it as metadata."""


CHOSEN = (Kind.LABEL, Kind.METADATA, Kind.ATTACHMENT)
"""Those that a request may name."""


@dataclass(frozen=True, slots=True)
class Extra:
    """One item of one resource."""

    resource: Resource
    kind: Kind
    name: str = ""
    """The label itself; of others the name at the sender, empty if it has none."""
    number: int = 0
    """Of metadata and attachments."""
    value: str = ""
    """Of a metadata; of an origin, JSON."""
    size: int = 0
    """Bytes of an attachment."""
    md5: str = ""
    """Of an attachment."""

    @classmethod
    def parse(cls, value: Any) -> Extra:
        item = json_object(value, 'each of "Items"')
        kind = _member(Kind, item, "Kind")
        resource = Resource(_member(Level, item, "Level"), string_field(item, "ID"))
        if not IDENTIFIER.fullmatch(resource.id):
            raise BadRequest(f'"ID" must be an identifier of Orthanc, and is {shown(resource.id)}')
        extra = cls(resource, kind)
        match kind:
            case Kind.LABEL:
                return replace(extra, name=_matching(_LABEL, item, "Name", "a label of Orthanc"))
            case Kind.ORIGIN:
                if resource.level is not Level.SERIES:
                    raise BadRequest('"Origin" is said of series only')
                return replace(extra, value=_text(item, MAX_ORIGIN))
            case Kind.METADATA:
                return replace(_numbered(extra, item), value=_text(item, MAX_VALUE))
            case Kind.ATTACHMENT:
                size = decimal_string(required_field(item, "Size"), "Size")
                if size > MAX_ATTACHMENT:
                    raise TooLarge(f"an attachment of {size} bytes: {MAX_ATTACHMENT} can be transferred")
                md5 = _matching(_MD5, item, "MD5", "32 lower-case hexadecimal digits")
                return replace(_numbered(extra, item), size=size, md5=md5)

    def to_json(self) -> dict[str, Any]:
        item: dict[str, Any] = {
            "Kind": self.kind.value,
            "Level": self.resource.level.value,
            "ID": self.resource.id,
        }
        if self.name:
            item["Name"] = self.name
        if self.number:
            item["Number"] = self.number
        if self.kind is Kind.ATTACHMENT:
            return {**item, "Size": str(self.size), "MD5": self.md5}
        return item if self.kind is Kind.LABEL else {**item, "Value": self.value}

    @property
    def shown(self) -> str:
        """For a message to a user."""
        what = {Kind.LABEL: "label", Kind.METADATA: "metadata", Kind.ATTACHMENT: "attachment"}
        return f"{what.get(self.kind, 'origin')} {self.name or self.number or ''} of {self.where}".replace(
            "  ", " "
        )

    @property
    def where(self) -> str:
        """Its resource, for a message to a user."""
        return f"{self.resource.level.value.lower()} {self.resource.id}"


@dataclass(frozen=True, slots=True)
class ExtrasMessage:
    """``PUT …/extras`` and the response to ``POST /transfers/v2/extras``: items, or a part of them.

    ``before``: number of those that came in earlier parts; ``more``: whether others follow.
    """

    items: tuple[Extra, ...]
    sender: str = ""
    """The name of the Orthanc that has them."""
    overwrite: bool = False
    """Whether values that the receiver has are replaced."""
    before: int = 0
    more: bool = False

    @classmethod
    def parse(cls, value: Any) -> ExtrasMessage:
        body = json_object(value, "the body")
        listed = array_field(body, "Items")
        if len(listed) > MAX_ITEMS:
            raise TooLarge(f"{len(listed)} labels, metadata and attachments: {MAX_ITEMS} can be transferred")
        items = tuple(map(Extra.parse, listed))
        check_sizes(items)
        sender = string_field(body, "From") if "From" in body else ""
        return cls(
            items,
            sender[:MAX_NAME],
            flag_field(body, "Overwrite"),
            natural_number(body.get("Before", 0), '"Before"'),
            flag_field(body, "More"),
        )

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"Items": [one.to_json() for one in self.items], "From": self.sender}
        optional = {"Overwrite": self.overwrite, "Before": self.before, "More": self.more}
        return {**value, **{key: setting for key, setting in optional.items() if setting}}

    def extended(self, part: ExtrasMessage) -> ExtrasMessage:
        """This and the part that follows. Raises ``TooLarge``."""
        whole = replace(self, items=(*self.items, *part.items), more=part.more)
        check_sizes(whole.items)
        return whole


def check_sizes(items: Collection[Extra]) -> None:
    """Raise ``TooLarge`` if these are too many for one transfer."""
    if len(items) > MAX_ITEMS:
        raise TooLarge(f"{len(items)} labels, metadata and attachments: {MAX_ITEMS} can be transferred")
    if sum(len(one.value) for one in items) > MAX_VALUES_SIZE:
        raise TooLarge(f"the values of metadata have more than {MAX_VALUES_SIZE} bytes together")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a receiver takes: its option ``AcceptMetadata``, and in ``Capabilities``, ``Extras``.

    Whole kinds, and single metadata or attachments by their names or numbers.
    """

    kinds: frozenset[Kind] = frozenset()
    single: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str]) -> Accepted:
        found = frozenset(names)
        kinds = frozenset(kind for kind in Kind if kind.value in found)
        return cls(kinds, found - {kind.value for kind in kinds})

    def names(self) -> list[str]:
        """The inverse of ``of``."""
        return sorted({kind.value for kind in self.kinds} | self.single)

    def possible(self, kind: Kind) -> bool:
        """Whether anything of that kind is taken."""
        return kind in self.kinds or (bool(self.single) and kind in (Kind.METADATA, Kind.ATTACHMENT))

    def takes(self, extra: Extra) -> bool:
        """Whether this one is."""
        if extra.kind in self.kinds:
            return True
        numbered = extra.kind in (Kind.METADATA, Kind.ATTACHMENT)
        return numbered and bool(self.single & {extra.name, str(extra.number)})


_NONE: frozenset[Kind] = frozenset()
"""One for all orders: each is kept with its job."""


@dataclass(frozen=True, slots=True)
class ExtrasWanted:
    """``WithLabels``, ``WithMetadata``, ``WithAttachments`` and ``Overwrite`` of a request."""

    asked: frozenset[Kind] = frozenset()
    refused: frozenset[Kind] = frozenset()
    overwrite: bool = False

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> ExtrasWanted:
        named = {
            kind: flag_field(body, f"With{kind.value}") for kind in CHOSEN if f"With{kind.value}" in body
        }
        return cls(
            frozenset(kind for kind, wanted in named.items() if wanted) or _NONE,
            frozenset(kind for kind, wanted in named.items() if not wanted) or _NONE,
            flag_field(body, "Overwrite"),
        )

    def to_json(self) -> dict[str, Any]:
        value = {f"With{kind.value}": True for kind in CHOSEN if kind in self.asked}
        value.update({f"With{kind.value}": False for kind in CHOSEN if kind in self.refused})
        return {**value, "Overwrite": True} if self.overwrite else value

    def kinds(self, accepted: Accepted) -> frozenset[Kind]:
        """What travels to a receiver that takes these: attachments only where they are asked for."""
        usual = {kind for kind in Kind if kind is not Kind.ATTACHMENT}
        wanted = (usual | self.asked) - self.refused
        return frozenset(kind for kind in wanted if accepted.possible(kind))


def counts(items: Iterable[Extra]) -> dict[str, int]:
    """How many there are of each kind that a request may name."""
    found = Counter(one.kind for one in items)
    return {kind.value: found[kind] for kind in CHOSEN if found[kind]}


def _numbered(extra: Extra, item: Mapping[str, Any]) -> Extra:
    number = natural_number(required_field(item, "Number"), '"Number"')
    if number not in _USER_NUMBERS:
        raise BadRequest(f'"Number" must be from 1024 to 65535, and is {shown(number)}')
    name = _matching(_NAME, item, "Name", "letters, digits, - and _") if "Name" in item else ""
    return replace(extra, name=name, number=number)


def _text(item: Mapping[str, Any], most: int) -> str:
    value = string_field(item, "Value")
    if len(value.encode()) > most:
        raise TooLarge(f"a value of more than {most} bytes cannot be transferred")
    return value


def _matching(pattern: re.Pattern[str], item: Mapping[str, Any], key: str, meaning: str) -> str:
    value = string_field(item, key)
    if not pattern.fullmatch(value):
        raise BadRequest(f'"{key}" must be {meaning}, and is {shown(value)}')
    return value


def _member(kind: type[E], item: Mapping[str, Any], key: str) -> E:
    value = string_field(item, key)
    for member in kind:
        if member.value == value:
            return member
    known = ", ".join(member.value for member in kind)
    raise BadRequest(f'"{key}" must be one of {known}, and is {shown(value)}')
