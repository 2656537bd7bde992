"""How the database is reached, from Orthanc's configuration, and what is wrong if it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from orthanc_transfers.core.errors import ConfigurationError

# A database that is cut off is noticed within 10 s, as long as a lease lasts; values as libpq names them.
_OPTIONS = {
    "application_name": "orthanc-transfers",
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    # Of several hosts, the one that can be written to.
    "target_session_attrs": "read-write",
}

# Characters of what libpq says, which tries all addresses of a host and tells of each.
_LONGEST = 400

# What libpq says of a database that will be there in a moment. The server's own words may be in another language.
_SOON = (
    "refused",
    "timeout",
    "timed out",
    "No such file",
    "closed the connection",
    "reset by peer",
    "Network is unreachable",
    "No route to host",
    "Temporary failure in name resolution",
    "starting up",
    "shutting down",
    "recovery",
    "too many",
    "remaining connection slots",
    "read-only",
)


def connection_string(uri: str, section: Any) -> str:
    """What libpq connects to: ``Cluster.ConnectionUri``, or as Orthanc's own section ``PostgreSQL`` has it.

    Raises ``ConfigurationError``, which never names a password.
    """
    if not uri and not isinstance(section, Mapping):
        raise ConfigurationError(
            'a cluster needs PostgreSQL: give "ConnectionUri" in "Cluster" of "Transfers",'
            ' or the section "PostgreSQL" of Orthanc'
        )
    source = '"ConnectionUri" in "Cluster" of "Transfers"'
    try:
        if not uri:
            source = 'the section "PostgreSQL"'
            uri = str(section.get("ConnectionUri", ""))
        given = conninfo_to_dict(uri) if uri else _of_section(section)
        for port in str(given.get("port") or 5432).split(","):
            int(port)
        return make_conninfo("", **{**_OPTIONS, **given})
    except (psycopg.Error, TypeError, ValueError):
        # Without its cause, which repeats parts of what is wrong: of a password, say.
        raise ConfigurationError(f"{source} does not say how PostgreSQL is reached: see its syntax") from None


def _of_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """As Orthanc's plugin reads its section, with the same defaults."""
    return {
        "host": str(section.get("Host", "localhost")),
        "port": int(section.get("Port", 5432)),
        "dbname": str(section.get("Database", "orthanc_db")) or "orthanc_db",
        "user": str(section.get("Username", "orthanc_user")),
        "password": str(section.get("Password", "orthanc_password")),
        "sslmode": "require" if section.get("EnableSsl", False) else "disable",
    }


def is_temporary(error: psycopg.Error) -> bool:
    """Whether a connection that could not be made may succeed in a while."""
    return any(sign in str(error) for sign in _SOON)


def sentence(error: psycopg.Error) -> str:
    """What libpq or the server says, in one line. Neither of them repeats a password."""
    text = error.diag.message_primary or str(error)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
