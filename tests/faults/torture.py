"""Random transfers under random faults between two real Orthancs, and what must be true after each round.

    python -m tests.faults.torture --seed 1 --minutes 60

The seed decides all that is tried, round by round; what comes of it also depends on the machine. ``--first`` and
``--rounds`` try some rounds of a seed again. Ends with status 1 at the first violation of an invariant:

- each transfer is whole or not there, with the MD5s of its sender; one that says ``Success`` is there;
- nothing that was there before is gone, nothing is there that was not sent;
- a job ends; if it failed it says in one sentence why, and goes through once nothing is broken any more;
- nothing is left in staging but the outcomes that are remembered for a while;
- no Orthanc crashes or hangs at its end, and in rounds without kills none gains threads, file descriptors or memory.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from tests.faults.fault_proxy import Fault, FaultProxy
from tests.faults.leak_check import LeakCheck
from tests.faults.network_faults import FAULTS, SILENT
from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, start_matrix
from tests.faults.torture_round import Round, Violation, Wanted
from tests.support.dicom_data import ct_study, multi_frame
from tests.support.orthanc_client import OrthancError, StatusError, resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

MB = 1024 * 1024

# Rounds with kills, then rounds without, in turn: leaks show in what is not restarted. A round has 2.5 transfers.
KILLING = 8
LASTING = 400

TIMEOUT = 2
EXPIRY = 10
"""Seconds after which an abandoned push is dropped."""

PATIENCE = 120.0
"""Seconds within which all has to come to its end once nothing is broken any more."""

COMPRESSIONS = ("none", "gzip", "zstd", "auto")
CANCELED = 37
"""What Orthanc calls the error of such a job."""

OVER = ("Success", "Failure")
COMMANDS = ("pause", "resume", "cancel", "resubmit")

# What a client of an Orthanc that is being killed may meet, or one that asks for the impossible.
_REFUSED = (requests.RequestException, StatusError)


class Torture:
    """See the module. ``tell`` gets a line of text now and then."""

    def __init__(self, matrix: ProtocolMatrix[FaultProxy], seed: int, tell: Callable[[str], None]) -> None:
        self._matrix = matrix
        self._servers = (matrix.a, matrix.b)
        self._seed = seed
        self._tell = tell
        self._faults: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._leaks = LeakCheck(self._servers, tell)

    @property
    def transfers(self) -> int:
        """How many there were."""
        return self._ends.total()

    def run(self, first: int, last: int, until: float) -> None:
        """The rounds from ``first`` on, before ``last`` and ``until`` (monotonic). Raises ``Violation``."""
        number = first
        while number < last and time.monotonic() < until:
            kills = number % (KILLING + LASTING) < KILLING
            if kills:
                self._leaks.compare()
            this = Round(number, kills, random.Random(f"{self._seed}/{number}"))
            try:
                self._round(this)
            except (Violation, OrthancError, TimeoutError) as violation:
                raise Violation("\n".join([f"round {number}: {violation}", *this.told()])) from violation
            number += 1
        self._staging_empties()
        self._leaks.compare()

    def summary(self) -> str:
        """What was tried, and what came of it."""
        lines = [f"{self.transfers} transfers: {_counted(self._ends)}"]
        lines += [f"{self._faults.total()} faults injected: {_counted(self._faults)}"]
        return "\n".join([*lines, *self._leaks.compared])

    # --- one round

    def _round(self, this: Round) -> None:
        self._matrix.clear()
        self._prepare(this)
        for variant in VARIANTS:
            self._break(this, variant)
        acts = self._acts(this)
        for act in acts:
            act()
        for variant, proxy in self._matrix.proxies.items():
            self._faults.update(name for _, name in proxy.suffered)
            this.story.append(
                f"{variant}: {', '.join(f'{kind} {name}' for kind, name in proxy.suffered) or 'no fault'}"
            )
            proxy.forget()
        for wanted in this.wanted:
            self._end(this, wanted)
            self._ends[wanted.state] += 1
        self._check(this)
        if this.kills:
            self._leaks.restarted()
        else:
            self._leaks.round_ended(len(this.wanted))
        self._tell(f"round {this.number}: {', '.join(wanted.state for wanted in this.wanted)}")

    def _prepare(self, this: Round) -> None:
        """Studies of random shape at the sender, a part of them at the receiver, and what to transfer."""
        dice, matrix = this.dice, self._matrix
        below: dict[tuple[str, str], set[str]] = {}
        files: list[bytes] = []
        for _ in range(dice.randint(1, 3)):
            shape = {"size": dice.choice((64, 128, 256, 384)), "series": dice.randint(1, 3)}
            files += ct_study(dice.randint(1, 20), seed=dice.randrange(100), **shape)
        if dice.random() < 0.2:
            files.append(multi_frame(2 * MB))
        if dice.random() < 0.15:
            # More than are announced at once.
            files += ct_study(
                FIRST_INSTANCES + dice.randint(1, 60), seed=dice.randrange(100), size=32, series=2
            )
        for data in files:
            stored = matrix.a.upload(data)
            below.setdefault(("Instance", stored["ID"]), set()).add(stored["ID"])
            below.setdefault(("Series", stored["ParentSeries"]), set()).add(stored["ID"])
            below.setdefault(("Study", stored["ParentStudy"]), set()).add(stored["ID"])
        if dice.random() < 0.5:
            matrix.b.upload_all(dice.sample(files, dice.randrange(len(files))))
        # And something that is not transferred.
        matrix.b.upload_all(ct_study(2, size=32))
        this.sent, this.there = matrix.a.md5s(), matrix.b.md5s()
        for _ in range(dice.randint(1, 4)):
            # The order of a dictionary is that of the uploads, not that of random identifiers.
            chosen = dice.sample(list(below), min(len(below), dice.choice((1, 1, 2, 5))))
            instances = frozenset().union(*(below[one] for one in chosen))
            resources = [resource(level, identifier) for level, identifier in chosen]
            this.wanted.append(Wanted(dice.choice(VARIANTS), resources, instances, dice.choice(COMPRESSIONS)))

    def _break(self, this: Round, variant: str) -> None:
        """Let requests of one variant suffer at random."""
        dice = random.Random(f"{self._seed}/{this.number}/{variant}")
        share = dice.choice((0, 0.05, 0.15, 0.4))
        lock = threading.Lock()

        def choose(kind: str) -> Fault | None:
            with lock:
                if dice.random() >= share:
                    return None
                fault = dice.choice(FAULTS)
                # They take the time of all others.
                return None if fault in SILENT and dice.random() < 0.8 else fault

        self._matrix.proxies[variant].choose = choose

    def _acts(self, this: Round) -> list[Callable[[], None]]:
        """The starts of the transfers, and what is done to them meanwhile, with rests between."""
        dice = this.dice
        acts: list[Callable[[], None]] = []
        for wanted in this.wanted:
            for _ in range(dice.choice((0, 1, 2, 3))):
                acts.append(self._command(this, wanted, dice.choice(COMMANDS)))
        for _ in range(dice.choice((0, 0, 1))):
            acts.append(self._cut(this, dice.choice(VARIANTS), dice.uniform(0.2, 1.5)))
        if this.kills and dice.random() < 0.8:
            acts.append(self._kill(this, dice.choice(self._servers), dice.random() < 0.6, dice.uniform(0, 1)))
        dice.shuffle(acts)
        for wanted in this.wanted:
            acts.insert(dice.randint(0, len(acts)) if dice.random() < 0.3 else 0, self._start(this, wanted))
        rests = [self._rest(dice.choice((0, 0.02, 0.1, 0.2, 0.5))) for _ in acts]
        return [act for pair in zip(acts, rests, strict=True) for act in pair]

    def _start(self, this: Round, wanted: Wanted) -> Callable[[], None]:
        def act() -> None:
            wanted.transfer = self._matrix.start(
                wanted.variant, wanted.resources, Compression=wanted.compression
            )
            this.story.append(f"start {wanted.variant} as {wanted.transfer.job}")

        return act

    def _command(self, this: Round, wanted: Wanted, command: str) -> Callable[[], None]:
        def act() -> None:
            if wanted.transfer is None:
                return
            # Orthanc refuses what does not make sense in the state of the job.
            with contextlib.suppress(*_REFUSED):
                job = f"jobs/{wanted.transfer.job}"
                if (wanted.transfer.server.get(job)["State"] in OVER) != (command == "resubmit"):
                    return
                wanted.transfer.server.post(f"{job}/{command}")
                wanted.canceled = wanted.canceled or command == "cancel"
                self._faults[command] += 1
                this.story.append(f"{command} {wanted.transfer.job}")

        return act

    def _cut(self, this: Round, variant: str, seconds: float) -> Callable[[], None]:
        def act() -> None:
            proxy = self._matrix.proxies[variant]
            proxy.cut()
            time.sleep(seconds)
            proxy.heal()
            self._faults["cut"] += 1
            this.story.append(f"cut {variant} for {seconds:.1f} s")

        return act

    def _kill(self, this: Round, server: OrthancServer, hard: bool, seconds: float) -> Callable[[], None]:
        def act() -> None:
            kind = "SIGKILL" if hard else "SIGTERM"
            this.story.append(f"{kind} to {server.name}")
            (server.kill if hard else server.stop)()
            time.sleep(seconds)
            server.start()
            self._faults[kind] += 1

        return act

    def _rest(self, seconds: float) -> Callable[[], None]:
        return lambda: time.sleep(seconds)

    # --- the ends

    def _end(self, this: Round, wanted: Wanted) -> None:
        """Bring a transfer to its end, with nothing in its way any more."""
        assert wanted.transfer is not None
        transfer = wanted.transfer
        limit = time.monotonic() + PATIENCE
        again = this.dice.random() < 0.5
        while True:
            for server in self._servers:
                if server.crashed:
                    raise Violation(f"{server.name} crashed: {server.crashed}")
            try:
                job = transfer.server.job(transfer.job)
            except StatusError as error:
                if error.status != 404:
                    raise
                # Its server was killed before Orthanc had saved it.
                wanted.state = "lost"
                return
            wanted.state = job["State"]
            if wanted.state == "Success":
                return
            if time.monotonic() > limit:
                raise Violation(f"a job does not end: {job}")
            if wanted.state == "Paused":
                transfer.server.post(f"jobs/{transfer.job}/resume")
            elif wanted.state == "Failure":
                # An Orthanc that was killed goes on from what it had saved: a cancel, say, of a job resubmitted since.
                canceled = wanted.canceled and job["ErrorCode"] == CANCELED
                if canceled and not again:
                    wanted.state = "Canceled"
                    return
                if not canceled:
                    self._judge(job)
                this.story.append(f"resubmit {transfer.job}: {job['Content'].get('Error')}")
                transfer.server.post(f"jobs/{transfer.job}/resubmit")
            time.sleep(0.05)

    def _judge(self, job: dict[str, Any]) -> None:
        said = job["Content"].get("Error")
        if not said or "\n" in said or "internal error" in said or "Traceback" in said:
            raise Violation(f"a job does not say in one sentence why it failed: {job}")

    def _check(self, this: Round) -> None:
        # What was canceled may be on its way to being undone, or to being whole.
        limit = time.monotonic() + PATIENCE
        while (complaint := this.complaint(self._matrix.b.md5s())) is not None:
            if time.monotonic() > limit:
                raise Violation(complaint)
            time.sleep(0.2)

    # --- the whole

    def _staging_empties(self) -> None:
        def empty() -> bool:
            return not any(self._areas(server) for server in self._servers)

        try:
            wait_until(empty, "", timeout=3 * EXPIRY + 15, every=0.5)
        except TimeoutError:
            left = {server.name: [str(path) for path in self._areas(server)] for server in self._servers}
            raise Violation(f"left in staging: {left}") from None

    def _areas(self, server: OrthancServer) -> list[Path]:
        return list(_staging(server).glob(f"{'[0-9a-f]' * 32}/area"))


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common() if count)


def _staging(server: OrthancServer) -> Path:
    return server.folder / "staging"


@contextlib.contextmanager
def matrix(folder: Path) -> Iterator[ProtocolMatrix[FaultProxy]]:
    """The two Orthancs, started."""
    transfers = {
        "BucketSize": 32,
        "Threads": 2,
        "MaxHttpRetries": 2,
        "MaxOutage": 60,
        "MaxPushTransactions": 3,
        "PeerCommitTimeout": 3 * TIMEOUT,
        "PushIdleTimeout": EXPIRY,
        "MaxPeerBandwidth": 8,
    }
    # Without Orthanc's own cache of files, which would hide what grows: it has up to 128 MB.
    configuration = {"ConcurrentJobs": 4, "MaximumStorageCacheSize": 0}
    a, b = (OrthancServer(name, folder / name, configuration=configuration) for name in ("a", "b"))
    a.configuration["Transfers"] = {"StagingDirectory": str(_staging(a))}
    try:
        with start_matrix(
            a,
            b,
            folder,
            _staging(b),
            transfers,
            between=lambda _, server, version: FaultProxy(server, version),
            Timeout=TIMEOUT,
        ) as made:
            yield made
    finally:
        for server in (a, b):
            server.remove()


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, metavar="ROUND")
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    options = parser.parse_args(arguments)
    # The Orthancs end with this process, however it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    tell(f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    with matrix(folder) as made:
        torture = Torture(made, options.seed, tell)
        try:
            torture.run(options.first, options.first + options.rounds, began + 60 * options.minutes)
        except Violation as violation:
            tell(f"VIOLATION, seed {options.seed}, {violation}")
            for server in (made.a, made.b):
                tell(f"log of {server.name}, its end:\n{server.log_tail(80)}")
            tell(f"{torture.summary()}\n1 violation; logs and staging are kept in {folder}")
            return 1
    tell(f"{torture.summary()}\n0 violations")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
