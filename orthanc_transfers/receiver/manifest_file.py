"""The manifest of one incoming transfer on disk: its instances and what its owner keeps, under a checksum.

One line with the format and the SHA-256 of the rest, then JSON: ``{"meta": …, "instances": [[id, size, md5], …]}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import BadFile
from orthanc_transfers.core.model import Instance, Manifest

_FORMAT = "orthanc-transfers-manifest-1"


def encode_manifest(manifest: Manifest, meta: Mapping[str, Any]) -> bytes:
    """The content of the file."""
    rows = [[instance.id, instance.size, instance.md5] for instance in manifest]
    body = json.dumps({"meta": meta, "instances": rows}, separators=(",", ":")).encode()
    return f"{_FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def read_manifest(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """Manifest and ``meta``. Raises ``OSError``; ``BadFile`` if the file is damaged or of another version."""
    head, _, body = path.read_bytes().partition(b"\n")
    if head.decode("ascii", "replace").split(" ") != [_FORMAT, hashlib.sha256(body).hexdigest()]:
        raise BadFile(f"{path} is damaged, or of another version of the plugin")
    try:
        content = json.loads(body)
        meta: dict[str, Any] = content["meta"]
        return Manifest(_instance(*row) for row in content["instances"]), meta
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadFile(f"{path} is not a valid manifest: {error!r}") from error


def _instance(identifier: Any, size: Any, md5: Any) -> Instance:
    if not (isinstance(identifier, str) and type(size) is int and isinstance(md5, str)):
        raise TypeError("not an instance")
    return Instance(identifier, size, md5)
