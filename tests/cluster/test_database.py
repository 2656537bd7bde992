"""The cluster's database: away, wrong, or made by several at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from orthanc_transfers.cluster.cluster import join
from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import FOREVER, Database
from orthanc_transfers.cluster.schema import identity, prepare
from orthanc_transfers.core.errors import Busy, Canceled, ConfigurationError
from orthanc_transfers.core.settings import Settings, parse_settings
from orthanc_transfers.runtime.clock import SystemClock
from tests.cluster.conftest import MakeNode
from tests.cluster.test_ownership import claim, end, manifest
from tests.support.cuttable_proxy import CuttableProxy
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until

PASSWORD = "s3cret"


@pytest.fixture(scope="module")
def locked() -> Iterator[PostgreSQL]:
    """One that asks for a password."""
    with PostgreSQL(PASSWORD) as server:
        yield server


def refusal(cluster: dict[str, Any], section: Any = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        join(
            parse_settings({"Cluster": cluster}), {"PostgreSQL": section}, SystemClock(), shared_staging=True
        )
    text = str(caught.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert caught.value.__cause__ is None
    return text


def test_a_wrong_password_is_one_sentence(locked: PostgreSQL) -> None:
    uri = locked.uri.replace(PASSWORD, f"{PASSWORD}-wrong")
    assert "password authentication failed" in refusal({"ConnectionUri": uri})
    assert "password authentication failed" in refusal(
        {}, {**locked.section, "Password": f"{PASSWORD}-wrong"}
    )


def test_a_database_that_does_not_exist_is_one_sentence(postgresql: PostgreSQL) -> None:
    text = refusal({"ConnectionUri": postgresql.uri.rpartition("/")[0] + "/nowhere"})
    assert 'database "nowhere" does not exist' in text


def test_no_section_and_no_uri_is_one_sentence() -> None:
    text = refusal({})
    assert "ConnectionUri" in text
    assert "PostgreSQL" in text


@pytest.mark.parametrize(
    "uri",
    [f"postgresql://u:{PASSWORD}@host:port/db", f"postgresql://u:{PASSWORD}@h/d?no_such_option={PASSWORD}"],
)
def test_a_uri_that_is_none_is_one_sentence(uri: str) -> None:
    assert "ConnectionUri" in refusal({"ConnectionUri": uri})
    assert '"PostgreSQL"' in refusal({}, {"ConnectionUri": uri})
    assert '"PostgreSQL"' in refusal({}, {"Port": PASSWORD})


@pytest.mark.parametrize("way", ["uri", "section", "uri in section"])
def test_the_right_password_is_taken_from_anywhere(locked: PostgreSQL, way: str) -> None:
    with psycopg.connect(locked.uri, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS orthanc_transfers CASCADE")
    cluster, section = {
        "uri": ({"ConnectionUri": locked.uri}, None),
        "section": ({}, locked.section),
        "uri in section": ({}, {"ConnectionUri": locked.uri}),
    }[way]
    settings = parse_settings({"Cluster": {**cluster, "NodeName": "one", "Address": "http://one:1"}})
    joined = join(settings, {"PostgreSQL": section}, SystemClock(), shared_staging=False)
    joined.close()
    assert (joined.ownership.node.name, joined.ownership.node.address) == ("one", "http://one:1")


def test_the_address_is_that_of_this_host(settings: Settings) -> None:
    for configuration, scheme, port in (
        ({}, "http", 8042),
        ({"SslEnabled": True, "HttpPort": 1}, "https", 1),
    ):
        joined = join(settings, configuration, SystemClock(), shared_staging=False)
        joined.close()
        address = joined.ownership.node.address
        assert address.startswith(f"{scheme}://")
        assert address.endswith(f":{port}")


def test_the_address_is_not_that_of_what_pools_connections_before_the_database() -> None:
    with (
        PostgreSQL(clients="127.0.0.2/32") as server,
        CuttableProxy(server.port, source="127.0.0.2") as proxy,
    ):
        database = Database(
            connection_string(server.uri.replace(f":{server.port}/", f":{proxy.port}/"), None)
        )
        assert database.query("SELECT host(inet_client_addr())") == [("127.0.0.2",)]
        assert database.local_address() == ""
        database.close()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE orthanc_transfers.meta SET value = '999' WHERE key IN ('version', 'compatible')", "999"),
        ("DELETE FROM orthanc_transfers.meta WHERE key = 'secret'", "DROP SCHEMA"),
        ("UPDATE orthanc_transfers.meta SET value = 'x' WHERE key = 'compatible'", "version"),
        ("ALTER TABLE orthanc_transfers.meta RENAME value TO other", "cannot be used"),
    ],
)
def test_a_wrong_schema_is_one_sentence(settings: Settings, damage: str, named: str) -> None:
    uri = settings.cluster.connection_uri
    join(settings, {}, SystemClock(), shared_staging=True).close()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(damage.encode())
    assert named in refusal({"ConnectionUri": uri})


def test_a_user_without_rights_is_one_sentence_and_a_schema_made_for_it_is_enough(settings: Settings) -> None:
    uri = settings.cluster.connection_uri
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE ROLE humble LOGIN")
        try:
            humble = uri.replace("postgres:", "humble:", 1).replace(
                "postgresql://postgres", "postgresql://humble"
            )
            assert "right to create a schema" in refusal({"ConnectionUri": humble})
            connection.execute("CREATE SCHEMA orthanc_transfers AUTHORIZATION humble")
            own = parse_settings({"Cluster": {"ConnectionUri": humble}})
            join(own, {}, SystemClock(), shared_staging=True).close()
        finally:
            connection.execute("DROP SCHEMA IF EXISTS orthanc_transfers CASCADE")
            connection.execute("DROP ROLE humble")


def test_eight_that_create_the_tables_at_once_have_the_same(settings: Settings) -> None:
    barrier = threading.Barrier(8)

    def race(_: int) -> tuple[str, str]:
        database = Database(connection_string(settings.cluster.connection_uri, None))
        barrier.wait(10)
        try:
            prepare(database)
            return identity(database)
        finally:
            database.close()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(race, range(8)))) == 1


# --- away


def test_a_database_that_starts_late_is_waited_for() -> None:
    database = Database(f"host=127.0.0.1 port={free_port()} user=postgres")
    with pytest.raises(ConfigurationError, match="refused"):
        database.prove(patience=0.0)


def test_a_node_waits_while_the_database_is_away(make_node: MakeNode, postgresql: PostgreSQL) -> None:
    a, b = make_node(), make_node()
    claim(a, "one")
    b.owner.locate(identifier="two")
    members = a.owner._members
    postgresql.stop()
    try:
        with ThreadPoolExecutor(4) as pool:
            wait_until(lambda: members._now() > members._valid_until, "the lease is over", 10)
            waiting = [
                pool.submit(a.owner.check),
                pool.submit(claim, a, "two"),
                pool.submit(a.owner.begin_commit, "one", manifest("x")),
            ]
            with pytest.raises(Busy, match="cannot be reached"):
                a.cluster.database.query("SELECT 1", patience=0.1)
            assert not any(one.done() for one in waiting)
            postgresql.start()
            for one in waiting:
                one.result(30)
        end(a, "one")
        assert b.owner.report("one") == {"ID": "one"}
    finally:
        if postgresql._process is not None and postgresql._process.poll() is not None:
            postgresql.start()
    # For longer than a lease nobody renewed theirs, and no one is dead.
    since = members._confirmed
    wait_until(lambda: members._confirmed > since + 2 * members._timing.lease, "leases go on", 20)
    assert a.adoptions == b.adoptions == []
    assert a.fenced == b.fenced == 0


def test_a_forgotten_transfer_is_forgotten_once_the_database_is_back(
    make_node: MakeNode, postgresql: PostgreSQL
) -> None:
    a = make_node()
    claim(a, "one")
    postgresql.stop()
    try:
        a.owner.forget("one")
    finally:
        postgresql.start()
    wait_until(
        lambda: not a.cluster.database.query("SELECT 1 FROM orthanc_transfers.transfers"),
        "it is forgotten there, too",
        20,
    )


def test_who_waits_for_the_database_is_let_go_when_the_server_stops(
    make_node: MakeNode, postgresql: PostgreSQL
) -> None:
    a = make_node()
    claim(a, "one")
    postgresql.stop()
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(a.owner.begin_commit, "one", manifest("x"))
            a.cluster.close()
            with pytest.raises(Canceled):
                waiting.result(20)
            with pytest.raises(Canceled):
                a.owner.check()
    finally:
        postgresql.start()


def test_a_connection_that_was_cut_is_made_again(settings: Settings) -> None:
    database = Database(connection_string(settings.cluster.connection_uri, None))
    try:
        database.query("SELECT 1", patience=FOREVER)
        with psycopg.connect(settings.cluster.connection_uri, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orthanc-transfers'"
            )
        assert database.query("SELECT 1") == [(1,)]
    finally:
        database.close()


def test_the_password_is_in_no_log(locked: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    joined = join(
        parse_settings({"Cluster": {"ConnectionUri": locked.uri}}), {}, SystemClock(), shared_staging=True
    )
    joined.close()
    assert caplog.records
    assert PASSWORD not in caplog.text
    assert joined.secret.decode() not in caplog.text
