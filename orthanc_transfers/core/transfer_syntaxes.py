"""Transfer syntaxes into which files may be transcoded on their way: those of PS3.5 that Orthanc knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import flag_field, shown, string_field

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

LOSSY = {
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
"""The same of those that lose something: their files are other instances."""

STRICT = "StrictMD5"
"""Key of a request: what arrives has the bytes that are stored here."""


def transcode_field(body: Mapping[str, Any]) -> str | None:
    """``Transcode`` of a request: the UID of one of these; ``None`` if it is absent. Raises ``BadRequest``.

    ``AllowLossy`` must be there for one that is lossy, and ``StrictMD5`` not at all.
    """
    strict, lossy = flag_field(body, STRICT), flag_field(body, "AllowLossy")
    if "Transcode" not in body:
        return None
    uid = string_field(body, "Transcode")
    if strict:
        raise BadRequest(f'"{STRICT}" wants the bytes that are stored here: "Transcode" sends others')
    if uid in LOSSLESS or (lossy and uid in LOSSY):
        return uid
    known = ", ".join(f"{one} ({name})" for one, name in (LOSSY if lossy else LOSSLESS).items())
    if uid in LOSSY:
        raise BadRequest(
            f'"Transcode" to {LOSSY[uid]} is lossy, and makes other instances: add "AllowLossy": true, or name a'
            f" lossless transfer syntax: {known}"
        )
    kind = "lossy or lossless" if lossy else "lossless"
    raise BadRequest(f'"Transcode" must be the UID of a {kind} transfer syntax, and is {shown(uid)}: {known}')


def transcode_to_json(uid: str | None) -> dict[str, Any]:
    """The inverse of ``transcode_field``."""
    if uid is None:
        return {}
    return {"Transcode": uid, "AllowLossy": True} if uid in LOSSY else {"Transcode": uid}
