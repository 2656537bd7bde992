"""Patients and studies as Orthanc's index has them: two requests to its REST API."""

from __future__ import annotations

import json
from typing import Any

from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.core.paths import COLLECTIONS
from orthanc_transfers.core.transfer_record import StudyText
from orthanc_transfers.host.instance_index import InstanceIndex
from orthanc_transfers.host.native.sdk import Sdk

# Characters of a text: a list of transfers must not grow with what others write into their files.
_MAX_LENGTH = 200


class OrthancTexts:
    """Implements ``interfaces.StudyTexts``. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self._index = InstanceIndex(sdk)

    def text(self, resource: Resource) -> StudyText | None:
        """See ``interfaces.StudyTexts``."""
        level, identifier = resource.level, resource.id
        if level is Level.PATIENT:
            patient = self._get(f"patients/{identifier}", identifier)
            if patient is None:
                return None
            identifier = _first(patient, "Studies")
            if not identifier:
                return StudyText(_tag(patient, "PatientID"), _tag(patient, "PatientName"))
        # What is below a study leads to it in one step. Shown by itself, a series or an instance takes Orthanc 1.13 a
        # tenth of a second and more in a large archive.
        above = level in (Level.SERIES, Level.INSTANCE)
        study = self._get(
            f"{COLLECTIONS[level]}/{identifier}/study" if above else f"studies/{identifier}", identifier
        )
        if study is None:
            return None
        patient = {"MainDicomTags": study.get("PatientMainDicomTags")}
        return StudyText(
            _tag(patient, "PatientID"),
            _tag(patient, "PatientName"),
            str(study.get("ID", "")),
            _tag(study, "StudyDescription"),
            _tag(study, "StudyDate"),
            self._modality(study, identifier if level is Level.SERIES else _first(study, "Series")),
        )

    def _modality(self, study: dict[str, Any], series: str) -> str:
        if not self._index.has_extended_find:
            return _tag(self._get(f"series/{series}", series) or {}, "Modality")
        query: dict[str, Any] = {
            "Level": "Series",
            "Query": {},
            "ParentStudy": study.get("ID"),
            "ResponseContent": ["MainDicomTags"],
        }
        found = json.loads(self._sdk.rest_post("/tools/find", json.dumps(query).encode()))
        return next((_tag(one, "Modality") for one in found if one["ID"] == series), "")

    def _get(self, path: str, identifier: str) -> dict[str, Any] | None:
        """A resource at a path of Orthanc's that has ``identifier`` in it, which is checked."""
        if not IDENTIFIER.fullmatch(identifier):
            return None
        answer = self._index.get(f"/{path}")
        value = None if answer is None else json.loads(answer)
        return value if isinstance(value, dict) else None


def _first(resource: dict[str, Any], key: str) -> str:
    children = resource.get(key)
    return str(children[0]) if isinstance(children, list) and children else ""


def _tag(resource: dict[str, Any], name: str) -> str:
    tags = resource.get("MainDicomTags")
    return str(tags.get(name) or "")[:_MAX_LENGTH] if isinstance(tags, dict) else ""
