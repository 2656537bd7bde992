"""What a rule wants done with what was sent: only what its destinations have, and as the rule is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.model import Instance, Level, Manifest, Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.rules.finishing import Finishing

ENTRY = Entry(
    id=1,
    rule="all",
    destination="b",
    resource=Resource(Level.STUDY, "study"),
    origin="StableStudy",
    state=EntryState.FINISHING,
    checked=True,
    attempts=1,
    refusals=0,
    turn=0,
    peer="b",
    transfer="t1",
    job=None,
    held=False,
    first_try=0.0,
    next_try=0.0,
    queued=0.0,
    queued_at=0.0,
    ended=None,
    said=None,
)


def sibling(number: int, destination: str, state: EntryState) -> Entry:
    return replace(
        ENTRY, id=number, destination=destination, peer=destination or "b", state=state, transfer=f"t{number}"
    )


def rule(*destinations: str, deliver: str = "All", delete: bool = True) -> Rule:
    return Rule.parse(
        {
            "Name": "all",
            "Trigger": "StableStudy",
            "Destinations": list(destinations),
            "Deliver": deliver,
            "After": {"Delete": True} if delete else {"SetMetadata": {"1030": "sent"}},
        }
    )


class World:
    """One instance is here, and each destination has confirmed it."""

    def __init__(self) -> None:
        self.store, self.orthanc = Mock(), Mock()
        self.store.manifest.return_value = Manifest([Instance("i", 10, "md5")])
        self.reports = Mock()
        self.reports.read.return_value = {"Instances": [{"ID": "i", "MD5": "md5", "Outcome": "stored"}]}

    def finish(self, wanted: Rule, entry: Entry, siblings: Sequence[Entry]) -> str | None:
        finishing = Finishing(self.store, self.reports, self.orthanc, lambda _: siblings, Mock())
        return finishing.finish(wanted, entry, lambda: True)

    @property
    def deleted(self) -> bool:
        return bool(self.store.remove.called)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("state", [EntryState.WAITING, EntryState.RUNNING])
def test_the_last_destination_that_gets_it_lets_it_be_deleted(world: World, state: EntryState) -> None:
    assert world.finish(rule("b", "c"), ENTRY, [ENTRY, sibling(2, "c", state)]) is None
    assert not world.deleted
    assert "deleted here" in (
        world.finish(rule("b", "c"), ENTRY, [ENTRY, sibling(2, "c", EntryState.DONE)]) or ""
    )
    assert world.deleted


@pytest.mark.parametrize("state", [EntryState.GIVEN_UP, EntryState.FAILED, EntryState.DROPPED])
def test_what_a_destination_never_got_is_kept_and_that_is_said(world: World, state: EntryState) -> None:
    said = world.finish(rule("b", "c"), ENTRY, [ENTRY, sibling(2, "c", state)])
    assert said == f"sent, but not deleted here: peer c did not get it ({state.value})"
    assert not world.deleted


def test_a_destination_that_the_rule_was_given_since_is_named(world: World) -> None:
    said = world.finish(rule("b", "c"), ENTRY, [ENTRY])
    assert said is not None
    assert "never queued for peer c" in said
    assert "run the rule by hand" in said
    assert not world.deleted


def test_where_it_was_to_go_before_the_rule_was_changed_does_not_matter(world: World) -> None:
    ended = sibling(1, "c", EntryState.GIVEN_UP)
    assert "deleted here" in (world.finish(rule("b"), ENTRY, [ended, ENTRY]) or "")


@pytest.mark.parametrize("destination", ["", "b"], ids=["since", "before"])
def test_of_a_rule_that_delivers_to_the_first_only_the_entries_of_before_do_not_count(
    world: World, destination: str
) -> None:
    entry = sibling(3, destination, EntryState.FINISHING)
    dropped = [sibling(1, "b", EntryState.DROPPED), sibling(2, "c", EntryState.DROPPED)]
    siblings = [one for one in dropped if one.destination != destination] + [entry]
    assert "deleted here" in (world.finish(rule("b", "c", deliver="First"), entry, siblings) or "")


def test_marks_are_on_the_disk_before_they_are_said_to_be_done(world: World) -> None:
    done: list[str] = []
    world.orthanc.set_metadata.side_effect = lambda *_: done.append("marked")
    world.store.sync.side_effect = lambda: done.append("synced")
    assert world.finish(rule("b", delete=False), ENTRY, [ENTRY]) is None
    assert done == ["marked", "synced"]
