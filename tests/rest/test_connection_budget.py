"""The connections of an HTTP server, shared by transfers."""

from __future__ import annotations

import math
from random import Random

import pytest

from orthanc_transfers.core.connection_share import Sender
from orthanc_transfers.rest.connection_budget import ACTIVE, SETTLING, TURN, ConnectionBudget


class Clock:
    """Time that passes when told to."""

    time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.mark.parametrize(("threads", "total"), [(32, 16), (8, 4), (3, 1), (2, 1), (1, 0)])
def test_half_of_the_threads_are_for_transfers(threads: int, total: int) -> None:
    budget = ConnectionBudget(threads, Clock())
    assert budget.total == budget.share("a") == total
    assert budget.headers(None, None) == {"transfers-connections": str(total)}


def test_transfers_share_them_as_long_as_they_are_active() -> None:
    clock = Clock()
    budget = ConnectionBudget(16, clock)
    assert [budget.share("a"), budget.share("b"), budget.share("a")] == [8, 0, 4]
    assert budget.share("b") == 0, "the other may still have more"
    clock.time = SETTLING
    assert budget.share("b") == 4
    budget.leave("b")
    assert budget.share("a") == 8
    clock.time = ACTIVE + SETTLING
    assert budget.share("b") == 8


def test_a_server_with_many_threads_keeps_some_for_who_comes() -> None:
    budget = ConnectionBudget(50, Clock())
    assert [budget.share("a"), budget.share("b")] == [16, 9]


def test_more_transfers_than_connections_keep_none_alive() -> None:
    clock = Clock()
    budget = ConnectionBudget(4, clock)
    assert [budget.share(name) for name in "abc"] == [2, 0, 0]
    assert [budget.share(name) for name in "abc"] == [0, 0, 0]


@pytest.mark.parametrize("threads", [2, 8, 50])
def test_all_together_never_hold_more(threads: int) -> None:
    clock, chance = Clock(), Random(threads)
    budget = ConnectionBudget(threads, clock)
    told: dict[str, list[tuple[float, int]]] = {name: [(-1e9, 0)] for name in "abcdef"}

    def held(name: str) -> int:
        """What it was told last, and less than a moment ago: until when each was the last is when the next came."""
        since = clock.time - SETTLING
        (last, _), *_ = reversed(told[name])
        ends = [time for time, _ in told[name][1:]] + [math.inf]
        sizes = [size for (_, size), end in zip(told[name], ends, strict=True) if end > since]
        return max(sizes) if last > since else 0

    for _ in range(2000):
        name = chance.choice("abcdef")
        told[name].append((clock.time, budget.share(name)))
        assert sum(map(held, told)) <= budget.total
        clock.time += chance.choice([0.0, 0.01, 0.3])


def sender(name: str, transfers: int = 1) -> Sender:
    return Sender(name, transfers)


def test_a_sender_has_one_share_for_all_its_transfers() -> None:
    budget = ConnectionBudget(16, Clock())
    assert budget.share_of(sender("a", 3)).connections == 8
    assert budget.share_of(sender("b", 1)).wait is not None
    assert budget.share_of(sender("a", 3)).connections == 6


def test_senders_and_transfers_of_earlier_releases_share() -> None:
    clock = Clock()
    budget = ConnectionBudget(16, clock)
    assert budget.share("old") == 8
    assert budget.share_of(sender("a")).connections == 0
    assert budget.share("old") == 4
    clock.time = SETTLING
    assert budget.share_of(sender("a")).connections == 4


def test_a_server_with_many_threads_lets_a_few_come_unasked() -> None:
    budget = ConnectionBudget(50, Clock())
    told = budget.share_of(sender("a"))
    assert (told.connections, told.unasked, told.wait) == (16, 9, None)
    assert budget.share_of(sender("a", 12)).connections == 20


def test_the_only_thread_is_nobodys() -> None:
    clock = Clock()
    budget = ConnectionBudget(1, clock)
    assert (budget.share_of(sender("a")).connections, budget.share_of(sender("a")).wait) == (0, None)
    assert budget.share_of(sender("b")).wait is not None


def test_a_sender_whose_last_transfer_has_ended_makes_way() -> None:
    clock = Clock()
    budget = ConnectionBudget(4, clock)
    assert budget.share_of(sender("a")).connections == 2
    assert (last := budget.last_of(sender("a"))).connections == 2
    assert last.lease < SETTLING
    assert budget.share_of(sender("b")).wait is not None
    clock.time = SETTLING
    assert budget.share_of(sender("b")).connections == 2


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_senders_take_turns_and_none_starves(threads: int) -> None:
    clock = Clock()
    budget = ConnectionBudget(threads, clock)
    names = [f"s{number}" for number in range(7)]
    had = dict.fromkeys(names, 0)
    asks_at = dict.fromkeys(names, 0.0)
    holds = dict.fromkeys(names, 0)
    while clock.time < 120:
        for name in names:
            if clock.time < asks_at[name]:
                continue
            told = budget.share_of(sender(name))
            holds[name] = 0 if told.wait is not None else max(1, told.connections)
            had[name] += holds[name]
            asks_at[name] = clock.time + (told.wait or 0.1)
            assert sum(holds.values()) <= max(1, budget.total)
        clock.time += 0.05
    assert min(had.values()) > max(had.values()) / 3


def test_a_sender_that_asks_no_more_keeps_nobody_waiting() -> None:
    clock = Clock()
    budget = ConnectionBudget(2, clock)
    assert budget.share_of(sender("a")).connections == 1
    assert budget.share_of(sender("gone")).wait is not None
    clock.time = 2 * TURN
    assert budget.share_of(sender("a")).wait is None
    assert budget.share_of(sender("b")).wait is not None
    assert budget.share_of(sender("a")).wait is not None
    assert budget.share_of(sender("b")).wait is None
