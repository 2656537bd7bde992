"""What is done at random while transfers go on: they are started and commanded, their network fails, Orthancs end."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence

import requests

from tests.faults.fault_proxy import Fault
from tests.faults.network_faults import FAULTS, SILENT
from tests.faults.protocol_matrix import VARIANTS
from tests.faults.torture.round import Round, Wanted
from tests.faults.torture.world import World
from tests.support.orthanc_client import FINISHED, StatusError

COMMANDS = ("pause", "resume", "cancel", "resubmit")

# What a client of an Orthanc that is being killed may meet, or one that asks for the impossible.
REFUSED = (requests.RequestException, StatusError)

Act = Callable[[], None]


def spoil_network(world: World, this: Round, shares: Sequence[float] = (0, 0.05, 0.15, 0.4)) -> None:
    """Let a share of the requests of each variant suffer from now on."""
    for variant in VARIANTS:
        world.matrix.proxies[variant].choose = _chooser(random.Random(this.dice.random()), shares)


def _chooser(dice: random.Random, shares: Sequence[float]) -> Callable[[str], Fault | None]:
    share = dice.choice(shares)
    lock = threading.Lock()

    def choose(kind: str) -> Fault | None:
        with lock:
            if dice.random() >= share:
                return None
            fault = dice.choice(FAULTS)
            # They take the time of all others.
            return None if fault in SILENT and dice.random() < 0.8 else fault

    return choose


def spare_network(world: World, this: Round) -> None:
    """Break nothing any more, and note what was broken."""
    for variant, proxy in world.matrix.proxies.items():
        suffered = proxy.suffered[:]
        proxy.forget()
        world.tally.faults.update(name for _, name in suffered)
        this.story.append(
            f"{variant}: {', '.join(f'{kind} {name}' for kind, name in suffered) or 'no fault'}"
        )


def start(world: World, this: Round, wanted: Wanted) -> Act:
    """Submit the job."""

    def act() -> None:
        wanted.attempts += 1
        try:
            wanted.transfer = world.matrix.start(
                wanted.variant, wanted.resources, Compression=wanted.compression
            )
        except requests.RequestException as error:
            # Its Orthanc has just died of something else. There may be a job now, or not.
            this.story.append(f"start {wanted.variant}, perhaps: {error}")
            wanted.state = "lost"
            return
        this.story.append(f"start {wanted.variant} as {wanted.transfer.job}")

    return act


def command(world: World, this: Round, wanted: Wanted, name: str) -> Act:
    """One of ``COMMANDS``, if it makes sense."""

    def act() -> None:
        if wanted.transfer is None:
            return
        # Orthanc refuses what does not make sense in the state of the job.
        with contextlib.suppress(*REFUSED):
            job = f"jobs/{wanted.transfer.job}"
            if (wanted.transfer.server.get(job)["State"] in FINISHED) != (name == "resubmit"):
                return
            # They may take effect although no response comes.
            wanted.canceled = wanted.canceled or name == "cancel"
            wanted.paused = wanted.paused or name == "pause"
            wanted.attempts += name == "resubmit"
            wanted.transfer.server.post(f"{job}/{name}")
            wanted.paused = wanted.paused and name != "resume"
            world.tally.faults[name] += 1
            this.story.append(f"{name} {wanted.transfer.job}")

    return act


def cut(world: World, this: Round, variant: str, seconds: float) -> Act:
    """All connections of a variant are reset for a while."""

    def act() -> None:
        proxy = world.matrix.proxies[variant]
        proxy.cut()
        time.sleep(seconds)
        proxy.heal()
        world.tally.faults["cut"] += 1
        this.story.append(f"cut {variant} for {seconds:.1f} s")

    return act


def kill(world: World, this: Round) -> Act:
    """Either Orthanc ends, by SIGKILL or SIGTERM, and is started again."""
    server = this.dice.choice(world.servers)
    hard, seconds = this.dice.random() < 0.6, this.dice.uniform(0, 1)

    def act() -> None:
        kind = "SIGKILL" if hard else "SIGTERM"
        this.story.append(f"{kind} to {server.name}")
        world.kill(server, hard, seconds)
        world.tally.faults[kind] += 1

    return act


def commands(world: World, this: Round, wanted: Wanted) -> list[Act]:
    """Some for one transfer."""
    return [
        command(world, this, wanted, this.dice.choice(COMMANDS))
        for _ in range(this.dice.choice((0, 1, 2, 3)))
    ]


def troubles(world: World, this: Round) -> list[Act]:
    """Perhaps a cut, perhaps a kill."""
    dice = this.dice
    acts = [
        cut(world, this, dice.choice(VARIANTS), dice.uniform(0.2, 1.5)) for _ in range(dice.choice((0, 0, 1)))
    ]
    if this.kills and dice.random() < 0.8:
        acts.append(kill(world, this))
    return acts


def perform(world: World, this: Round, starts: Sequence[Act], others: Sequence[Act]) -> None:
    """All of them, the starts first for the most part, with rests between."""
    dice = this.dice
    acts = list(others)
    dice.shuffle(acts)
    for one in starts:
        acts.insert(dice.randint(0, len(acts)) if dice.random() < 0.3 else 0, one)
    rests = [dice.choice((0, 0.02, 0.1, 0.2, 0.5)) for _ in acts]
    for act, rest in zip(acts, rests, strict=True):
        world.revive()
        act()
        time.sleep(rest)
