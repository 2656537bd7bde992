"""Reports of all nodes, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orthanc_transfers.cluster.cluster_reports import ClusterReports
from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.schema import prepare
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.runtime.clock import SystemClock


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(connection_string(settings.cluster.connection_uri, None))
    prepare(database)
    yield database
    database.close()


@pytest.fixture
def reports(database: Database) -> ClusterReports:
    return ClusterReports(database, 30, SystemClock())


def test_a_report_is_found_by_all_its_names(reports: ClusterReports) -> None:
    report = {"ID": "one", "Instances": [{"ID": str(index)} for index in range(1000)]}
    reports.write(report, ["token"])
    reports.alias("one", "job")
    for name in ("one", "token", "job"):
        assert reports.exists(name)
        assert reports.read(name) == report
    assert not reports.exists("two")
    assert reports.read("two") is None


def test_written_again_it_is_another_one(reports: ClusterReports) -> None:
    reports.write({"ID": "one", "State": "failed"}, ["token"])
    reports.write({"ID": "one", "State": "committed"}, ["token"])
    assert reports.read("token") == {"ID": "one", "State": "committed"}


def test_a_name_never_hides_the_report_of_another_transfer(reports: ClusterReports) -> None:
    reports.write({"ID": "one"})
    reports.write({"ID": "two"}, ["one", "token"])
    assert reports.read("one") == {"ID": "one"}
    reports.write({"ID": "three"}, ["token"])
    assert reports.read("token") == {"ID": "three"}


def test_a_name_for_what_is_not_there_is_without_effect(reports: ClusterReports) -> None:
    reports.alias("nothing", "job")
    assert reports.read("job") is None


def test_all_of_them_in_the_order_in_which_they_were_written(reports: ClusterReports) -> None:
    for index in range(1200):  # more than are read at once
        reports.write({"ID": str(index)}, [f"token-{index}"])
    assert [one["ID"] for one in reports.all(0.0)] == [str(index) for index in range(1200)]
    assert list(reports.all(4e9)) == []


def test_what_is_too_old_is_deleted_with_its_names(reports: ClusterReports, database: Database) -> None:
    for name in ("old", "new"):
        reports.write({"ID": name}, [f"alias of {name}"])
    ids = [row[0] for row in database.query("SELECT id FROM orthanc_transfers.reports ORDER BY ended")]
    database.query(
        "UPDATE orthanc_transfers.reports SET ended = now() - interval '31 days' WHERE id = %s", (ids[0],)
    )
    reports.expire()  # it looked when it wrote the first one
    assert reports.exists("old")
    ClusterReports(database, 30, SystemClock()).expire()
    assert reports.read("old") is None
    assert reports.read("alias of old") is None
    assert not reports.exists("alias of old")
    assert reports.read("alias of new") == {"ID": "new"}
