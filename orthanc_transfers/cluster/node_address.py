"""What the other nodes know this one by, unless ``Cluster`` says so: its name and its address."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from orthanc_transfers.cluster.database import Database
from orthanc_transfers.core.cluster_settings import ClusterSettings


def node_name(settings: ClusterSettings) -> str:
    """``NodeName``, or the name of the host."""
    return settings.node_name or re.sub("[^A-Za-z0-9.-]", "-", socket.gethostname())[:63] or "node"


def node_address(settings: ClusterSettings, configuration: Mapping[str, Any], database: Database) -> str:
    """``Address``, or the base URL of Orthanc's HTTP server at the address from which the database is reached.

    If that is on this very host, it is the one to which the host's name leads. ``configuration`` is Orthanc's.
    """
    if settings.address:
        return settings.address
    host = database.local_address() or _by_name()
    scheme = "https" if configuration.get("SslEnabled", False) else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{int(configuration.get('HttpPort', 8042))}"


def is_loopback(address: str) -> bool:
    """Whether a base URL leads to this machine only, seen from any."""
    return (urlsplit(address).hostname or "").startswith(("127.", "::1", "localhost"))


def _by_name() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
