"""Entries in each of their states while their rule is changed, disabled, deleted, or cannot be read any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.rule_entry import ENDED, Entry, EntryState
from orthanc_transfers.core.transfer_record import TransferState
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.finisher import Finisher
from orthanc_transfers.rules.followers import follow_rules
from orthanc_transfers.rules.queue import Changes
from orthanc_transfers.rules.scans import Scans
from tests.rules.test_dispatcher import CLOSED, LOOK, World


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(tmp_path, shared=request.param, After={"Delete": True})
    follow_rules(made.book, made.queue, made.database)
    return made


def spoil(world: World) -> None:
    """As after a restart with a mistake in the configuration."""
    world.book._keep("all", {"Name": "all"}, "Configuration", 0, 0.0)


def change(world: World, **keys: Any) -> None:
    world.book.put({**world.rule, **keys}, 0)
    follow_rules(world.book, world.queue, world.database)
    world.dispatcher.rules_changed()


def delete(world: World) -> None:
    world.book.delete("all")
    follow_rules(world.book, world.queue, world.database)
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


# --- jobs


def run(world: World, *, waits: bool = False, held: bool = False) -> str:
    """The name of the transfer of an entry that runs."""
    world.add("1")
    world.turn()
    (transfer,) = world.engine.sent
    if waits:
        world.engine.waiting_since[transfer] = world.clock.now()
    if held:
        change(world, Window=CLOSED)
        world.turn(LOOK)
        assert world.engine.asked == [(f"job {transfer}", "pause")]
        world.engine.asked.clear()
    return transfer


@pytest.mark.parametrize("kind", ["waits", "held"])
@pytest.mark.parametrize("how", ["deleted", "disabled", "moved", "another filter", "anonymized"])
def test_a_job_that_waits_is_called_back_when_its_rule_would_not_begin_it_now(
    world: World, kind: str, how: str
) -> None:
    transfer = run(world, **{kind: True})
    canceled = [(f"job {transfer}", "cancel")]
    if how == "deleted":
        delete(world)
    else:
        change(
            world,
            Enabled=how != "disabled",
            Destinations=["c"] if how == "moved" else ["b"],
            Filter={"Modality": ["CT"]} if how == "another filter" else {},
            Window=CLOSED if kind == "held" else [],
            **({"Anonymize": {}, "After": {}} if how == "anonymized" else {}),
        )
    world.turn(LOOK)
    assert world.engine.asked == canceled
    world.end(transfer, TransferState.CANCELED)
    world.turn()
    assert world.dispatcher.held_peers() == []
    if how in ("deleted", "another filter"):
        (entry,) = history(world)
        assert entry.state is EntryState.DROPPED
        assert ("its rule was deleted" if how == "deleted" else "its filter") in (entry.said or "")
        return
    if how == "anonymized":
        # The original is not sent: a copy is made.
        assert not world.engine.sent
        return
    # In its window, and enabled.
    change(world, Destinations=["c"] if how == "moved" else ["b"])
    world.turn(LOOK)
    assert [one.peer for one in world.engine.sent.values()] == ["c" if how == "moved" else "b"]


@pytest.mark.parametrize("how", ["deleted", "disabled"])
def test_a_job_that_is_sending_goes_on_whatever_becomes_of_its_rule(world: World, how: str) -> None:
    run(world)
    if how == "deleted":
        delete(world)
    else:
        change(world, Enabled=False)
    world.turn(LOOK)
    assert world.engine.asked == []


def test_what_is_paused_stays_so_until_its_rule_can_be_read_again(world: World) -> None:
    transfer = run(world, held=True)
    spoil(world)
    world.turn(LOOK)
    assert world.engine.asked == []
    change(world)
    world.turn(LOOK)
    assert world.engine.asked == [(f"job {transfer}", "resume")]


def test_an_end_that_is_told_while_a_job_is_called_back_is_not_that_of_a_user(world: World) -> None:
    transfer = run(world, waits=True)
    command = world.engine.command

    def cancel(identifier: str, name: str) -> bytes:
        world.end(transfer, TransferState.CANCELED)
        return command(identifier, name)

    world.engine.command = cancel  # type: ignore[method-assign]
    change(world, Destinations=["c"])
    world.turn(LOOK)
    world.turn()
    assert [one.peer for one in world.engine.sent.values()] == ["c"]


def test_a_job_that_does_not_take_a_cancel_is_canceled_again(world: World) -> None:
    transfer = run(world, held=True)
    delete(world)
    world.turn(LOOK)
    world.turn(LOOK)
    assert world.engine.asked == [(f"job {transfer}", "cancel")] * 2


def fail(world: World) -> None:
    """The peer is not there, as the only job finds out, and another one is to find out later."""
    world.add("1", "2")
    world.turn()
    for transfer in list(world.engine.sent):
        world.end(transfer, TransferState.FAILURE, peer_failed=True, error="refused")
    world.turn()
    assert world.dispatcher.held_peers() == ["b"]


@pytest.mark.parametrize("who", ["a user", "its window"])
def test_another_entry_finds_out_about_a_peer_when_the_job_that_was_to_is_paused(
    world: World, who: str
) -> None:
    fail(world)
    world.turn(6)
    (transfer,) = world.engine.sent
    world.put(Destinations=["b"])
    world.add("3", to="moved")
    world.turn(1)
    assert list(world.engine.sent) == [transfer]
    if who == "a user":
        world.engine.paused.add(f"job {transfer}")
    else:
        change(world, Window=CLOSED)
    world.turn(LOOK)
    world.turn(LOOK)
    assert len(world.engine.sent) == 2


def test_a_disk_that_was_full_when_an_entry_was_to_find_out_about_a_peer_holds_nothing_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(world)

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Changes, "set", full)
        with pytest.raises(sqlite3.OperationalError):
            world.turn(6)
        with pytest.raises(sqlite3.OperationalError):
            world.turn(LOOK)
    assert not world.engine.sent
    world.turn(LOOK)
    assert len(world.engine.sent) == 1
    world.end(*world.engine.sent, state=TransferState.SUCCESS)
    world.add("3")
    world.turn()
    # And no place is lost.
    assert len(world.engine.sent) == 2


def test_an_entry_is_sent_also_where_no_thread_can_be_started(tmp_path: Path) -> None:
    def start(_: str, __: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    world = World(tmp_path, start=start)
    run(world)
    assert world.states() == ["Running"]


# --- filters


def test_what_waits_is_asked_again_when_its_filter_is_another_one(world: World) -> None:
    world.put(Destinations=["away"], Enabled=False)
    world.add("1", "2", to="moved")
    follow_rules(world.book, world.queue, world.database)
    world.turn()
    assert [one.checked for one in world.queue.in_state(EntryState.WAITING)] == [True, True]
    world.book.put({**world.rule, "Filter": {"Modality": ["CT"]}}, 0)
    follow_rules(world.book, world.queue, world.database)
    assert [one.checked for one in world.queue.in_state(EntryState.WAITING)] == [True, True]
    world.put(Destinations=["away"], Enabled=False, Filter={"Modality": ["CT"]})
    follow_rules(world.book, world.queue, world.database)
    assert [one.checked for one in world.queue.in_state(EntryState.WAITING)] == [False, False]
    world.turn()
    assert world.states() == ["Dropped", "Dropped"]
    assert '"Modality" of its filter' in (history(world)[0].said or "")


def test_what_its_filter_never_took_leaves_no_trace(world: World) -> None:
    world.put(Destinations=["away"], Filter={"Modality": ["CT"]})
    world.add("1", to="moved")
    world.turn()
    assert world.states() == []
