"""The connections of an HTTP server, shared by transfers."""

from __future__ import annotations

import math
from random import Random

import pytest

from orthanc_transfers.rest.connection_budget import ACTIVE, SETTLING, ConnectionBudget


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
    assert budget.headers(None) == {"transfers-connections": str(total)}


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
