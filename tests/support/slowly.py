"""Transfers of real Orthancs, slow until a test has seen what it looks at: on a busy machine, too, none ends before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.orthanc_server import OrthancServer


@contextmanager
def slowly(*servers: OrthancServer, kbs: int) -> Iterator[None]:
    """What these send and fetch is limited to so many KB a second, all together, also through restarts."""
    for server in servers:
        server.put("transfers/settings", {"Bandwidth": {"LimitKBs": kbs}})
    try:
        yield
    finally:
        for server in servers:
            if server.running:
                quickly(server)


def quickly(server: OrthancServer) -> None:
    """As its configuration has it again."""
    server.put("transfers/settings", {"Bandwidth": None})
