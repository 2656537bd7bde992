"""Entries in each of their states while their rule is changed, disabled, deleted, or cannot be read any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.rule_entry import ENDED, Entry, EntryState
from orthanc_transfers.core.transfer_record import TransferState
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.finisher import Finisher
from orthanc_transfers.rules.scans import Scans
from tests.rules.test_dispatcher import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, After={"Delete": True})


def spoil(world: World) -> None:
    """As after a restart with a mistake in the configuration."""
    world.book._keep("all", {"Name": "all"}, "Configuration", 0, 0.0)


def change(world: World, **keys: Any) -> None:
    rule = world.book.put({**world.rule, **keys}, 0)
    with world.queue.changing() as changes:
        world.queue.follow(changes, rule)
    world.dispatcher.rules_changed()


def delete(world: World) -> None:
    world.book.delete("all")
    with world.queue.changing() as changes:
        changes.drop_rule("all", "its rule was deleted")
    world.dispatcher.rules_changed()


def history(world: World) -> list[Entry]:
    return world.queue.page(ENDED, None, 10, 0)[1]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "refused"])
def test_what_ran_waits_until_its_rule_can_be_read_again(world: World, *, lost: bool) -> None:
    world.add("1")
    world.turn()
    (transfer,) = world.engine.sent
    spoil(world)
    if lost:
        world.engine.sent.clear()
        world.turn(5)
    else:
        world.end(transfer, TransferState.FAILURE, error="refused")
        world.turn()
    assert world.states() == ["Waiting"]
    change(world)
    world.turn()
    assert world.states() == ["Running"]


def test_what_was_sent_is_finished_once_its_rule_can_be_read_again(world: World) -> None:
    world.add("1")
    world.turn()
    (transfer,) = world.engine.sent
    spoil(world)
    world.reports.read.return_value = {"ID": "its own"}
    world.end(transfer)
    world.turn()
    assert world.states() == ["Finishing"]
    assert world.reports.sync.called


def test_no_filter_is_taken_to_fit_because_it_cannot_be_read(world: World) -> None:
    world.add("1")
    spoil(world)
    world.turn()
    assert [one.checked for one in world.queue.in_state(EntryState.WAITING)] == [False]
    change(world)
    world.turn()
    assert world.states() == ["Running"]


# --- what is done with what was sent


@pytest.fixture
def finishing(world: World) -> Mock:
    world.add("1")
    (entry,) = world.queue.in_state(EntryState.WAITING)
    with world.queue.changing() as changes:
        changes.set(entry.id, state=EntryState.FINISHING.value)
    return Mock(**{"finish.return_value": "deleted here"})


def finish(world: World, finishing: Mock) -> None:
    Finisher(world.book, world.queue, finishing, Events(world.queue, world.book))._work()


@pytest.mark.parametrize("disabled", [True, False], ids=["disabled", "unreadable"])
def test_nothing_is_deleted_while_its_rule_rests(world: World, finishing: Mock, *, disabled: bool) -> None:
    if disabled:
        change(world, Enabled=False)
    else:
        spoil(world)
    finish(world, finishing)
    assert (world.states(), finishing.finish.called) == (["Finishing"], False)
    change(world)
    finish(world, finishing)
    assert (world.states(), finishing.finish.called) == (["Done"], True)


def test_nothing_is_deleted_once_its_rule_is_gone(world: World, finishing: Mock) -> None:
    delete(world)
    finish(world, finishing)
    assert not finishing.finish.called
    (entry,) = history(world)
    assert (entry.state, "its rule was deleted" in (entry.said or "")) == (EntryState.DONE, True)


# --- walks through all


def test_a_walk_goes_on_once_its_rule_can_be_read_again_and_sends_what_a_destination_lacks(
    world: World,
) -> None:
    change(world, Destinations=["b", "c"], Deliver="All")
    world.add("1")
    b, c = world.queue.in_state(EntryState.WAITING)
    with world.queue.changing() as changes:
        changes.set(b.id, stamp="then")
        changes.end(b.id, EntryState.DONE, None)
        changes.end(c.id, EntryState.GIVEN_UP, None)
    orthanc, matching = Mock(), Mock()
    orthanc.page.return_value = [b.resource.id]
    orthanc.last_update.return_value = "then"
    matching.mismatch.return_value = None
    scans = Scans(world.book, world.queue, world.database, matching, orthanc, world.clock, lambda: 0)
    with world.queue.changing() as changes:
        scans.begin(changes.writer, "all", "Manual")
    spoil(world)
    assert not scans.look()
    change(world, Destinations=["b", "c"], Deliver="All")
    assert scans.look()
    assert [one.destination for one in world.queue.in_state(EntryState.WAITING)] == ["c"]
