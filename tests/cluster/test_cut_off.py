"""One node is cut off from the database, and the others are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orthanc_transfers.core.errors import Busy
from orthanc_transfers.receiver.ownership import Fenced
from tests.cluster.conftest import MakeNode
from tests.cluster.test_ownership import claim, end, manifest, owner_elsewhere
from tests.support.cuttable_proxy import CuttableProxy
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until


def test_a_node_that_is_cut_off_stops_writing_is_fenced_and_takes_part_again(
    make_node: MakeNode, postgresql: PostgreSQL
) -> None:
    with CuttableProxy(postgresql.port) as proxy:
        a, b = make_node(port=proxy.port), make_node()
        claim(a, "one")
        old = a.owner.node
        members = a.owner._members
        proxy.cut()
        with ThreadPoolExecutor(2) as pool:
            wait_until(lambda: members._now() > members._valid_until, "its lease is over", 10)
            waiting = [pool.submit(a.owner.check), pool.submit(a.owner.begin_commit, "one", manifest("x"))]
            wait_until(lambda: bool(b.adoptions), "the other one takes over", 20)
            # Until it knows, it neither writes nor gives up.
            assert not any(one.done() for one in waiting)
            with pytest.raises(Busy):
                a.cluster.database.query("SELECT 1", patience=0.0)
            b.owner.begin_commit("one", manifest("x"))
            proxy.mend()
            for one in waiting:
                with pytest.raises(Fenced):
                    one.result(20)
        wait_until(lambda: a.fenced == 1 and not members.is_fenced, "it takes part again", 20)
        assert a.owner.node.number > old.number
        assert owner_elsewhere(a, identifier="one") == b.owner.node.number
        end(b, "one")
        claim(a, "two")


def test_a_node_that_is_cut_off_for_a_moment_goes_on(make_node: MakeNode, postgresql: PostgreSQL) -> None:
    with CuttableProxy(postgresql.port) as proxy:
        a, b = make_node(port=proxy.port), make_node()
        claim(a, "one")
        proxy.cut()
        proxy.mend()
        a.owner.begin_commit("one", manifest("x"))
        end(a, "one")
        assert b.adoptions == []
        assert a.fenced == 0
