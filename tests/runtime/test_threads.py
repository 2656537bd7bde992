from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from orthanc_transfers.core.errors import Canceled, NotFound
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.threads import run_all
from tests.support.waiting import wait_until


class Gate:
    """Work that stays inside until it is let go; counts who is inside."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.most = 0
        self.done: list[int] = []
        self._changed = threading.Condition()
        self._open = 0

    def work(self, item: int) -> None:
        with self._changed:
            self.inside.add(item)
            self.most = max(self.most, len(self.inside))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open > 0)
            self._open -= 1
            self.inside.remove(item)
            self.done.append(item)
            self._changed.notify_all()

    def wait_for(self, inside: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self.inside) == inside)

    def let_go(self, count: int) -> None:
        with self._changed:
            self._open += count
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open == 0 or not self.inside)


def in_background(*args: object) -> tuple[threading.Thread, list[BaseException]]:
    """Runs ``run_all`` in a thread of its own; what it raises ends in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            run_all(*args)  # type: ignore[arg-type]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def test_every_item_is_done_once_and_not_by_the_thread_that_waits() -> None:
    done: list[int] = []
    identifiers: set[int] = set()

    def work(item: int) -> None:
        done.append(item)
        identifiers.add(threading.get_ident())

    run_all("test", 3, range(100), work, Cancellation())

    assert sorted(done) == list(range(100))
    assert threading.get_ident() not in identifiers


def test_nothing_to_do_is_done_at_once() -> None:
    run_all("test", 3, [], lambda item: None, Cancellation())


def test_as_many_items_at_once_as_wanted_and_no_more() -> None:
    gate = Gate()
    thread, raised = in_background("test", 3, range(7), gate.work, Cancellation())
    gate.wait_for(3)
    gate.let_go(7)
    thread.join()

    assert sorted(gate.done) == list(range(7))
    assert gate.most == 3
    assert raised == []


def test_there_are_no_more_threads_than_items() -> None:
    names: set[str] = set()
    both = threading.Barrier(2)

    def work(item: int) -> None:
        both.wait()
        names.add(threading.current_thread().name)
        assert threading.current_thread().daemon

    before = threading.active_count()
    run_all("mine", 50, [1, 2], work, Cancellation())

    assert names == {"mine-1", "mine-2"}
    assert threading.active_count() <= before + 2


def test_an_item_is_not_taken_before_a_worker_is_free_for_it() -> None:
    taken: list[int] = []
    gate = Gate()

    def items() -> Iterator[int]:
        for item in range(5):
            taken.append(item)
            yield item

    thread, _ = in_background("test", 2, items(), gate.work, Cancellation())
    gate.wait_for(2)
    assert taken == [0, 1]
    gate.let_go(1)
    gate.wait_for(2)
    assert taken == [0, 1, 2]
    gate.let_go(4)
    thread.join()


def test_the_first_error_wins_and_is_raised_when_all_have_ended() -> None:
    gate = Gate()
    failed = threading.Event()

    def work(item: int) -> None:
        if item == 1:
            gate.wait_for(1)
            failed.set()
            raise NotFound("first")
        gate.work(item)
        raise NotFound("second")

    thread, raised = in_background("test", 2, range(10), work, Cancellation())
    failed.wait()
    assert thread.is_alive()
    gate.let_go(1)
    thread.join()

    assert [str(error) for error in raised] == ["first"]
    assert gate.done == [0]


@pytest.mark.parametrize("good", [0, 1, 20])
def test_an_error_of_the_plan_ends_the_run(good: int) -> None:
    def items() -> Iterator[int]:
        yield from range(good)
        raise NotFound("no more")

    done: list[int] = []
    with pytest.raises(NotFound, match="no more"):
        run_all("test", 4, items(), done.append, Cancellation())

    assert sorted(done) == list(range(good))


def test_what_is_canceled_before_does_not_begin() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    done: list[int] = []

    with pytest.raises(Canceled):
        run_all("test", 2, range(5), done.append, cancellation)
    assert done == []


def test_a_cancellation_does_not_wait_for_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GRACE", 0.01)
    cancellation = Cancellation()
    gate = Gate()
    thread, raised = in_background("test", 2, range(5), gate.work, cancellation)
    gate.wait_for(2)
    cancellation.cancel()
    thread.join()

    assert [type(error) for error in raised] == [Canceled]
    assert len(gate.inside) == 2
    gate.let_go(2)
    gate.wait_for(0)
    assert len(gate.done) == 2, "they must not have taken more"


def test_a_cancellation_waits_for_workers_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GRACE", 60.0)
    cancellation = Cancellation()
    ended: list[int] = []

    def work(item: int) -> None:
        try:
            cancellation.wait(60)
        finally:
            ended.append(item)

    thread, raised = in_background("test", 3, range(9), work, cancellation)
    cancellation.cancel()
    thread.join()

    assert [type(error) for error in raised] == [Canceled]
    assert len(ended) <= 3


def test_a_cancellation_after_an_error_ends_the_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GRACE", 0.01)
    cancellation = Cancellation()
    gate = Gate()

    def work(item: int) -> None:
        if item == 1:
            gate.wait_for(1)
            raise NotFound("gone")
        gate.work(item)

    thread, raised = in_background("test", 2, range(2), work, cancellation)
    gate.wait_for(1)
    cancellation.cancel()
    thread.join()
    gate.let_go(1)

    assert [type(error) for error in raised] == [Canceled]


def test_the_number_of_workers_follows_what_is_wanted() -> None:
    gate = Gate()
    wanted = 1
    thread, _ = in_background("test", lambda: wanted, range(20), gate.work, Cancellation())
    gate.wait_for(1)
    wanted = 4
    gate.wait_for(4)
    wanted = 2
    gate.let_go(4)
    gate.wait_for(2)
    gate.most = 0
    gate.let_go(10)
    gate.wait_for(2)
    assert gate.most == 2
    gate.let_go(20 - len(gate.done))
    thread.join()

    assert sorted(gate.done) == list(range(20))


def test_a_thread_that_fails_says_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise NotFound("gone")

    thread = threads.start("undo", fail)
    thread.join()

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "thread undo ended unexpectedly")
    ]


def test_a_thread_that_has_ended_its_work_gets_more_of_it_under_another_name() -> None:
    seen: list[tuple[threading.Thread, str]] = []

    def work() -> None:
        seen.append((threading.current_thread(), threading.current_thread().name))

    def again() -> bool:
        # It becomes idle a moment after its work has ended.
        assert threads.start("two", work).join(20)
        return seen[-1][0] is seen[0][0]

    assert threads.start("one", work).join(20)
    wait_until(again, "the same thread once more")
    assert (seen[0][1], seen[-1][1]) == ("one", "two")
    assert seen[0][0].daemon


def _wait(event: threading.Event) -> None:
    event.wait()


def test_what_has_not_ended_is_not_waited_for_longer_than_wanted() -> None:
    go_on = threading.Event()
    started = threads.start("slow", partial(_wait, go_on))
    assert not started.join(0.001)
    go_on.set()
    assert started.join()
    assert started.join()


def test_an_idle_thread_ends_and_does_not_miss_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.0)
    seen: list[threading.Thread] = []
    for _ in range(200):
        # Some find a thread that is about to end.
        assert threads.start("test", lambda: seen.append(threading.current_thread())).join(20)
    assert len(seen) == 200
    wait_until(lambda: not any(thread.is_alive() for thread in seen), "the end of all threads")


# --- calls


def test_a_call_returns_or_raises_what_the_function_does_in_another_thread() -> None:
    assert threads.call("test", threading.current_thread) is not threading.current_thread()

    def fail() -> None:
        raise NotFound("gone")

    with pytest.raises(NotFound, match="gone"):
        threads.call("test", fail)


def test_threads_for_many_calls_at_once_end_when_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.0)
    count = 20
    together = threading.Barrier(count)
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.append(threading.current_thread())
        together.wait()

    callers = [threading.Thread(target=threads.call, args=("test", work)) for _ in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set(seen)) == count
    wait_until(lambda: not any(thread.is_alive() for thread in seen), "the end of all threads")


# --- work that is done again and again


class Rounds:
    """Something for ``Periodic`` to do: ``left`` calls, counted in ``done``."""

    def __init__(self, left: int = 0) -> None:
        self.left = left
        self.done = 0
        self.error: Exception | None = None
        self.periodic = threads.Periodic("test-rounds", self.delay, self.work)

    def delay(self) -> float | None:
        return 0.001 if self.left else None

    def work(self) -> None:
        self.done += 1
        self.left -= 1
        if self.error is not None:
            raise self.error

    def join(self) -> None:
        wait_until(lambda: not self.left, "the end of the rounds")


def test_periodic_work_is_done_as_long_as_there_is_any_and_again_when_there_is_more() -> None:
    rounds = Rounds(3)
    for expected in (3, 5):
        rounds.periodic.start()
        rounds.periodic.start()
        rounds.join()
        assert rounds.done == expected
        rounds.left = 2


def test_periodic_work_that_fails_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    rounds = Rounds(2)
    rounds.error = NotFound("gone")
    rounds.periodic.start()
    wait_until(lambda: len(caplog.records) == 2, "two lines in the log")
    assert rounds.done == 2
    assert [record.getMessage() for record in caplog.records] == [
        "test-rounds failed, and is tried again later"
    ] * 2


def test_closed_periodic_work_is_done_no_more_and_its_wait_is_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = Rounds(2)
    monkeypatch.setattr(rounds.periodic, "_delay", lambda: 600.0)
    rounds.periodic.close()
    rounds.periodic._run()
    assert rounds.done == 0
