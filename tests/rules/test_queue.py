"""The queue on disk, and what the end of a job means for an entry of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import ACTIVE, ENDED, Entry, EntryState
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.holds import Holds
from orthanc_transfers.rules.metrics import metrics_of
from orthanc_transfers.rules.outcomes import MAX_REFUSALS, JobEnd, Outcomes
from orthanc_transfers.rules.queue import Position, Queue
from tests.runtime.fake_time import FakeClock

STUDY = Resource(Level.STUDY, "study")


def rule(*destinations: str, **keys: Any) -> Rule:
    return Rule.parse(
        {"Name": "all", "Trigger": "StableStudy", "Destinations": list(destinations or "b"), **keys}
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database(tmp_path: Path, clock: FakeClock) -> RuleDatabase:
    made = RuleDatabase(lambda: tmp_path / "rules" / "rules.sqlite", clock)
    made.open()
    return made


@pytest.fixture
def queue(database: RuleDatabase, clock: FakeClock) -> Queue:
    return Queue(database, clock)


def add(queue: Queue, wanted: Rule, change: int | None, resource: Resource = STUDY, epoch: int = 0) -> None:
    with queue.changing() as changes:
        queue.add(changes.writer, wanted, resource, "StableStudy", Position(epoch, change))


def entries(queue: Queue) -> list[Entry]:
    return sorted(queue.page([*ACTIVE, *ENDED], None, 1000, 0)[1], key=lambda one: one.id)


def take(queue: Queue, state: EntryState = EntryState.RUNNING) -> Entry:
    """The first entry, in that state from now on."""
    (first, *_) = entries(queue)
    with queue.changing() as changes:
        changes.set(first.id, state=state.value, peer="b", checked=1)
    found = queue.entry(first.id)
    assert found is not None
    return found


def test_never_twice_for_one_change(queue: Queue) -> None:
    add(queue, rule(), 5)
    add(queue, rule(), 5)
    assert len(entries(queue)) == 1
    take(queue, EntryState.DONE)
    add(queue, rule(), 5)
    assert [one.state for one in entries(queue)] == [EntryState.DONE]
    # Another life of Orthanc's list of changes has the same numbers.
    add(queue, rule(), 5, epoch=1)
    assert len(entries(queue)) == 2


def test_what_waits_takes_later_changes_along_and_what_runs_does_not(queue: Queue) -> None:
    add(queue, rule(), 5)
    add(queue, rule(), 6)
    assert len(entries(queue)) == 1
    take(queue)
    add(queue, rule(), 7)
    assert sorted(one.state.value for one in entries(queue)) == ["Running", "Waiting"]


def test_each_of_all_destinations_has_its_entry(queue: Queue) -> None:
    add(queue, rule("b", "c", Deliver="All"), 5)
    assert [one.destination for one in entries(queue)] == ["b", "c"]
    assert [one.destination for one in queue.siblings(entries(queue)[0])] == ["b", "c"]


def test_a_changed_rule_takes_its_entries_along(queue: Queue) -> None:
    add(queue, rule("b", "c", Deliver="All"), 5)
    with queue.changing() as changes:
        queue.follow(changes, rule("c", "d", Deliver="All"))
    found = {(one.destination, one.state) for one in entries(queue)}
    assert found == {("b", EntryState.DROPPED), ("c", EntryState.WAITING), ("d", EntryState.WAITING)}


def test_ten_thousand_wait_and_pages_are_quick(queue: Queue) -> None:
    with queue.changing() as changes:
        for number in range(10_000):
            queue.add(changes.writer, rule(), Resource(Level.STUDY, f"{number}"), "Time", stamp="then")
    total, page = queue.page(ACTIVE, "all", 3, 5000)
    assert (total, [one.resource.id for one in page]) == (10_000, ["5000", "5001", "5002"])
    assert [one.resource.id for one in queue.due("all", "", 2)] == ["0", "1"]
    assert queue.counts() == {"all": {"Waiting": 10_000}}


@pytest.mark.parametrize(
    "ask",
    [lambda queue: queue.unchecked(50), lambda queue: queue.due("all", "", 2)],
    ids=["unchecked", "due"],
)
def test_what_each_turn_asks_looks_at_no_entry_that_it_does_not_want(
    queue: Queue, database: RuleDatabase, ask: Callable[[Queue], list[Entry]]
) -> None:
    def steps() -> int:
        """Of SQLite's virtual machine, in tens."""
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        with database.reading() as reader:
            reader.set_progress_handler(count, 10)
        ask(queue)
        with database.reading() as reader:
            reader.set_progress_handler(None, 0)
        return counted[0]

    def add(numbers: range) -> None:
        with queue.changing() as changes:
            for number in numbers:
                queue.add(changes.writer, rule(), Resource(Level.STUDY, f"{number}"), "Time", stamp="then")

    add(range(10))
    few = steps()
    assert few
    add(range(10, 2000))
    assert steps() <= few + 2


def test_queue_time_goes_on_over_restarts_and_knows_no_clock_of_the_wall(
    database: RuleDatabase, clock: FakeClock
) -> None:
    clock.advance(100)
    with database.writing():
        pass
    database.close()
    clock.advance(1000)
    database.open()
    assert database.now == pytest.approx(100)
    clock.advance(5)
    assert database.now == pytest.approx(105)


# --- outcomes


class Ending:
    """Outcomes of one entry."""

    def __init__(self, queue: Queue, database: RuleDatabase) -> None:
        self.queue = queue
        self.holds = Holds(lambda: database.now, lambda: 1.0)
        self.outcomes = Outcomes(self.holds, lambda: database.now, lambda: 1.0)

    def end(self, wanted: Rule | None, end: JobEnd, *, stored: bool = True) -> EntryState:
        entry = take(self.queue)
        with self.queue.changing() as changes:
            if entry.first_try is None:
                changes.set(entry.id, first_try=0.0)
        found = self.queue.entry(entry.id)
        assert found is not None
        with self.queue.changing() as changes:
            return self.outcomes.record(changes, found, wanted, end, stored=stored).state


@pytest.fixture
def ending(queue: Queue, database: RuleDatabase) -> Ending:
    add(queue, rule(), 5)
    return Ending(queue, database)


def test_a_peer_that_is_away_is_tried_by_one_entry_and_ever_more_seldom(
    ending: Ending, clock: FakeClock
) -> None:
    away = JobEnd(peer_failed=True, error="refused")
    waits = []
    for _ in range(12):
        ending.holds.trying("b")
        assert ending.end(rule(), away) is EntryState.WAITING
        assert not ending.holds.may_try("b")
        before = clock.monotonic()
        while not ending.holds.may_try("b"):
            clock.advance(1)
        waits.append(clock.monotonic() - before)
    assert waits[:4] == [5, 10, 20, 40]
    assert max(waits) == waits[-1] == 900
    ending.holds.trying("b")
    assert not ending.holds.may_try("b")
    assert ending.holds.there("b")
    assert ending.holds.may_try("b")


@pytest.mark.parametrize("end", [JobEnd(lost=True), JobEnd(canceled=True)], ids=["lost", "canceled"])
def test_where_the_one_that_was_to_find_out_is_gone_another_one_does(
    ending: Ending, clock: FakeClock, end: JobEnd
) -> None:
    ending.end(rule(), JobEnd(peer_failed=True, error="refused"))
    clock.advance(5)
    assert ending.holds.may_try("b")
    ending.holds.trying("b")
    assert not ending.holds.may_try("b")
    ending.end(rule(), end)
    assert ending.holds.may_try("b")


def test_it_is_given_up_after_the_time_of_its_rule(ending: Ending, clock: FakeClock) -> None:
    away = JobEnd(peer_failed=True, error="refused")
    assert ending.end(rule(Retry="1h"), away) is EntryState.WAITING
    clock.advance(3600)
    assert ending.end(rule(Retry="1h"), away) is EntryState.GIVEN_UP


def test_what_is_refused_again_and_again_has_failed(ending: Ending) -> None:
    ends = [ending.end(rule(), JobEnd(error="refused")) for _ in range(MAX_REFUSALS)]
    assert ends == [EntryState.WAITING] * (MAX_REFUSALS - 1) + [EntryState.FAILED]


@pytest.mark.parametrize(
    ("end", "stored", "wanted", "state"),
    [
        (JobEnd(succeeded=True), True, rule(), EntryState.FINISHING),
        (JobEnd(canceled=True), True, rule(), EntryState.DROPPED),
        (JobEnd(error="gone"), False, rule(), EntryState.DROPPED),
        (JobEnd(error="x"), True, None, EntryState.DROPPED),
        (JobEnd(lost=True), True, rule(), EntryState.WAITING),
        (JobEnd(recalled=True), True, rule("b", "c"), EntryState.WAITING),
    ],
)
def test_ends(ending: Ending, end: JobEnd, wanted: Rule | None, state: EntryState, *, stored: bool) -> None:
    assert ending.end(wanted, end, stored=stored) is state


def test_the_next_destination_is_the_next_in_turn(ending: Ending, queue: Queue) -> None:
    ending.end(rule("b", "c"), JobEnd(peer_failed=True))
    assert entries(queue)[0].turn == 1


def test_metrics_are_of_each_rule_and_of_each_peer_that_it_tried(
    ending: Ending, queue: Queue, clock: FakeClock
) -> None:
    clock.advance(7)
    ending.end(rule("b", "c"), JobEnd(peer_failed=True))
    add(queue, rule("b", "c"), 9, Resource(Level.STUDY, "another"))
    assert metrics_of(queue) == {
        "orthanc_transfers_rules_waiting": 2,
        "orthanc_transfers_rules_waiting_all": 2,
        "orthanc_transfers_rules_oldest_seconds_all": 7,
        "orthanc_transfers_rules_failed_all": 0,
        "orthanc_transfers_rules_waiting_all_to_b": 1,
        "orthanc_transfers_rules_oldest_seconds_all_to_b": 7,
        "orthanc_transfers_rules_failed_all_to_b": 0,
    }
    for _ in range(MAX_REFUSALS):
        ending.end(rule("b", "c"), JobEnd(error="refused"))
    assert metrics_of(queue)["orthanc_transfers_rules_failed_all_to_b"] == 1


# --- rules that change


def follow(queue: Queue, wanted: Rule) -> None:
    with queue.changing() as changes:
        queue.follow(changes, wanted)


def set_state(queue: Queue, destination: str, state: EntryState) -> None:
    for one in entries(queue):
        if one.destination == destination and one.state is EntryState.WAITING:
            with queue.changing() as changes:
                if state in ENDED:
                    changes.end(one.id, state, None)
                else:
                    changes.set(one.id, state=state.value)


def active(queue: Queue) -> list[tuple[str, str]]:
    return [(one.destination, one.state.value) for one in entries(queue) if one.state in ACTIVE]


@pytest.mark.parametrize(
    ("before", "between", "places"),
    [
        (rule("b", Deliver="All"), rule("c", Deliver="All"), ["b"]),
        (rule("b", "c"), rule("b", "c", Deliver="All"), [""]),
        (rule("b", "c", Deliver="All"), rule("b", "c"), ["b", "c"]),
    ],
    ids=["destination", "all", "first"],
)
def test_what_waits_is_not_lost_where_a_change_of_a_rule_is_taken_back(
    queue: Queue, before: Rule, between: Rule, places: list[str]
) -> None:
    add(queue, before, 5)
    for wanted in (between, before, between, before):
        follow(queue, wanted)
    assert active(queue) == [(place, "Waiting") for place in places]
    add(queue, before, 5)
    assert len(active(queue)) == len(places)


@pytest.mark.parametrize("state", [EntryState.DONE, EntryState.RUNNING, EntryState.FAILED])
@pytest.mark.parametrize("change", [5, None], ids=["change", "by hand"])
def test_a_destination_that_had_it_does_not_get_it_once_more_as_another_one_goes(
    queue: Queue, state: EntryState, change: int | None
) -> None:
    if change is None and state is not EntryState.DONE:
        pytest.skip("what is run by hand may be sent again")
    with queue.changing() as changes:
        wanted = rule("b", "c", Deliver="All")
        queue.add(changes.writer, wanted, STUDY, "Manual", Position(0, change), stamp="then")
    set_state(queue, "b", state)
    follow(queue, rule("b", Deliver="All"))
    assert active(queue) == ([("b", "Running")] if state is EntryState.RUNNING else [])


@pytest.mark.parametrize(
    ("last", "after", "then"),
    [
        (EntryState.DONE, {"Delete": True}, [("b", "Finishing")]),
        (EntryState.DONE, {}, []),
        (EntryState.RUNNING, {"Delete": True}, [("b", "Running")]),
        (EntryState.FAILED, {"Delete": True}, []),
    ],
)
def test_what_all_the_destinations_have_that_a_rule_still_has_is_finished(
    queue: Queue, last: EntryState, after: dict[str, bool], then: list[tuple[str, str]]
) -> None:
    add(queue, rule("b", "c", Deliver="All", After=after), 5)
    set_state(queue, "b", last)
    follow(queue, rule("b", Deliver="All", After=after))
    assert active(queue) == then


def test_only_the_places_that_did_not_get_it_lack_it(queue: Queue) -> None:
    wanted = rule("b", "c", Deliver="All")
    with queue.changing() as changes:
        queue.add(changes.writer, wanted, STUDY, "Time", stamp="then")
    assert queue.unsent(wanted, STUDY, "then") == ()
    set_state(queue, "b", EntryState.DONE)
    set_state(queue, "c", EntryState.GIVEN_UP)
    assert queue.unsent(wanted, STUDY, "then") == ("c",)
    assert queue.unsent(wanted, STUDY, "later") == ("b", "c")
    assert queue.unsent(rule("b", "c"), STUDY, "then") == ()
    assert queue.unsent(rule("b", "c"), STUDY, "later") == ("",)
