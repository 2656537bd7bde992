"""What Orthanc cannot do while its index is away is tried again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.waiting_store import waiting_store
from orthanc_transfers.core.errors import HostError, ImportRefused, TransferError, UnknownResource
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import InstanceStore
from tests.support.postgresql import PostgreSQL


class FailingStore:
    """Fails as often as it has errors."""

    def __init__(self, *errors: TransferError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def md5s(self, identifiers: Iterable[str]) -> dict[str, str | None]:
        self.calls += 1
        wanted = list(identifiers)
        if self.errors:
            self.errors.pop(0)
            return {}
        return dict.fromkeys(wanted[:1], "")

    def received(self, identifier: str) -> str | None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return identifier


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(connection_string(settings.cluster.connection_uri, None))
    yield database
    database.close()


def test_it_is_tried_again_if_the_database_was_away(database: Database, postgresql: PostgreSQL) -> None:
    store = FailingStore(HostError("no index", 11), ImportRefused("no index"))
    database.query("SELECT 1")
    postgresql.stop()
    postgresql.start()
    assert waiting_store(cast(InstanceStore, store), database).received("x") == "x"
    assert store.calls == 3


def test_orthanc_may_lose_its_connection_a_moment_before_the_others_end(
    database: Database, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FailingStore(HostError("the database is currently not available", 36))
    answers = [False]
    was_away = database.was_away
    monkeypatch.setattr(database, "was_away", lambda: answers.pop() if answers else was_away())
    database.query("SELECT 1")
    postgresql.stop()
    postgresql.start()
    assert waiting_store(cast(InstanceStore, store), database).received("x") == "x"
    assert store.calls == 2


def test_an_error_is_an_error_otherwise(database: Database) -> None:
    store = FailingStore(ImportRefused("it is no DICOM file"))
    with pytest.raises(ImportRefused):
        waiting_store(cast(InstanceStore, store), database).received("x")
    assert store.calls == 1


def test_it_is_tried_again_while_orthanc_says_that_its_index_is_away(database: Database) -> None:
    refused = ImportRefused("Orthanc reports 'The database is currently not available' (error 36)")
    refused.index_away = True
    store = FailingStore(HostError("The database is currently not available", 36), refused)
    assert waiting_store(cast(InstanceStore, store), database).received("x") == "x"
    assert store.calls == 3


def test_what_is_not_there_is_looked_for_again_only_if_the_database_was_away(
    database: Database, postgresql: PostgreSQL
) -> None:
    store = FailingStore(UnknownResource("no"), UnknownResource("no"))
    with pytest.raises(UnknownResource):
        waiting_store(cast(InstanceStore, store), database).received("x")
    assert store.calls == 1
    database.query("SELECT 1")
    postgresql.stop()
    postgresql.start()
    assert waiting_store(cast(InstanceStore, store), database).received("x") == "x"
    assert store.calls == 3


def test_nothing_is_taken_for_absent_while_the_database_went_away(
    database: Database, postgresql: PostgreSQL
) -> None:
    store = FailingStore(UnknownResource("not raised"))
    database.query("SELECT 1")
    postgresql.stop()
    postgresql.start()
    found = waiting_store(cast(InstanceStore, store), database).md5s(iter(["here", "not here"]))
    assert found == {"here": ""}
    assert store.calls == 2
    assert waiting_store(cast(InstanceStore, store), database).md5s(iter(["here", "not here"])) == found
    assert store.calls == 3, "what is really absent is not asked for again"
