"""JSON messages about instances that a peer fetches in another transfer syntax. As in ``messages_v2.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import BadRequest, TooLarge
from orthanc_transfers.core.json_fields import (
    array_field,
    instances_field,
    instances_to_json,
    json_object,
    natural_number,
    required_field,
    shown,
    string_field,
    string_items,
)
from orthanc_transfers.core.model import IDENTIFIER, Instance
from orthanc_transfers.core.transfer_syntaxes import transcode_field, transcode_to_json

MAX_ASKED = 1000
"""Instances that are asked for in one request at most."""


@dataclass(frozen=True, slots=True)
class TranscodedRequest:
    """``POST /transfers/v2/transcoded``: what these instances, by their identifiers, are in that transfer syntax."""

    transcode: str
    instances: tuple[str, ...]

    @classmethod
    def parse(cls, value: Any) -> TranscodedRequest:
        body = json_object(value, "the body")
        required_field(body, "Transcode")
        uid = transcode_field(body)
        required_field(body, "Instances")
        identifiers = string_items(body, "Instances")
        if len(identifiers) > MAX_ASKED:
            raise TooLarge(f"{len(identifiers)} instances in one request: {MAX_ASKED} can be asked for")
        for one in identifiers:
            if not IDENTIFIER.fullmatch(one):
                raise BadRequest(
                    f'each of "Instances" must be an identifier of Orthanc, and one is {shown(one)}'
                )
        assert uid is not None
        return cls(uid, tuple(identifiers))

    def to_json(self) -> dict[str, Any]:
        return {**transcode_to_json(self.transcode), "Instances": list(self.instances)}


@dataclass(frozen=True, slots=True)
class TranscodedList:
    """The response: as many of them as the peer could make in good time, at least one, in the order asked.

    ``originals`` are the identifiers that were asked for; an instance that lost something has another one.
    """

    instances: tuple[Instance, ...]
    originals: tuple[str, ...]
    transcoded: int
    untranscoded: int
    """Those that cannot be, and are as they are stored."""

    @classmethod
    def parse(cls, value: Any) -> TranscodedList:
        body = json_object(value, "the response")
        instances = instances_field(body)
        rows = array_field(body, "Instances")
        originals = tuple(string_field(row, "Original" if "Original" in row else "ID") for row in rows)
        if len(originals) != len(instances):
            raise BadRequest('"Instances" must name each instance once')
        counts = (
            natural_number(required_field(body, key), f'"{key}"') for key in ("Transcoded", "NotTranscoded")
        )
        return cls(instances, originals, *counts)

    def to_json(self) -> dict[str, Any]:
        rows = instances_to_json(self.instances)
        for row, original in zip(rows, self.originals, strict=True):
            if row["ID"] != original:
                row["Original"] = original
        return {"Instances": rows, "Transcoded": self.transcoded, "NotTranscoded": self.untranscoded}
