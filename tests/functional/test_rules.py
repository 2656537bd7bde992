"""Rules on real Orthancs: what arrives is sent by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.rules import (
    STABLE,
    has,
    queue,
    remove_rules,
    set_rule,
    study,
    wait_ended,
)

pytestmark = pytest.mark.orthanc

Pair = tuple[OrthancServer, OrthancServer]


@pytest.fixture(scope="module")
def both(make_shared_server: MakeServer) -> Pair:
    a, b = make_shared_server("a", configuration=STABLE), make_shared_server("b")
    pair(a, b)
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(both: Pair) -> Iterator[Pair]:
    yield both
    a, b = both
    remove_rules(a)
    a.clear()
    b.clear()


def test_a_study_that_is_stable_is_sent(servers: Pair) -> None:
    a, b = servers
    set_rule(a)
    arrived = study(a)
    ended = wait_ended(a, arrived)
    assert has(b, [arrived])
    assert (ended["Rule"], ended["Origin"], ended["Peer"], ended["Attempts"]) == (
        "all",
        "StableStudy",
        "b",
        1,
    )
    assert a.job(ended["Job"])["State"] == "Success"
    assert queue(a) == []
