"""A rule: what is sent by itself, when, where to, and what happens then. Parsed strictly, every bad value named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.anonymize import Anonymization
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import json_object, known_keys, required_field, shown, string_field
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule_filter import RuleFilter
from orthanc_transfers.core.webhook import Notify
from orthanc_transfers.core.weekly_hours import (
    ALL_DAYS,
    DAY,
    WEEK,
    Window,
    parse_clock,
    parse_days,
    parse_window,
)

MAX_DESTINATIONS = 20

MAX_RETRY = 366 * 24 * 3600
"""Seconds."""

CHANGES = {
    "StablePatient": Level.PATIENT,
    "StableStudy": Level.STUDY,
    "StableSeries": Level.SERIES,
    "NewInstance": Level.INSTANCE,
}
"""Changes of Orthanc that may be triggers, each with the level of its resource."""

BY_HAND = "Manual"
AT_A_TIME = "Time"

FIRST, ALL = "First", "All"
"""In turn until one of the destinations takes it, or to each of them."""

COARSENESS = (Level.INSTANCE, Level.SERIES, Level.STUDY, Level.PATIENT)

_NAME = re.compile("[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_LABEL = re.compile("[A-Za-z0-9_-]{1,64}")
_METADATA = re.compile("[A-Za-z0-9_-]{1,64}")
_EXAMPLE = '{"At": "22:00", "Days": "Mon-Fri"}'
_FIRST_USER_METADATA = 1024
_RETRY = re.compile("(0|[1-9][0-9]{0,5})([mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_MAX_METADATA = 20

_OF_REQUEST = (
    "Compression",
    "Priority",
    "WithLabels",
    "WithMetadata",
    "WithAttachments",
    "Overwrite",
    "Transcode",
    "AllowLossy",
    "StrictMD5",
)
"""Keys that a rule hands on to its requests as they are."""

_KEYS = (
    "Name",
    "Enabled",
    "Trigger",
    "Filter",
    "Destinations",
    "Deliver",
    "Level",
    "Window",
    "Retry",
    "After",
    "Anonymize",
    "Modify",
    "Notify",
    "Compare",
    "MirrorDeletes",
    *_OF_REQUEST,
)


@dataclass(frozen=True, slots=True)
class TimeOfWeek:
    """A daily or weekly time: on each of ``days`` at that minute of the day."""

    days: str
    minute: int

    @property
    def minutes(self) -> list[int]:
        """Minutes of the week."""
        return [day * DAY + self.minute for day in parse_days(self.days)]

    def since(self, minute: int) -> int:
        """How many minutes ago, at a minute of the week, it last was that time."""
        return min((minute - one) % WEEK for one in self.minutes)


@dataclass(frozen=True, slots=True)
class After:
    """What happens to what was sent, once all of its destinations have it."""

    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    delete: bool = False

    def __bool__(self) -> bool:
        return bool(self.label or self.metadata or self.delete)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. ``body`` is what it was parsed from."""

    name: str
    body: Mapping[str, Any]
    enabled: bool = True
    trigger: str
    """A key of ``CHANGES``, ``AT_A_TIME`` or ``BY_HAND``."""
    time: TimeOfWeek | None = None
    """With ``AT_A_TIME``."""
    filter: RuleFilter = field(default_factory=RuleFilter)
    destinations: tuple[str, ...]
    """Names of peers."""
    deliver: str = FIRST
    level: Level
    """Of what is sent."""
    priority: int = 0
    window: Window = ()
    retry: int = 7 * 86400
    """Seconds from the first attempt until it is given up."""
    after: After = field(default_factory=After)
    notify: Notify | None = None
    anonymization: Anonymization | None = None
    """A copy is sent in place of the original."""
    compare: TimeOfWeek | None = None
    """When all studies are compared with those of its destinations: what is missing there is queued."""
    mirror_deletes: bool = False
    """What it sent, and is deleted here, is deleted there as well: found by the comparison."""

    @classmethod
    def parse(cls, value: Any) -> Rule:
        """Raises ``BadRequest`` with a sentence that names the key."""
        body = json_object(value, "a rule")
        known_keys(body, _KEYS, "a rule")
        name = string_field(body, "Name")
        if not _NAME.fullmatch(name):
            raise BadRequest(f'"Name" must be 1 to 64 letters, digits, "-", "_" or ".", and is {shown(name)}')
        trigger, time = _trigger(required_field(body, "Trigger"))
        rule = cls(
            name=name,
            body=body,
            enabled=_boolean(body, "Enabled", default=True),
            trigger=trigger,
            time=time,
            filter=RuleFilter.parse(body.get("Filter", {})),
            destinations=_destinations(body),
            deliver=_one_of(body, "Deliver", (FIRST, ALL), FIRST),
            level=_level(body, trigger),
            window=_window(body),
            retry=_retry(body),
            after=_after(body.get("After", {})),
            notify=Notify.parse(body["Notify"]) if "Notify" in body else None,
            anonymization=Anonymization.parse(body),
            compare=_time(body["Compare"]) if "Compare" in body else None,
            mirror_deletes=_boolean(body, "MirrorDeletes", default=False),
        )
        # What a request takes, and says of what it does not.
        priority = TransferRequest.parse(rule.request([Resource(rule.level, "")], "", "")).priority
        object.__setattr__(rule, "priority", priority)
        if rule.after.delete and (rule.after.label or rule.after.metadata):
            raise BadRequest('"After" cannot both mark what was sent and delete it')
        _check_copies(rule)
        _check_mirror(rule)
        _check_transcoded(rule)
        return rule

    def request(self, resources: Sequence[Resource], peer: str, transfer: str) -> dict[str, Any]:
        """The body of ``POST /transfers/send`` that sends resources to a peer; ``transfer`` names the transfer."""
        return {
            "Resources": [{"Level": one.level.value, "ID": one.id} for one in resources],
            "Peer": peer,
            "SenderTransferID": transfer,
            **{key: self.body[key] for key in _OF_REQUEST if key in self.body},
        }

    @property
    def transcodes(self) -> bool:
        """Whether other bytes are sent than are stored here."""
        return "Transcode" in self.body

    @property
    def finishes(self) -> bool:
        """Whether something is to be done after it has sent something."""
        return bool(self.after) or self.compare is not None

    @property
    def places(self) -> tuple[str, ...]:
        """The ``destination`` of each of its entries: an empty one is any of its peers."""
        return self.destinations if self.deliver == ALL else ("",)

    def follows_changes(self) -> bool:
        """Whether changes of Orthanc trigger it."""
        return self.enabled and self.trigger in CHANGES


def name_of(value: Any) -> str | None:
    """The name that a rule which cannot be parsed has all the same."""
    name = value.get("Name") if isinstance(value, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def _check_copies(rule: Rule) -> None:
    if rule.anonymization is None:
        return
    key = rule.anonymization.action.capitalize()
    if rule.level is not Level.STUDY:
        raise BadRequest(f'"{key}" needs "Level": "Study": copies are made of studies')
    if rule.after.delete:
        raise BadRequest(
            f'"After" cannot delete with "{key}": the receiver confirms the copy, not the original'
        )
    if rule.compare is not None or rule.mirror_deletes:
        raise BadRequest(f'"{key}" makes copies with other identifiers: nothing can be compared')


def _check_transcoded(rule: Rule) -> None:
    if not rule.transcodes:
        return
    if rule.after.delete:
        raise BadRequest(
            '"After" cannot delete with "Transcode": the receiver confirms other bytes than are here'
        )
    if rule.compare is not None:
        raise BadRequest('"Compare" is by MD5, and with "Transcode" the receiver has others')


def _check_mirror(rule: Rule) -> None:
    if rule.mirror_deletes and rule.compare is None:
        raise BadRequest('"MirrorDeletes" needs "Compare": that is when deletions are found')
    if rule.compare is None:
        return
    if rule.level is not Level.STUDY:
        raise BadRequest('"Compare" needs "Level": "Study": studies are compared')
    if len(rule.destinations) > 1 and rule.deliver != ALL:
        raise BadRequest(f'"Compare" needs one destination, or "Deliver": "{ALL}": else none of them has all')
    if rule.after.delete:
        raise BadRequest('"Compare" needs what was sent: "After" must not delete it')


def _time(value: Any) -> TimeOfWeek:
    found = _parse_time(value)
    if found is None:
        raise BadRequest(f'"Compare" must be a time like {_EXAMPLE}, and is {shown(value)}')
    return found


def _trigger(value: Any) -> tuple[str, TimeOfWeek | None]:
    if isinstance(value, str) and (value in CHANGES or value == BY_HAND):
        return value, None
    time = _parse_time(value)
    if time is not None:
        return AT_A_TIME, time
    raise BadRequest(
        f'"Trigger" must be one of {", ".join(CHANGES)}, {BY_HAND}, or a time like {_EXAMPLE}, and is {shown(value)}'
    )


def _parse_time(value: Any) -> TimeOfWeek | None:
    if isinstance(value, dict) and "At" in value and set(value) <= {"At", "Days"}:
        minute = parse_clock(value["At"])
        days = value.get("Days", ALL_DAYS)
        try:
            parse_days(days)
        except (ValueError, AttributeError, TypeError):
            minute = None
        if minute is not None and minute < DAY:
            return TimeOfWeek(days, minute)
    return None


def _destinations(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = required_field(body, "Destinations")
    items = value if isinstance(value, list) else [value]
    if not items or len(items) > MAX_DESTINATIONS:
        raise BadRequest(f'"Destinations" must name 1 to {MAX_DESTINATIONS} peers, and names {len(items)}')
    names = tuple(string_field({"Destinations": item}, "Destinations") for item in items)
    if len(set(names)) != len(names) or "" in names:
        raise BadRequest('"Destinations" must name each peer once')
    return names


def _level(body: Mapping[str, Any], trigger: str) -> Level:
    lowest = CHANGES.get(trigger, Level.INSTANCE)
    allowed = [level.value for level in COARSENESS[COARSENESS.index(lowest) :]]
    default = lowest.value if trigger in CHANGES else Level.STUDY.value
    return Level(_one_of(body, "Level", allowed, default))


def _window(body: Mapping[str, Any]) -> Window:
    try:
        return parse_window(body.get("Window", []))
    except ValueError as error:
        raise BadRequest(f'"Window" must be {error}') from None


def _retry(body: Mapping[str, Any]) -> int:
    value = body.get("Retry", "7d")
    match = _RETRY.fullmatch(value) if isinstance(value, str) and value.isascii() else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else -1
    if not 0 <= seconds <= MAX_RETRY:
        raise BadRequest(
            f'"Retry" must be a time like "30m", "12h" or "7d", a year at most, and is {shown(value)}'
        )
    return seconds


def _after(value: Any) -> After:
    body = json_object(value, '"After"')
    unknown = [key for key in body if key not in ("AddLabel", "SetMetadata", "Delete")]
    if unknown:
        raise BadRequest(f'"After" may have AddLabel, SetMetadata and Delete, and has {shown(unknown[0])}')
    label = string_field(body, "AddLabel") if "AddLabel" in body else None
    if label is not None and not _LABEL.fullmatch(label):
        raise BadRequest(f'"AddLabel" must be 1 to 64 letters, digits, "-" or "_", and is {shown(label)}')
    metadata = json_object(body.get("SetMetadata", {}), '"SetMetadata"')
    if len(metadata) > _MAX_METADATA:
        raise BadRequest(f'"SetMetadata" may set {_MAX_METADATA} values at most, and sets {len(metadata)}')
    for key in metadata:
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 6 else None
        if not _METADATA.fullmatch(key) or (
            number is not None and not _FIRST_USER_METADATA <= number < 2**16
        ):
            raise BadRequest(
                '"SetMetadata" must name metadata of users, by name or number from 1024 to 65535,'
                f" and names {shown(key)}"
            )
        string_field(metadata, key)
    return After(label, dict(metadata), _boolean(body, "Delete", default=False))


def _boolean(body: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise BadRequest(f'"{key}" must be true or false, and is {shown(value)}')
    return value


def _one_of(body: Mapping[str, Any], key: str, allowed: list[str] | tuple[str, ...], default: str) -> str:
    value = string_field(body, key) if key in body else default
    if value not in allowed:
        raise BadRequest(f'"{key}" must be one of {", ".join(allowed)}, and is {shown(value)}')
    return value
