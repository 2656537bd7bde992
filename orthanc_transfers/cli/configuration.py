"""Reads the configuration of Orthanc, as Orthanc does: one file or a folder of them, JSON with comments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import ConfigurationError

# A string, kept; or a comment.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def read(path: Path) -> dict[str, Any]:
    """All sections. Of those in several files of a folder, the files in order. Raises ``ConfigurationError``."""
    try:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise ConfigurationError(f"no file *.json in {path}")
        merged: dict[str, Any] = {}
        for file in files:
            merged.update(_parse(file))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return merged


def _parse(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    bare = _TOKEN.sub(lambda match: match[0] if match[0].startswith('"') else " ", text)
    try:
        value = json.loads(bare)
    except ValueError as error:
        raise ConfigurationError(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file} must hold a JSON object")
    return value
