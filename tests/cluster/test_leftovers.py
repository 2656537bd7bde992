"""What an undo on one node could not delete, while other nodes commit: on a real PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import HostError, ImportRefused
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.receiver.leftovers import Fate
from orthanc_transfers.receiver.ownership import Fenced
from tests.cluster.conftest import MakeNode, NodeInTest
from tests.cluster.test_ownership import FAILED, claim, end, manifest
from tests.receiver.memory_receiver import MemoryStore, Receiver, dicom, fill, identify
from tests.support.waiting import wait_until


@pytest.fixture
def two(make_node: MakeNode) -> tuple[NodeInTest, NodeInTest]:
    """On the first, transfer "one" has failed, and its "x" and "y" are still there."""
    a, b = make_node(), make_node()
    claim(a, "one")
    a.owner.begin_commit("one", manifest("x", "y", "z"))
    a.owner.overlap("one", ["x", "y"])
    a.owner.leftovers.leave("one", ["x", "y"])
    end(a, "one", FAILED)
    return a, b


def begin(node: NodeInTest, instance: str) -> Fate:
    return node.owner.leftovers.begin("one", instance)


def test_nothing_is_deleted_that_another_nodes_commit_counts_on(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(b, "two")
    assert begin(a, "x") is Fate.DELETE
    a.owner.leftovers.end("one", "x")  # that failed
    b.owner.begin_commit("two", manifest("x"))
    assert begin(a, "x") is Fate.WAIT
    assert begin(a, "y") is Fate.DELETE
    end(b, "two", FAILED)
    assert begin(a, "x") is Fate.DELETE


def test_what_another_nodes_commit_succeeded_with_stays(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(b, "two")
    b.owner.begin_commit("two", manifest("x"))
    end(b, "two")
    b.owner.forget("two")
    assert begin(a, "x") is Fate.KEEP
    assert begin(a, "y") is Fate.DELETE
    a.owner.leftovers.forget("one")
    # Brought by another transfer, whose undo fails as well: nobody has succeeded with that.
    a.owner.leftovers.leave("three", ["x"])
    assert a.owner.leftovers.begin("three", "x") is Fate.DELETE


def test_a_commit_begins_once_what_it_counts_on_is_deleted(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(b, "two")
    assert begin(a, "x") is Fate.DELETE
    assert begin(a, "x") is Fate.DELETE  # the answer was lost
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(b.owner.begin_commit, "two", manifest("x", "y"))
        before = b.cluster.database.requests
        wait_until(lambda: b.cluster.database.requests > before + 2, "it asks again and again", 10)
        assert not waiting.done()
        a.owner.leftovers.end("one", "x")
        waiting.result(10)
    assert begin(a, "y") is Fate.WAIT


def test_a_node_that_dies_while_it_deletes_holds_up_nobody(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(b, "two")
    assert begin(a, "x") is Fate.DELETE
    go_on = a.silence()
    wait_until(lambda: bool(b.adoptions), "the other one takes over", 20)
    b.owner.begin_commit("two", manifest("x"))
    with pytest.raises(Fenced):
        begin(a, "x")
    with pytest.raises(Fenced):
        a.owner.leftovers.leave("one", ["x"])
    assert begin(b, "x") is Fate.WAIT
    end(b, "two")
    # It believes that nothing is left, for it had just settled that.
    a.owner.leftovers.forget("one")
    assert begin(b, "x") is Fate.KEEP
    go_on()


FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(4)]


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_receiver_leaves_to_another_nodes_what_that_counts_on(
    make_node: MakeNode, tmp_path: Path, succeeds: bool
) -> None:
    store = MemoryStore()
    a, b = (
        Receiver(
            tmp_path / name,
            store,
            settings=Settings(commit_threads_count=1),
            ownership=make_node(started=False).owner,
        )
        for name in ("first", "second")
    )
    try:
        store.refused[identify(FILES[3])] = "no room"
        store.before_remove = full
        first = a.pull(FILES, "a" * 32)
        fill(first, FILES)
        with pytest.raises(ImportRefused, match=r"3 of 4 instances are still here"):
            first.commit()
        second = b.pull(FILES if not succeeds else FILES[:3], "b" * 32)
        fill(second, FILES)
        if succeeds:
            second.commit()
        else:
            with pytest.raises(ImportRefused):
                second.commit()
        store.before_remove = lambda _: None
        wait_until(lambda: not a.registry._undo_retries._all, "nothing is left to be undone", 20)
        assert set(store.files) == ({identify(one) for one in FILES[:3]} if succeeds else set())
    finally:
        a.stop()
        b.stop()


def full(_: str) -> None:
    raise HostError("the disk is full", 1)
