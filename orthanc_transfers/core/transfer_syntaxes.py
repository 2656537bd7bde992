"""Transfer syntaxes into which files may be transcoded on their way: the lossless ones of PS3.5 that Orthanc knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import shown, string_field

LOSSLESS = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
"""UID -> name. Which of them it can write is Orthanc's matter: JPEG 2000 needs its GDCM plugin."""


def transcode_field(body: Mapping[str, Any]) -> str | None:
    """``Transcode`` of a request: the UID of one of these; ``None`` if it is absent. Raises ``BadRequest``."""
    if "Transcode" not in body:
        return None
    uid = string_field(body, "Transcode")
    if uid not in LOSSLESS:
        known = ", ".join(f"{one} ({name})" for one, name in LOSSLESS.items())
        raise BadRequest(
            f'"Transcode" must be the UID of a lossless transfer syntax, and is {shown(uid)}: {known}'
        )
    return uid
