"""Rounds with a cluster: three nodes behind nginx that asks them in turn, two Orthancs outside, and transfers both ways
all the time (``cluster_load.py``), while nodes and the database are restarted, killed and stopped
(``cluster_troubles.py``).

What must be true, besides what the package says:

- each transfer goes through by itself, whatever happens to a node that is not the one whose job it is, or to the
  database. A push of version 1 may fail if nodes are killed or stopped, says why, and goes through once it is
  resubmitted. With rolling restarts alone (``restarts``) none fails, but for such ones without shared
  staging whose commit takes long;
- each file is in the storage with its MD5, and the nodes' reports say of each push what became of it;
- nothing is staged at any node, and no node has ended by itself;
- in rounds in which no node ends, none gains threads, file descriptors, memory or connections to the database.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from orthanc_transfers.clustering import CONNECTIONS
from tests.faults.torture.cluster_load import Load
from tests.faults.torture.cluster_site import MAX_CONNECTIONS, Site, start_site
from tests.faults.torture.cluster_troubles import Troubles
from tests.faults.torture.leak_check import MB, MORE_FILES, LeakCheck
from tests.faults.torture.round import Round, Violation
from tests.faults.torture.world import Tally
from tests.support.orthanc_client import OrthancError

LENGTH = 60.0
"""Seconds of a round, but for its end."""

_KILLS, _LASTING = 6, 9
"""Rounds on the same cluster: first those in which nodes end, then those in which none does."""

_RESTARTS = 12
"""Rounds on the same cluster where there are nothing but restarts: a quarter of an hour."""

_LOOKS = 3
"""As there are but ``_LASTING`` rounds."""

_WARM = 400
"""Transfers of three nodes, after which each has all that it will ever need."""


def _more_files(site: Site) -> int:
    """Descriptors that a node may gain after it is warm: the more requests waited at once, for a node that was stopped,
    the more connections it keeps to each other node and to the database, up to these limits."""
    return MORE_FILES + CONNECTIONS * (len(site.cluster.nodes) - 1) + MAX_CONNECTIONS


_MORE_MEMORY = 32 * MB
"""Bytes that a node may gain in resident memory. 130 threads instead of 70, when another one was stopped for a minute,
leave holes in the allocators' pages, at any time: of 18 MB more 3 were in use (measured). What is in use is looked at
for itself."""


class ClusterRounds:
    """``tell`` gets a line of text for each round. ``kind``: ``all`` or ``restarts``."""

    def __init__(
        self, seed: int, folder: Path, tally: Tally, tell: Callable[[str], None], kind: str = "all"
    ) -> None:
        self._seed, self._folder, self._tally, self._tell, self._kind = seed, folder, tally, tell, kind
        self.compared: list[str] = []
        """What became of processes that lasted."""

    def run(self, first: int, last: int, until: float) -> None:
        """The rounds from ``first`` on, before ``last`` and ``until`` (monotonic). Raises ``Violation``."""
        number = first
        while number < last and time.monotonic() < until:
            each = _RESTARTS if self._kind == "restarts" else _KILLS + _LASTING
            shared = number // each % 2 == 0
            end = number - number % each + each
            with start_site(self._folder / f"from-{number}", shared=shared) as site:
                leaks = LeakCheck(
                    site.cluster.nodes, self._tell, _WARM, _more_files(site), _MORE_MEMORY, _LOOKS
                )
                while number < min(last, end) and time.monotonic() < until:
                    self._play(site, number, leaks, until)
                    number += 1
                with self._told(site, ()):
                    leaks.compare()
                self.compared += leaks.compared

    def _play(self, site: Site, number: int, leaks: LeakCheck, until: float) -> None:
        kind = "kills" if number % (_KILLS + _LASTING) < _KILLS else "lasting"
        if self._kind == "restarts":
            kind = "restarts"
        into = Round(number, kind != "lasting", random.Random(f"{self._seed}/{number}"))
        out = Round(number, into.kills, into.dice)
        began = time.monotonic()
        with self._told(site, (into, out)):
            studies = site.begin(into, out)
            rough = kind != "restarts"
            # Without shared staging, the bytes of a commit that had begun go with its node, which waits for 14 s.
            fragile = rough or not site.shared
            load = Load(site.a, site.b, site.cluster.nodes, into, out, studies, rough=rough, fragile=fragile)
            load.start()
            try:
                troubles = Troubles(site.cluster, kind, self._tally, into)
                troubles.go_on(min(until, time.monotonic() + LENGTH), lambda: load.violation is not None)
            finally:
                load.end()
            site.check(into, out)
        wanted = [*into.wanted, *out.wanted]
        if kind == "lasting":
            leaks.round_ended(len(wanted))
        else:
            leaks.restarted()
        self._tell_of(number, site, into, out, time.monotonic() - began)

    def _tell_of(self, number: int, site: Site, into: Round, out: Round, seconds: float) -> None:
        wanted = [*into.wanted, *out.wanted]
        states = Counter(one.state for one in wanted)
        self._tally.scenarios["Cluster"] += 1
        self._tally.ends.update(states)
        told = ", ".join(f"{count} {state}" for state, count in states.most_common())
        kind = "shared staging" if site.shared else "staging of its own"
        again = sum(one.attempts > 1 for one in wanted)
        self._tell(
            f"round {number}, cluster, {kind}, {seconds:.0f} s: {told}, {again} of them resubmitted;"
            f" {'; '.join(into.story)}"
        )
        self._tell(f"    {site.vitals()}")

    @contextlib.contextmanager
    def _told(self, site: Site, rounds: tuple[Round, ...]) -> Iterator[None]:
        """Raises ``Violation`` with all that happened."""
        try:
            yield
        except (Violation, OrthancError, TimeoutError, requests.RequestException) as violation:
            where = f"round {rounds[0].number}: " if rounds else ""
            told = [line for this in rounds for line in this.told()]
            raise Violation("\n".join([f"{where}{violation}", *told, *site.logs()])) from violation
