"""The tables of a cluster, in a schema of their own: created, and brought up to date, under a lock.

They are in ``schema.sql``.
"""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.sql import SQL

from orthanc_transfers.cluster.connection import sentence
from orthanc_transfers.cluster.database import Connection, Database
from orthanc_transfers.core.errors import ConfigurationError

VERSION = 1
"""Of the tables. A later one is usable as long as it says that it is (``compatible``)."""

_LOCK = (1953653102, 1)
"""As ``schema.sql`` says."""

_TABLES = Path(__file__).with_name("schema.sql")


def prepare(database: Database) -> None:
    """Create the tables, or bring them up to date; one node at a time. Raises ``ConfigurationError``."""
    try:
        with database.connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", _LOCK)
            if not _exists(connection, "to_regnamespace('orthanc_transfers')"):
                # An administrator may have made it, for a user who must not.
                connection.execute("CREATE SCHEMA orthanc_transfers")
            if not _exists(connection, "to_regclass('orthanc_transfers.meta')"):
                connection.execute(_TABLES.read_bytes())
                connection.cursor().executemany(
                    "INSERT INTO orthanc_transfers.meta (key, value) VALUES (%s, %s)",
                    [
                        ("version", str(VERSION)),
                        # The lowest version of the plugin's own that these tables work with.
                        ("compatible", "1"),
                        ("originator", str(uuid.uuid4())),
                        ("secret", secrets.token_hex(32)),
                    ],
                )
            known = dict(connection.execute("SELECT key, value FROM orthanc_transfers.meta").fetchall())
            if int(known.get("compatible", 0)) > VERSION:
                raise ConfigurationError(
                    f"the cluster's tables are of version {known.get('version')}, and this release knows"
                    f" version {VERSION}: install the release that the other nodes have"
                )
            if not known.get("originator") or not known.get("secret"):
                raise ConfigurationError(
                    "the schema orthanc_transfers in the cluster's database is not that of this plugin, or"
                    " damaged: drop it (DROP SCHEMA orthanc_transfers CASCADE) while no node runs"
                )
    except (psycopg.Error, ValueError) as error:
        told = sentence(error) if isinstance(error, psycopg.Error) else "its version is no number"
        raise ConfigurationError(
            f"the schema orthanc_transfers in the cluster's database cannot be used: {told}"
            " (its user needs the right to create a schema, or to use this one)"
        ) from None


def identity(database: Database) -> tuple[str, str]:
    """Originator and secret of the cluster."""
    found = dict(database.query("SELECT key, value FROM orthanc_transfers.meta"))
    return found["originator"], found["secret"]


def _exists(connection: Connection, what: LiteralString) -> bool:
    found = connection.execute(SQL("SELECT {} IS NOT NULL").format(SQL(what))).fetchone()
    return bool(found and found[0])
