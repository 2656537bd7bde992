"""Rounds with a cluster: three nodes behind nginx that asks them in turn, one of which at a time is restarted, killed
or stopped, while another Orthanc sends to them and fetches from them.

What must be true after each round, besides what the package says:

- a transfer that is of version 2, or saw no node but restarted ones, goes through by itself; one of version 1 whose
  node was killed or stopped may fail, says why, and goes through once it is resubmitted;
- nothing is staged at any node, and no node has ended by itself.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.torture.round import Round, Violation, Wanted
from tests.faults.torture.world import Tally
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

TRANSFERS = {
    "BucketSize": 32,
    "Threads": 2,
    "PushIdleTimeout": 20,
    "MaxOutage": 120,
    "MaxPushTransactions": 50,
}
TIMEOUT = 5
"""Seconds for which a request of the sender may be without a response."""

VARIANTS = ("push-1", "push-2", "push-2", "pull-2")

PATIENCE = 240.0
"""Seconds that a transfer may take, whatever happens."""

_SHARED_FIRST = 4
"""Of so many rounds on the same cluster, half are with shared staging."""


class ClusterRounds:
    """``tell`` gets a line of text for each round."""

    def __init__(self, seed: int, folder: Path, tally: Tally, tell: Callable[[str], None]) -> None:
        self._seed, self._folder, self._tally, self._tell = seed, folder, tally, tell

    def run(self, first: int, last: int, until: float) -> None:
        """The rounds from ``first`` on, before ``last`` and ``until`` (monotonic). Raises ``Violation``."""
        number = first
        while number < last and time.monotonic() < until:
            shared = number // _SHARED_FIRST % 2 == 0
            with _site(self._folder / f"from-{number}", shared=shared) as site:
                end = number - number % _SHARED_FIRST + _SHARED_FIRST
                while number < min(last, end) and time.monotonic() < until:
                    this = Round(number, True, random.Random(f"{self._seed}/{number}"))
                    self._play(site, this, shared)
                    number += 1

    def _play(self, site: Site, this: Round, shared: bool) -> None:
        try:
            site.play(this, self._tally)
        except (Violation, TimeoutError) as violation:
            told = [f"round {this.number}: {violation}", *this.told(), *site.logs()]
            raise Violation("\n".join(told)) from violation
        states = Counter(wanted.state for wanted in this.wanted)
        kind = "shared staging" if shared else "staging of its own"
        told = ", ".join(f"{count} {state}" for state, count in states.items())
        self._tell(f"round {this.number}, cluster, {kind}: {told}; {'; '.join(this.story)}")
        self._tally.scenarios["Cluster"] += 1
        self._tally.ends.update(states)


class Site:
    """``a`` knows the cluster as ``c1`` and ``c2``, by the version of the protocol."""

    def __init__(self, a: OrthancServer, cluster: OrthancCluster) -> None:
        self.a, self._cluster = a, cluster

    def play(self, this: Round, tally: Tally) -> None:
        """One round. Raises ``Violation``."""
        self._begin(this)
        for wanted in this.wanted:
            self._start(wanted)
        rough = False
        for _ in range(this.dice.randint(1, 3)):
            rough |= self._trouble(this, tally)
        for wanted in this.wanted:
            self._end(this, wanted, may_fail=rough and wanted.variant == "push-1")
        self._check(this)

    def _begin(self, this: Round) -> None:
        dice, cluster = this.dice, self._cluster
        self.a.clear()
        cluster.clear()
        for _ in range(dice.randint(4, 10)):
            variant = dice.choice(VARIANTS)
            count, size = dice.choice(((1, 32), (2, 64), (6, 128), (12, 192), (20, 256)))
            source = cluster.any_node() if variant.startswith("pull") else self.a
            stored = source.upload_all(ct_study(count, size=size, seed=dice.randrange(100)))
            this.wanted.append(
                Wanted(
                    variant,
                    [resource("Study", stored[0]["ParentStudy"])],
                    frozenset(one["ID"] for one in stored),
                    dice.choice(("auto", "none", "zstd" if variant != "push-1" else "gzip")),
                )
            )
        this.there = cluster.any_node().md5s()
        this.sent = self.a.md5s()

    def _start(self, wanted: Wanted) -> None:
        mode, version = wanted.variant.split("-")
        order = self.a.pull if mode == "pull" else self.a.send
        wanted.job = order(wanted.resources, f"c{version}", Compression=wanted.compression)["ID"]
        wanted.attempts = 1

    def _trouble(self, this: Round, tally: Tally) -> bool:
        """Returns whether a node was killed or stopped, not restarted."""
        dice, nodes = this.dice, self._cluster.nodes
        time.sleep(dice.random() * 1.5)
        kind = dice.choice(("rolling restart", "kill", "kill", "stop"))
        tally.faults[f"cluster, {kind}"] += 1
        if kind == "rolling restart":
            for node in nodes:
                node.restart()
            this.story.append("all restarted, one after the other")
            return False
        node, seconds = dice.choice(nodes), dice.choice((0.5, 3.0, 12.0))
        this.story.append(f"{kind} of {node.name} for {seconds} s")
        if kind == "kill":
            node.kill()
            time.sleep(seconds)
            node.start()
        else:
            self._cluster.freeze(node)
            time.sleep(seconds + 4.0)
            self._cluster.go_on(node)
        return True

    def _end(self, this: Round, wanted: Wanted, *, may_fail: bool) -> None:
        known = self.a.wait_for_job(wanted.job, timeout=PATIENCE)
        if known["State"] != "Success":
            error = str(known["Content"].get("Error", ""))
            this.story.append(f"job {wanted.job} ({wanted.variant}) failed: {error}")
            if not may_fail:
                raise Violation(f"{wanted} failed: {error}")
            if not error or "\n" in error:
                raise Violation(f"{wanted} does not say in one sentence why it failed: {error!r}")
            self.a.post(f"jobs/{wanted.job}/resubmit", {})
            wanted.attempts += 1
            known = self.a.wait_for_job(wanted.job, timeout=PATIENCE)
            if known["State"] != "Success":
                raise Violation(f"{wanted} failed again: {known['Content'].get('Error')}")
        wanted.state = "Success" if wanted.attempts == 1 else "Success when resubmitted"

    def _check(self, this: Round) -> None:
        cluster = self._cluster
        for node in cluster.nodes:
            if node.crashed:
                raise Violation(f"{node.name} crashed: {node.crashed}")
        everything = {**this.there, **this.sent}
        for server in cluster.nodes:
            found = server.md5s()
            if found != everything:
                lost, strange = everything.keys() - found.keys(), found.keys() - everything.keys()
                raise Violation(
                    f"at {server.name}: {len(lost)} instances are missing, {len(strange)} too many"
                )
        pulled = {one for wanted in this.wanted if wanted.variant == "pull-2" for one in wanted.instances}
        if self.a.md5s() != {**this.sent, **{one: this.there[one] for one in pulled}}:
            raise Violation("the sender has not what it fetched")
        try:
            wait_until(lambda: not self._staged(), "", 60)
        except TimeoutError:
            raise Violation(f"left in staging: {self._staged()}") from None

    def _staged(self) -> list[str]:
        return [str(path) for path in self._cluster.folder.rglob("area")]

    def logs(self) -> Iterator[str]:
        """Their ends."""
        for server in (self.a, *self._cluster.nodes):
            yield f"log of {server.name}, its end:\n{server.log_tail(120)}"


@contextlib.contextmanager
def _site(folder: Path, *, shared: bool) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(OrthancCluster(folder, shared=shared, transfers=TRANSFERS))
        a = OrthancServer(
            "a",
            folder / "a",
            configuration={"Transfers": TRANSFERS, "ConcurrentJobs": 6, "JobsHistorySize": 500},
        )
        stack.callback(a.remove)
        proxy = stack.enter_context(cluster.proxy_of_version_1())
        a.add_peer("c1", a, Url=proxy.url, Timeout=TIMEOUT)
        a.add_peer("c2", a, Url=cluster.url, Timeout=TIMEOUT)
        a.start()
        yield Site(a, cluster)
