"""Paths of Orthanc's configuration, which is UTF-8, as Python takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import ConfigurationError


def native_path(text: str) -> str:
    """The path with the very bytes of the configuration, as Orthanc takes it.

    Without ``LANG`` (systemd, containers) Python within Orthanc takes file names for ASCII, and refuses any other text.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def path_option(configuration: Mapping[str, Any], name: str, folder: Path, default: str | Path) -> Path:
    """The path that an option names, relative to ``folder``. Raises ``ConfigurationError``."""
    value = configuration.get(name)
    if name not in configuration:
        return folder / default
    # Orthanc refuses others too, but only after it has loaded its plugins.
    if not isinstance(value, str) or "\0" in value:
        raise ConfigurationError(f'"{name}" must be the path of a folder, and is {str(value)[:60]!r}')
    return folder / native_path(value)
