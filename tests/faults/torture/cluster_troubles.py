"""What happens to the nodes of a cluster and to its database while transfers go on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tests.faults.torture.round import Round
from tests.faults.torture.world import Tally
from tests.support.cluster import OrthancCluster
from tests.support.orthanc_server import OrthancServer

_KILLING = (
    "rolling restart",
    "rolling restart",
    "kill",
    "kill",
    "kill",
    "kill two",
    "stop",
    "stop",
    "database",
)
"""Of which each node may end."""

_LASTING = ("stop", "stop", "database")
"""Which no process ends of, but the database's."""


class Troubles:
    """``kind``: ``restarts`` are rolling restarts and nothing else, ``kills`` all there is, ``lasting`` what no node
    ends of. Each is noted in the story of the round.
    """

    def __init__(self, cluster: OrthancCluster, kind: str, tally: Tally, this: Round) -> None:
        self._cluster, self._kind, self._tally = cluster, kind, tally
        self._dice: random.Random = this.dice
        self._story = this.story

    def go_on(self, until: float, stop: Callable[[], bool]) -> None:
        """One after another, with rests between, until a time (monotonic) or ``stop``."""
        dice = self._dice
        while time.monotonic() < until and not stop():
            time.sleep(dice.random() * 2)
            if self._kind == "restarts":
                self._rolling_restart()
                continue
            name = dice.choice(_KILLING if self._kind == "kills" else _LASTING)
            {
                "rolling restart": self._rolling_restart,
                "kill": lambda: self._kill(1),
                "kill two": lambda: self._kill(2),
                "stop": self._stop,
                "database": self._restart_database,
            }[name]()

    def _rolling_restart(self) -> None:
        self._note("rolling restart")
        for node in self._cluster.nodes:
            node.restart()

    def _kill(self, count: int) -> None:
        nodes, seconds = self._dice.sample(self._cluster.nodes, count), self._dice.choice((0.0, 3.0, 12.0))
        self._note("kill" if count == 1 else "kill of two", f"{_names(nodes)}, for {seconds:g} s")
        for node in nodes:
            node.kill()
        time.sleep(seconds)
        for node in nodes:
            node.start()

    def _stop(self) -> None:
        seconds = self._dice.choice((1.0, 1.0, 4.0, 4.0, 8.0, 8.0, 16.0, 16.0, 60.0))
        node = self._dice.choice(self._cluster.nodes)
        self._note("stop", f"{node.name}, for {seconds:g} s")
        self._cluster.freeze(node)
        time.sleep(seconds)
        self._cluster.go_on(node)

    def _restart_database(self) -> None:
        seconds = self._dice.choice((0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 10.0, 30.0))
        self._note("database away", f"for {seconds:g} s")
        self._cluster.database.stop()
        time.sleep(seconds)
        self._cluster.database.start()

    def _note(self, kind: str, more: str = "") -> None:
        self._tally.faults[kind] += 1
        told = f"{kind}: {more}" if more else kind
        self._story.append(f"{time.strftime('%H:%M:%S')} {told}")


def _names(nodes: list[OrthancServer]) -> str:
    return " and ".join(node.name for node in nodes)
