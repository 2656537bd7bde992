"""Patients and studies as Orthanc's index has them: a request to its REST API for each level on the way."""

from __future__ import annotations

import json
from typing import Any

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.core.transfer_record import StudyText
from orthanc_transfers.host.native.sdk import Sdk

# Characters of a text: a list of transfers must not grow with what others write into their files.
_MAX_LENGTH = 200


class OrthancTexts:
    """Implements ``interfaces.StudyTexts``. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk

    def text(self, resource: Resource) -> StudyText | None:
        """See ``interfaces.StudyTexts``."""
        level, identifier = resource.level, resource.id
        series: dict[str, Any] | None = None
        if level is Level.INSTANCE:
            level, identifier = Level.SERIES, _named(self._get("instances", identifier), "ParentSeries")
        if level is Level.SERIES:
            series = self._get("series", identifier)
            identifier = _named(series, "ParentStudy")
        if level is Level.PATIENT:
            patient = self._get("patients", identifier)
            if patient is None:
                return None
            identifier = _first(patient, "Studies")
            if not identifier:
                return StudyText(_tag(patient, "PatientID"), _tag(patient, "PatientName"))
        study = self._get("studies", identifier)
        if study is None:
            return None
        if series is None:
            series = self._get("series", _first(study, "Series"))
        patient = {"MainDicomTags": study.get("PatientMainDicomTags")}
        return StudyText(
            _tag(patient, "PatientID"),
            _tag(patient, "PatientName"),
            identifier,
            _tag(study, "StudyDescription"),
            _tag(study, "StudyDate"),
            _tag(series or {}, "Modality"),
        )

    def _get(self, collection: str, identifier: str) -> dict[str, Any] | None:
        if not IDENTIFIER.fullmatch(identifier):
            return None
        try:
            value = json.loads(self._sdk.rest_get(f"/{collection}/{identifier}"))
        except HostError as error:
            if error.absent:
                return None
            raise
        return value if isinstance(value, dict) else None


def _named(resource: dict[str, Any] | None, key: str) -> str:
    return "" if resource is None else str(resource.get(key, ""))


def _first(resource: dict[str, Any], key: str) -> str:
    children = resource.get(key)
    return str(children[0]) if isinstance(children, list) and children else ""


def _tag(resource: dict[str, Any], name: str) -> str:
    tags = resource.get("MainDicomTags")
    return str(tags.get(name) or "")[:_MAX_LENGTH] if isinstance(tags, dict) else ""
