"""The filter of a rule: what a patient, study, series or instance must be to be sent by it.

All conditions must hold; one that is absent always does. Text is compared as Orthanc's own ``/tools/find`` does
where it is not told otherwise: upper and lower case are the same, ``*`` is any text and ``?`` any character, and what
has several values (``\\\\``) is one text (tried on 1.10.1).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.json_fields import json_object, known_keys, natural_number, shown, string_field

MAX_PATTERNS = 100
"""Maximum number of alternatives of one condition."""

MAX_LENGTH = 256
"""Maximum number of characters of one of them."""

_MB = 1024 * 1024

_HEXADECIMAL = re.compile("([0-9a-f]{4})[,-]?([0-9a-f]{4})", re.IGNORECASE)
_KEYWORD = re.compile("[A-Z][A-Za-z0-9]{1,63}")
# What Orthanc takes as a label (1.12.0 and later).
_LABEL = re.compile("[A-Za-z0-9_-]{1,64}")

_ABSENT = frozenset({""})

_SERIES_TAGS = {"Modality", "ModalitiesInStudy", "0008,0060", "0008,0061"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which facts decide: no others need be asked for."""

    modalities: bool = False
    tags: frozenset[str] = frozenset()
    """As filters name them."""
    labels: bool = False
    aets: bool = False
    sources: bool = False
    totals: bool = False
    """``Facts.size`` and ``Facts.instances``."""

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            self.modalities or other.modalities,
            self.tags | other.tags,
            self.labels or other.labels,
            self.aets or other.aets,
            self.sources or other.sources,
            self.totals or other.totals,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What filters look at, of one patient, study, series or instance; what is not wanted may be left out."""

    modalities: frozenset[str] = frozenset()
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By the name that was wanted: the values of its studies, or of its first file. Absent tags are left out."""
    labels: frozenset[str] = frozenset()
    aets: frozenset[str] = frozenset()
    """AETs that its instances were sent by."""
    sources: frozenset[frozenset[str]] = frozenset()
    """Where its instances came from: all that each of these is known by. Empty for those that came from elsewhere, or
    from no one knows where."""
    size: int = 0
    """Bytes."""
    instances: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFilter:
    """``Filter`` of a rule. Patterns are alternatives: one of them must fit."""

    modality: tuple[str, ...] = ()
    """Patterns; one series is enough."""
    remote_aet: tuple[str, ...] = ()
    """Patterns; one instance is enough."""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns by keyword, or by hexadecimal digits as ``gggg,eeee``; one study is enough."""
    all_labels: frozenset[str] = frozenset()
    any_label: frozenset[str] = frozenset()
    no_label: frozenset[str] = frozenset()
    min_size: int = 0
    """Bytes, as ``max_size``."""
    max_size: int | None = None
    min_instances: int = 0
    max_instances: int | None = None
    not_from: frozenset[str] = frozenset()
    """Peers. What came from these alone is not sent; if a part came from elsewhere, all of it is: the receiver takes
    the difference."""

    @classmethod
    def parse(cls, value: Any) -> RuleFilter:
        """Raises ``BadRequest`` with a sentence that names the key."""
        body = json_object(value, '"Filter"')
        known_keys(body, _KEYS, '"Filter"')
        labels = _Labels.parse(body["Labels"]) if "Labels" in body else _Labels()
        parsed = cls(
            modality=_patterns(body, "Modality"),
            remote_aet=_patterns(body, "RemoteAET"),
            tags=_tags(body["Tags"]) if "Tags" in body else {},
            all_labels=labels.all,
            any_label=labels.any,
            no_label=labels.none,
            min_size=_megabytes(body, "MinSizeMB") or 0,
            max_size=_megabytes(body, "MaxSizeMB"),
            min_instances=_count(body, "MinInstances") or 0,
            max_instances=_count(body, "MaxInstances"),
            not_from=frozenset(_texts(body, "NotFrom", "the name of a peer")),
        )
        for low, high, name in (
            (parsed.min_size, parsed.max_size, "SizeMB"),
            (parsed.min_instances, parsed.max_instances, "Instances"),
        ):
            if high is not None and low > high:
                raise BadRequest(f'"Min{name}" must not be more than "Max{name}"')
        return parsed

    @property
    def wanted(self) -> Wanted:
        """The facts that ``matches`` looks at."""
        return Wanted(
            modalities=bool(self.modality),
            tags=frozenset(self.tags),
            labels=bool(self.all_labels or self.any_label or self.no_label),
            aets=bool(self.remote_aet),
            sources=bool(self.not_from),
            totals=bool(self.min_size or self.min_instances)
            or self.max_size is not None
            or self.max_instances is not None,
        )

    def matches(self, facts: Facts) -> bool:
        """Whether all conditions hold."""
        return self.mismatch(facts) is None

    def mismatch(self, facts: Facts) -> str | None:
        """The key of the first condition that does not hold; ``None`` if all do."""
        conditions: Iterable[tuple[str, Callable[[], bool]]] = (
            ("Modality", lambda: _any_fits(self.modality, facts.modalities)),
            ("RemoteAET", lambda: _any_fits(self.remote_aet, facts.aets)),
            (
                "Tags",
                lambda: all(_any_fits(some, facts.tags.get(tag, _ABSENT)) for tag, some in self.tags.items()),
            ),
            ("Labels", lambda: self._labels_fit(facts.labels)),
            ("MinSizeMB", lambda: facts.size >= self.min_size),
            ("MaxSizeMB", lambda: self.max_size is None or facts.size <= self.max_size),
            ("MinInstances", lambda: facts.instances >= self.min_instances),
            ("MaxInstances", lambda: self.max_instances is None or facts.instances <= self.max_instances),
            ("NotFrom", lambda: not came_from(facts, self.not_from)),
        )
        return next((key for key, holds in conditions if not holds()), None)

    def _labels_fit(self, labels: frozenset[str]) -> bool:
        return (
            self.all_labels <= labels
            and (not self.any_label or bool(self.any_label & labels))
            and not self.no_label & labels
        )


_KEYS = (
    "Modality",
    "RemoteAET",
    "Tags",
    "Labels",
    "MinSizeMB",
    "MaxSizeMB",
    "MinInstances",
    "MaxInstances",
    "NotFrom",
)


def came_from(facts: Facts, peers: Iterable[str]) -> bool:
    """Whether all of it came from these peers, as far as is known: then there is no need to send it there."""
    wanted = frozenset(peers)
    return bool(facts.sources) and all(wanted & known for known in facts.sources)


@dataclass(frozen=True, slots=True)
class _Labels:
    """An array of labels means ``All``."""

    all: frozenset[str] = frozenset()
    any: frozenset[str] = frozenset()
    none: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, value: Any) -> _Labels:
        body = {"All": value} if isinstance(value, (list, str)) else json_object(value, '"Labels"')
        for key in body:
            if key not in ("All", "Any", "None"):
                raise BadRequest(f'"Labels" may have the keys All, Any and None, and has {shown(key)}')
        return cls(*(frozenset(_texts(body, key, "a label", _LABEL)) for key in ("All", "Any", "None")))


def _tags(value: Any) -> dict[str, tuple[str, ...]]:
    body = json_object(value, '"Tags"')
    found: dict[str, tuple[str, ...]] = {}
    for name in body:
        digits = _HEXADECIMAL.fullmatch(name)
        if digits is None and not _KEYWORD.fullmatch(name):
            raise BadRequest(
                f'"Tags" must name DICOM tags by keyword or as "0010,0020", and has {shown(name)}'
            )
        tag = name if digits is None else f"{digits[1]},{digits[2]}".lower()
        if tag in _SERIES_TAGS:
            raise BadRequest(f'"Tags" must name tags of patients or studies: for {name} use "Modality"')
        found[tag] = _patterns(body, name)
        if not found[tag]:
            raise BadRequest(f'"{name}" must have at least one pattern')
    return found


def _patterns(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return _texts(body, key, "a pattern")


def _texts(
    body: Mapping[str, Any], key: str, what: str, allowed: re.Pattern[str] | None = None
) -> tuple[str, ...]:
    """One text, or an array of some; none if the key is absent."""
    value = body.get(key, [])
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_PATTERNS:
        raise BadRequest(f'"{key}" must have at most {MAX_PATTERNS} entries, and has {len(items)}')
    found = tuple(string_field({key: item}, key) for item in items)
    for text in found:
        if not 0 < len(text) <= MAX_LENGTH or (allowed is not None and not allowed.fullmatch(text)):
            limits = "letters, digits, - and _" if allowed is not None else f"1 to {MAX_LENGTH} characters"
            raise BadRequest(f'"{key}" must be {what} ({limits}) or an array of them, and has {shown(text)}')
    return found


def _count(body: Mapping[str, Any], key: str) -> int | None:
    return natural_number(body[key], f'"{key}"') if key in body else None


def _megabytes(body: Mapping[str, Any], key: str) -> int | None:
    if key not in body:
        return None
    value = body[key]
    if type(value) not in (int, float) or not 0 <= value <= 2**40:
        raise BadFile(f'"{key}" must be a number of MB from 0 to 2^40, and is {shown(value)}')
    return int(value * _MB)


def _any_fits(patterns: tuple[str, ...], values: Iterable[str]) -> bool:
    return not patterns or any(_fits(patterns, value) for value in values)


def _fits(patterns: tuple[str, ...], value: str) -> bool:
    return any(_compiled(pattern).fullmatch(value.strip().casefold()) for pattern in patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    # Its expression takes no time beyond all measure, however many asterisks there are. Orthanc knows no brackets.
    return re.compile(fnmatch.translate(pattern.strip().casefold().replace("[", "[[]")))
