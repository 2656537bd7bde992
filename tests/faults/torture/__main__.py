"""The rounds one after another, and what is told of them. See the package."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import requests

from tests.faults.torture.cluster import ClusterRounds
from tests.faults.torture.dead_peer import DeadPeer
from tests.faults.torture.leak_check import JOBS, LeakCheck
from tests.faults.torture.plain import Plain
from tests.faults.torture.poison import Poison
from tests.faults.torture.recycling import Recycling
from tests.faults.torture.round import Round, Violation
from tests.faults.torture.rules import Rules
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.small_disk import SmallDiskRound
from tests.faults.torture.small_studies import SmallStudies
from tests.faults.torture.world import Tally, World, start_world
from tests.support.orthanc_client import OrthancError
from tests.support.orthanc_server import OrthancServer

EACH = 3
"""Of so many rounds, the last is one of its own kind."""

# Rounds with kills, then rounds without, in turn: leaks show in what is not restarted. A plain round has 2.5 transfers.
KILLING = 12
LASTING = 600

Make = Callable[[random.Random, Path], Scenario]

KINDS: dict[str, Make] = {
    "recycling": lambda dice, folder: Recycling(dice),
    "poison": lambda dice, folder: Poison(),
    "small-disk": SmallDiskRound,
    "dead-peer": lambda dice, folder: DeadPeer(dice),
    "small-studies": lambda dice, folder: SmallStudies(dice),
    "rules": lambda dice, folder: Rules(dice),
}


class Torture:
    """See the package. ``tell`` gets a line of text now and then."""

    def __init__(self, seed: int, folder: Path, tell: Callable[[str], None]) -> None:
        self._seed = seed
        self._folder = folder
        self._tell = tell
        self._tally = Tally()
        self._leaks: LeakCheck | None = None
        self._compared: list[str] = []

    def run(self, first: int, last: int, until: float) -> None:
        """The rounds from ``first`` on, before ``last`` and ``until`` (monotonic). Raises ``Violation``."""
        with start_world(self._folder / "lasting", self._tally, _remember_few_jobs) as lasting:
            self._leaks = LeakCheck(lasting.servers, self._tell)
            number = first
            while number < last and time.monotonic() < until:
                kills = number % (KILLING + LASTING) < KILLING
                this = Round(number, kills, random.Random(f"{self._seed}/{number}"))
                if number % EACH == EACH - 1:
                    self._special(this, list(KINDS.values())[number // EACH % len(KINDS)])
                else:
                    self._plain(lasting, this, self._leaks)
                number += 1
            self._checked(lasting, lambda: self._last_looks(lasting))

    def run_kind(self, make: Make, first: int, last: int, until: float) -> None:
        """Rounds of one kind."""
        number = first
        while number < last and time.monotonic() < until:
            self._special(Round(number, kills=True, dice=random.Random(f"{self._seed}/{number}")), make)
            number += 1

    def run_cluster(self, kind: str, first: int, last: int, until: float) -> None:
        """The same with a cluster."""
        rounds = ClusterRounds(self._seed, self._folder, self._tally, self._tell, kind)
        try:
            rounds.run(first, last, until)
        finally:
            self._compared += rounds.compared

    def summary(self) -> str:
        """What was tried, and what came of it."""
        tally = self._tally
        lines = [
            f"{tally.scenarios.total()} rounds: {_counted(tally.scenarios)}",
            f"{tally.ends.total()} transfers: {_counted(tally.ends)}",
            f"{tally.faults.total()} faults injected: {_counted(tally.faults)}",
        ]
        return "\n".join([*lines, *self._compared, *(self._leaks.compared if self._leaks else ())])

    def _plain(self, world: World, this: Round, leaks: LeakCheck) -> None:
        if this.kills:
            self._checked(world, leaks.compare)
        self._play(world, this, Plain())
        if this.kills:
            leaks.restarted()
        else:
            leaks.round_ended(len(this.wanted))

    def _special(self, this: Round, make: Make) -> None:
        folder = self._folder / f"round-{this.number}"
        this.kills = True
        try:
            scenario = make(this.dice, folder)
        except PermissionError as error:
            self._tell(f"round {this.number}, left out: {error}")
            return
        try:
            with start_world(folder, self._tally, scenario.configure, **scenario.transfers) as world:
                self._play(world, this, scenario)
        finally:
            scenario.close()
        shutil.rmtree(folder)

    def _play(self, world: World, this: Round, scenario: Scenario) -> None:
        name = type(scenario).__name__
        self._tally.scenarios[name] += 1

        def play() -> None:
            world.matrix.clear()
            scenario.play(world, this)

        self._checked(world, play, this)
        states = Counter(wanted.state for wanted in this.wanted)
        self._tell(f"round {this.number}, {name}: {_counted(states)}")
        # What is left behind shows later.
        with (self._folder / "stories.txt").open("a") as stories:
            stories.write("\n".join([f"--- round {this.number}, {name}", *this.told(), ""]))

    def _checked(self, world: World, what: Callable[[], None], this: Round | None = None) -> None:
        """Raises ``Violation`` with all that happened."""
        try:
            what()
        except (Violation, OrthancError, TimeoutError, requests.RequestException) as violation:
            where = f"round {this.number}: " if this else ""
            told = this.told() if this else ()
            raise Violation("\n".join([f"{where}{violation}", *told, *world.logs()])) from violation

    def _last_looks(self, world: World) -> None:
        world.staging_empties()
        if self._leaks:
            self._leaks.compare()


def _remember_few_jobs(a: OrthancServer, b: OrthancServer) -> None:
    for server in (a, b):
        server.configuration["JobsHistorySize"] = JOBS


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common() if count)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, metavar="ROUND")
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--cluster",
        nargs="?",
        const="all",
        choices=("all", "restarts"),
        help="rounds with a cluster, and no others; restarts: nothing but restarts of its nodes, in turn",
    )
    only.add_argument("--kind", choices=KINDS, help="rounds of that kind, and no others")
    options = parser.parse_args(arguments)
    # The Orthancs end with this process, however it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    tell(f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    torture = Torture(options.seed, folder, tell)
    run = partial(torture.run_cluster, options.cluster) if options.cluster else torture.run
    if options.kind is not None:
        run = partial(torture.run_kind, KINDS[options.kind])
    try:
        run(options.first, options.first + options.rounds, began + 60 * options.minutes)
    except Violation as violation:
        tell(f"VIOLATION, seed {options.seed}, {violation}")
        tell(f"{torture.summary()}\n1 violation; logs and staging are kept in {folder}")
        return 1
    tell(f"{torture.summary()}\n0 violations")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
