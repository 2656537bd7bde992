"""What the receiver relies on, whether there is a cluster or not."""

from __future__ import annotations

import uuid

import pytest

from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.receiver.leftovers import Fate
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.single_server import SingleServer

META = {"kind": "push", "token": "token"}
MANIFEST = Manifest([Instance("x", 10, "md5"), Instance("y", 20, None)])


@pytest.fixture(params=["single", "postgresql, shared staging", "postgresql, own staging"])
def ownership(request: pytest.FixtureRequest) -> Ownership:
    if request.param == "single":
        return SingleServer()
    make_node = request.getfixturevalue("make_node")
    node = make_node(shared="shared" in request.param)
    return node.owner  # type: ignore[no-any-return]


def test_the_originator_is_a_uuid_and_stays(ownership: Ownership) -> None:
    assert uuid.UUID(ownership.originator)
    assert ownership.originator == ownership.originator


@pytest.mark.parametrize("outcome", ["committed", "failed"])
def test_a_transfer_from_its_claim_to_its_end(ownership: Ownership, outcome: str) -> None:
    ownership.claim("one", "push", "token", META, limit=1)
    for _ in range(2):  # the first attempt is undone
        ownership.locate(identifier="one")
        ownership.locate(kind="push", token="token")
        ownership.check()
        ownership.begin_commit("one", MANIFEST)
        ownership.begin_import("one", [0])
        ownership.begin_import("one", [0, 1])
        overlap = ownership.overlap("one", ["x", "y"])
        assert (overlap.kept, overlap.left) == (set(), set())
        ownership.back_to_receiving("one")
    ownership.begin_commit("one", MANIFEST)
    ownership.begin_import("one", [])
    ownership.end("one", {"State": outcome, "Finished": 1.0}, {"ID": "one"}, ["token"])
    ownership.locate(identifier="one")
    assert ownership.report("one") in (None, {"ID": "one"})
    ownership.forget("one")
    ownership.locate(identifier="one")
    ownership.claim("two", "push", "token", META, limit=1)


def test_what_was_never_there_is_not_elsewhere(ownership: Ownership) -> None:
    ownership.locate(identifier="unknown")
    ownership.locate(kind="push", token="unknown")
    ownership.forget("unknown")
    assert ownership.report("unknown") is None


def test_a_pull_that_starts_anew_has_the_same_token(ownership: Ownership) -> None:
    ownership.claim("one", "pull", "token", META, limit=0)
    ownership.forget("one")
    ownership.claim("two", "pull", "token", META, limit=0)
    ownership.locate(kind="pull", token="token")
    ownership.begin_commit("two", MANIFEST)


def test_what_an_undo_could_not_delete_is_deleted_later(ownership: Ownership) -> None:
    ownership.claim("one", "push", "token", META, limit=1)
    ownership.begin_commit("one", MANIFEST)
    ownership.overlap("one", ["x", "y"])
    for _ in range(2):
        ownership.leftovers.leave("one", ["x", "y"])
    ownership.end("one", {"State": "failed", "Finished": 1.0}, {"ID": "one"}, ["token"])
    for _ in range(2):  # the first attempt fails, too
        assert ownership.leftovers.begin("one", "x") is Fate.DELETE
        ownership.leftovers.end("one", "x")
    ownership.leftovers.end("one", "x")
    assert ownership.leftovers.begin("one", "y") is Fate.DELETE
    ownership.leftovers.end("one", "y")
    ownership.leftovers.forget("one")
    ownership.leftovers.forget("one")


def test_what_no_undo_told_of_may_be_deleted_too(ownership: Ownership) -> None:
    # It could not be told, by an earlier process.
    assert ownership.leftovers.begin("unknown", "x") is Fate.DELETE
    ownership.leftovers.end("unknown", "x")


def test_nothing_is_to_be_taken_over(ownership: Ownership) -> None:
    ownership.on_adoption(lambda adoption: pytest.fail("of whom?"), lambda: pytest.fail("by whom?"))
