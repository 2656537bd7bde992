"""A large archive, made within seconds: an Orthanc's SQLite index whose rows are multiplied.

What it says is there has no files: it serves to see how questions to the index, and imports, grow with it.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.dicom_data import ct_study
from tests.support.orthanc_server import OrthancServer

_STUDY = 100
"""Instances of each study, small ones."""


def make(folder: Path, instances: int) -> Path:
    """A folder with the index of an Orthanc that has so many instances, to be copied by ``lay``."""
    server = OrthancServer("archive", folder / "archive", script=None)
    with server:
        server.upload_all(ct_study(_STUDY, size=16, name="Archived"))
    with closing(sqlite3.connect(server.storage / "index")) as database:
        _multiply(database, max(1, instances // _STUDY))
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return server.storage


def lay(archive: Path, storage: Path) -> None:
    """Let an Orthanc that does not run, and has nothing, start with the archive."""
    storage.mkdir(parents=True, exist_ok=True)
    shutil.copy(archive / "index", storage / "index")


def _multiply(database: sqlite3.Connection, copies: int) -> None:
    database.create_function("other", 2, _other, deterministic=True)
    (step,) = database.execute("SELECT max(internalId) FROM Resources").fetchone()
    for copy in range(1, copies):
        shift = copy * step
        _copy(
            database,
            "Resources",
            step,
            {
                "internalId": f"internalId + {shift}",
                "parentId": f"parentId + {shift}",
                "publicId": f"other(publicId, {copy})",
            },
        )
        _copy(database, "DicomIdentifiers", step, {"id": f"id + {shift}", "value": f"value || '.{copy}'"})
        _copy(database, "MainDicomTags", step, {"id": f"id + {shift}"})
        _copy(database, "Metadata", step, {"id": f"id + {shift}"})
        _copy(database, "AttachedFiles", step, {"id": f"id + {shift}", "uuid": f"uuid || '-{copy}'"})


def _copy(database: sqlite3.Connection, table: str, step: int, changed: dict[str, str]) -> None:
    """Insert the rows of the first ``step`` resources once more, with some columns changed."""
    key = "internalId" if table == "Resources" else "id"
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(column, column) for column in columns)
    database.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {key} <= ?", (step,)
    )


def _other(identifier: str, copy: int) -> str:
    digest = hashlib.sha1(f"{identifier} {copy}".encode()).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
