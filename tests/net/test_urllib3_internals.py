"""What ``net/`` relies on in urllib3, so that a version without it is named here, not found in a hospital."""

from __future__ import annotations

import inspect
import queue
from typing import Any

import pytest
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from orthanc_transfers.net.connections import HTTPPool, HTTPSPool, IdleConnections
from orthanc_transfers.net.sockets import SocketFactory
from orthanc_transfers.net.urllib3_internals import new_connection

CONNECTIONS = [HTTPConnection, HTTPSConnection]
POOLS = [HTTPConnectionPool, HTTPSConnectionPool]

ADVICE = "keep urllib3 below this version in pyproject.toml, or adapt net/urllib3_internals.py"


def private_method(owner: type, caller: str | None = None) -> str | None:
    """What is wrong with ``_new_conn`` of a class, and with the method that should call it; ``None`` if nothing."""
    here = f"urllib3 {urllib3.__version__}: {owner.__name__}"
    method = getattr(owner, "_new_conn", None)
    if method is None:
        return f"{here} has no _new_conn any more; {ADVICE}"
    if list(inspect.signature(method).parameters) != ["self"]:
        return f"{here}._new_conn takes {inspect.signature(method)} now, and took only self; {ADVICE}"
    if caller is not None and "_new_conn" not in getattr(owner, caller).__code__.co_names:
        return f"{here}.{caller} does not call _new_conn any more; {ADVICE}"
    return None


@pytest.mark.parametrize("owner", CONNECTIONS)
def test_a_connection_gets_its_socket_from_new_conn(owner: type) -> None:
    assert private_method(owner, "connect") is None


@pytest.mark.parametrize("owner", POOLS)
def test_a_pool_makes_a_connection_by_new_conn(owner: type) -> None:
    assert private_method(owner) is None


def test_what_is_gone_is_named() -> None:
    class Gone:
        pass

    class Changed:
        def _new_conn(self, host: str) -> None: ...

    class Unused:
        def _new_conn(self) -> None: ...
        def connect(self) -> None: ...

    for owner, words in [
        (Gone, "has no _new_conn any more"),
        (Changed, "takes (self, host: 'str') -> 'None' now"),
        (Unused, "connect does not call _new_conn any more"),
    ]:
        said = private_method(owner, "connect")
        assert said is not None
        assert words in said
        assert owner.__name__ in said


@pytest.mark.parametrize("pool_class", [HTTPPool, HTTPSPool])
def test_a_pool_hands_its_options_to_its_connections(pool_class: Any) -> None:
    sockets = SocketFactory("system")
    pool = pool_class("10.0.0.1", 1234, sockets=sockets, maxsize=2)
    connection = new_connection(pool)
    assert (connection.sockets, connection.address, connection.port) == (sockets, "10.0.0.1", 1234)
    assert not connection.is_connected


@pytest.mark.parametrize("pool_class", [HTTPPool, HTTPSPool])
def test_a_pool_keeps_its_connections_where_it_is_told_to(pool_class: Any) -> None:
    pool = pool_class("10.0.0.1", 1234, sockets=SocketFactory("system"), maxsize=2)
    idle = pool.pool
    assert isinstance(idle, IdleConnections), (
        f"urllib3 {urllib3.__version__}: pools ignore QueueCls; {ADVICE}"
    )
    assert [idle.take_slot() for _ in range(3)] == [True, True, False]
    pool.close()


def test_the_connection_parked_last_is_used_first_and_surplus_ones_are_closed() -> None:
    pool = HTTPPool("10.0.0.1", sockets=SocketFactory("system"), maxsize=2)
    idle = pool.pool
    assert isinstance(idle, IdleConnections)
    assert (idle.get(), idle.get()) == (None, None)
    with pytest.raises(queue.Empty):
        idle.get(block=False)
    one, other, surplus = (new_connection(pool) for _ in range(3))
    closed = []
    surplus.close = lambda: closed.append(surplus)
    for connection in (one, other, surplus):
        idle.put(connection, block=False)
    assert idle.qsize() == 2
    assert closed == [surplus]
    assert (idle.get(), idle.get()) == (other, one)
