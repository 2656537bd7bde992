"""The option ``Cluster``: whether, and how, this Orthanc is one of several on one PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ADOPT_AFTER = 600

_YEAR = 366 * 24 * 3600
_KEYS = ("Enabled", "ConnectionUri", "NodeName", "Address", "SharedStaging", "AdoptAfter")

# It is also the name of a folder.
_NAME = re.compile("[A-Za-z0-9-][A-Za-z0-9.-]{0,62}")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Settings of one node."""

    enabled: bool = False
    """Whether there is a cluster: it is by default if the option is given."""
    connection_uri: str = field(default="", repr=False)
    """Of PostgreSQL, with its password; empty: as in Orthanc's own section ``PostgreSQL``."""
    node_name: str = ""
    """For people; empty: the name of the host. No two nodes have the same at once."""
    address: str = ""
    """Base URL under which the other nodes reach this one, without a slash at its end; empty: found out."""
    shared_staging: bool = True
    """Whether all nodes have the same ``StagingDirectory``, on storage that they share."""
    adopt_after: int = ADOPT_AFTER
    """Seconds after which the jobs of a node that does not come back are taken over by others."""


def parse_cluster(value: Any) -> ClusterSettings:
    """Raises ``ValueError`` with what the value should be; never with the value itself, which has a password."""
    if not isinstance(value, Mapping):
        raise ValueError("an object of options")
    for key in value:
        if key not in _KEYS:
            raise ValueError(f'an object with {", ".join(_KEYS)} ("{key:.60}" is none of them)')
    texts = {key: value.get(key, "") for key in ("ConnectionUri", "NodeName", "Address")}
    for key, text in texts.items():
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f'an object whose "{key}" is a string')
    if texts["NodeName"] and not _NAME.fullmatch(texts["NodeName"]):
        raise ValueError('an object whose "NodeName" has letters, digits, "." and "-" only')
    enabled, shared = (value.get(key, True) for key in ("Enabled", "SharedStaging"))
    for key, flag in (("Enabled", enabled), ("SharedStaging", shared)):
        if not isinstance(flag, bool):
            raise ValueError(f'an object whose "{key}" is true or false')
    adopt_after = value.get("AdoptAfter", ADOPT_AFTER)
    if type(adopt_after) is not int or not 1 <= adopt_after <= _YEAR:
        raise ValueError(f'an object whose "AdoptAfter" is a whole number of seconds from 1 to {_YEAR}')
    uri = texts["ConnectionUri"]
    if uri and not uri.startswith(("postgresql://", "postgres://")):
        raise ValueError('an object whose "ConnectionUri" begins with postgresql://')
    address = texts["Address"].rstrip("/")
    if address and not _is_base_url(address):
        raise ValueError('an object whose "Address" is the URL of this node, such as "http://10.0.0.5:8042"')
    return ClusterSettings(enabled, uri, texts["NodeName"], address, shared, adopt_after)


def cluster_to_json(settings: ClusterSettings) -> dict[str, Any]:
    """As it may be written in the configuration, but for ``ConnectionUri``, which has a password."""
    return {
        "Enabled": settings.enabled,
        "NodeName": settings.node_name,
        "Address": settings.address,
        "SharedStaging": settings.shared_staging,
        "AdoptAfter": settings.adopt_after,
    }


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
