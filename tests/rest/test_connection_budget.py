"""The connections of an HTTP server, shared by transfers."""

from __future__ import annotations

import pytest

from orthanc_transfers.rest.connection_budget import ACTIVE, ConnectionBudget


class Clock:
    """Time that passes when told to."""

    time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.mark.parametrize(("threads", "total"), [(50, 25), (8, 4), (3, 1), (2, 1), (1, 0)])
def test_half_of_the_threads_are_for_transfers(threads: int, total: int) -> None:
    budget = ConnectionBudget(threads, Clock())
    assert budget.total == budget.share("a") == total
    assert budget.headers(None) == {"transfers-connections": str(total)}


def test_transfers_share_them_as_long_as_they_are_active() -> None:
    clock = Clock()
    budget = ConnectionBudget(16, clock)
    assert [budget.share("a"), budget.share("b"), budget.share("a")] == [8, 4, 4]
    budget.leave("b")
    assert budget.share("a") == 8
    assert budget.share("c") == 4
    clock.time = ACTIVE
    assert budget.share("a") == 8


def test_more_transfers_than_connections_keep_none_alive() -> None:
    budget = ConnectionBudget(4, Clock())
    assert [budget.share(name) for name in "abc"] == [2, 1, 0]
