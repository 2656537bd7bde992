"""``Anonymize`` and ``Modify`` of a rule: the body of Orthanc's own ``/studies/{id}/anonymize`` or ``/modify``.

What Orthanc makes of it is Orthanc's. The copy gets a ``StudyInstanceUID`` that is chosen before it is made: by that it
is found again after a crash, and it never has the identifiers of its original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import json_array, json_object, shown

UID = "StudyInstanceUID"
_UID_TAGS = ("StudyInstanceUID", "0020,000d", "0020-000d", "0020000d")

MAX_SIZE = 64 * 1024
"""Bytes of JSON."""

# What decides how and when Orthanc answers, or touches the original.
_OURS = ("Synchronous", "Asynchronous", "KeepSource", "Priority")


@dataclass(frozen=True, slots=True)
class Anonymization:
    """``action``: ``anonymize`` or ``modify``."""

    action: str
    body: Mapping[str, Any]

    @classmethod
    def parse(cls, rule: Mapping[str, Any]) -> Anonymization | None:
        """From the JSON of a rule; ``None`` if it wants neither. Raises ``BadRequest`` that names the key."""
        wanted = [key for key in ("Anonymize", "Modify") if key in rule]
        if len(wanted) > 1:
            raise BadRequest('a rule may have "Anonymize" or "Modify", not both')
        if not wanted:
            return None
        (key,) = wanted
        body = json_object(rule[key], f'"{key}"')
        if len(json.dumps(body)) > MAX_SIZE:
            raise BadRequest(f'"{key}" has more than {MAX_SIZE} bytes')
        for ours in _OURS:
            if ours in body:
                raise BadRequest(
                    f'"{key}" must not have "{ours}": the copy is made by the plugin, beside the original'
                )
        replaced = json_object(body.get("Replace", {}), '"Replace"')
        kept = json_array(body.get("Keep", []), '"Keep"')
        removed = json_array(body.get("Remove", []), '"Remove"')
        for tag in (*replaced, *kept, *removed):
            if isinstance(tag, str) and (tag == UID or tag.lower() in _UID_TAGS):
                raise BadRequest(f'"{key}" must leave {shown(tag)} alone: each copy gets its own')
        return cls(key.lower(), body)

    def request(self, uid: str) -> dict[str, Any]:
        """What is posted to Orthanc for a copy with that ``StudyInstanceUID``."""
        # Without Force, Orthanc chooses the identifiers of a study itself (tried on 1.10.1).
        replace = {**self.body.get("Replace", {}), UID: uid}
        return {**self.body, "Replace": replace, "Force": True, "Synchronous": True}
