"""Search for studies and series, here or on a peer: the request of a user, and what ``/tools/find`` answers.

What a peer answers is not trusted: every field is checked, cut or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import BadFile, BadRequest
from orthanc_transfers.core.json_fields import (
    array_field,
    json_array,
    json_object,
    known_keys,
    shown,
    string_field,
)
from orthanc_transfers.core.model import IDENTIFIER

MAX_RESULTS = 200
"""Maximum number of studies or series in one answer."""

MAX_SERIES = 20_000
"""Maximum number of series that are looked at for the studies of one answer."""

MAX_TEXT = 256
"""Characters of a value that is asked for or shown; DICOM's own limit is 64 for most."""

_KEYS = frozenset(
    (
        "AccessionNumber",
        "ModalitiesInStudy",
        "PatientBirthDate",
        "PatientID",
        "PatientName",
        "SeriesDescription",
        "SeriesInstanceUID",
        "StudyDate",
        "StudyDescription",
        "StudyInstanceUID",
    )
)
"""Keywords that may be searched for."""

_SHOWN = {
    "Study": ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    "Series": ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined"),
}
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")


@dataclass(frozen=True, slots=True)
class Search:
    """``peer``: ``None`` for this Orthanc. ``level``: ``Study`` or ``Series``. ``query``: keyword -> pattern."""

    peer: str | None
    level: str
    query: Mapping[str, str]
    limit: int

    @classmethod
    def parse(cls, value: Any) -> Search:
        """From the body of ``POST /transfers/find``. Raises ``BadRequest``, which names the key."""
        body = json_object(value, "the request")
        peer = None if body.get("Peer") is None else string_field(body, "Peer")
        level = string_field(body, "Level") if "Level" in body else "Study"
        if level not in _SHOWN:
            raise BadRequest(f'"Level" must be Study or Series, and is {shown(level)}')
        limit = body.get("Limit", 100)
        if type(limit) is not int or not 1 <= limit <= MAX_RESULTS:
            raise BadRequest(f'"Limit" must be a whole number from 1 to {MAX_RESULTS}, and is {shown(limit)}')
        query = json_object(body.get("Query", {}), '"Query"')
        known_keys(query, sorted(_KEYS), '"Query"')
        return cls(peer, level, {key: _pattern(query, key) for key in query}, limit)

    def to_find(self) -> dict[str, Any]:
        """The body of ``POST /tools/find``: one more than is asked for, which tells whether there are more."""
        newest_first = {"Type": "DicomTag", "Key": "StudyDate", "Direction": "DESC"}
        return {
            **_find(self.level, self.query, self.limit + 1),
            # Orthanc 1.12.5 and later; those before ignore it.
            **({"OrderBy": [newest_first]} if self.level == "Study" else {}),
        }


def _pattern(query: Mapping[str, Any], key: str) -> str:
    value = string_field(query, key)
    if len(value) > MAX_TEXT:
        raise BadRequest(f'"{key}" must have at most {MAX_TEXT} characters, and has {len(value)}')
    return value


def _find(level: str, query: Mapping[str, str], limit: int) -> dict[str, Any]:
    return {"Level": level, "Query": dict(query), "Expand": True, "CaseSensitive": False, "Limit": limit}


def series_of(studies: Iterable[Found]) -> dict[str, Any]:
    """The body of ``POST /tools/find`` for the series of some studies."""
    # A list of UIDs (DICOM part 4, C.2.2.2.2), which Orthanc takes for any tag.
    uids = "\\".join(study.tags["StudyInstanceUID"] for study in studies)
    return _find("Series", {"StudyInstanceUID": uids}, MAX_SERIES)


@dataclass(frozen=True, slots=True)
class Found:
    """A study or a series. ``instances`` are identifiers, of a series only; ``parent`` is Orthanc's identifier."""

    id: str
    parent: str
    tags: Mapping[str, str]
    instances: frozenset[str]

    @classmethod
    def parse_all(cls, value: Any, level: str) -> list[Found]:
        """From the answer of ``POST /tools/find``. Raises ``BadRequest`` if it is no such answer."""
        return [
            cls._parse(json_object(item, "each result"), level) for item in json_array(value, "the answer")
        ]

    @classmethod
    def _parse(cls, item: Mapping[str, Any], level: str) -> Found:
        tags = _texts(json_object(item.get("MainDicomTags", {}), '"MainDicomTags"'), _SHOWN[level])
        patient = json_object(item.get("PatientMainDicomTags", {}), '"PatientMainDicomTags"')
        if level == "Study":
            uid = tags.get("StudyInstanceUID", "")
            if not re.fullmatch("[0-9.]{1,64}", uid):
                raise BadFile(f"a study has the identifier {shown(uid)}")
            return cls(
                _identifier(item, "ID"),
                _identifier(item, "ParentPatient"),
                {**tags, **_texts(patient, _PATIENT)},
                frozenset(),
            )
        instances = array_field(item, "Instances")
        if not all(isinstance(one, str) for one in instances):
            raise BadFile('"Instances" must be an array of strings')
        return cls(_identifier(item, "ID"), _identifier(item, "ParentStudy"), tags, frozenset(instances))

    def to_json(self, level: str, series: Sequence[Found], here: frozenset[str]) -> dict[str, Any]:
        """``series``: those of this study (or the series itself). ``here``: identifiers of instances stored here."""
        instances = frozenset().union(*(one.instances for one in series))
        return {
            "ID": self.id,
            "Level": level,
            "Parent": self.parent,
            "Tags": dict(self.tags),
            "Modalities": sorted({one.tags.get("Modality", "") for one in series} - {""}),
            "Series": len(series),
            "Instances": len(instances),
            "Local": presence(instances, here),
        }


def presence(instances: frozenset[str], here: frozenset[str]) -> str:
    """How much of a study or a series is stored here already: ``none``, ``part`` or ``whole``."""
    if not instances & here:
        return "none"
    return "whole" if instances <= here else "part"


def _identifier(item: Mapping[str, Any], key: str) -> str:
    value = string_field(item, key)
    if not IDENTIFIER.fullmatch(value):
        raise BadFile(f'"{key}" must be an identifier of Orthanc, and is {shown(value)}')
    return value


def _texts(tags: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    return {key: tags[key][:MAX_TEXT] for key in keys if isinstance(tags.get(key), str)}
