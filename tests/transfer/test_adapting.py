"""How many requests run at once."""

from __future__ import annotations

from orthanc_transfers.transfer.adapting import MOST, Connections


class Line:
    """A clock, and a line on which requests take a while."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def round(self, connections: Connections, rate: float, wire: int = 4_000_000) -> None:
        """One request on each connection, all of them at ``rate`` bytes a second together."""
        count = connections()
        seconds = count * wire / rate
        self.time += seconds
        for _ in range(count):
            connections.settle(wire, seconds)


def test_each_connection_that_brings_more_is_followed_by_others() -> None:
    line = Line()
    connections = Connections(4, line)
    for _ in range(8):
        line.round(connections, rate=1_000_000.0 * connections())

    assert connections() == 16


def test_connections_that_bring_nothing_are_given_up_again() -> None:
    line = Line()
    connections = Connections(4, line)
    line.round(connections, rate=10_000_000.0)
    assert connections() == 8
    line.round(connections, rate=10_000_000.0)
    assert connections() == 4
    line.round(connections, rate=10_000_000.0)
    assert connections() == 4


def test_where_requests_are_short_there_is_nothing_to_gain() -> None:
    line = Line()
    connections = Connections(4, line)
    for _ in range(20):
        line.round(connections, rate=1e9)

    assert connections() == 4


def test_there_are_never_more_than_the_other_side_can_bear() -> None:
    line = Line()
    connections = Connections(10, line)
    for _ in range(8):
        line.round(connections, rate=1_000_000.0 * connections())

    assert connections() == MOST


def test_more_threads_than_the_most_are_taken_as_configured() -> None:
    assert Connections(64, Line())() == 64
