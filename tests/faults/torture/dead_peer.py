"""A peer that is down, while more jobs wait for it than Orthanc has threads for jobs.

It is stopped, or refuses connections, or ignores them (packets are dropped). Meanwhile, archives, anonymisations and
transfers with another peer begin at once. When it is back, the jobs go on by themselves: ``ends.end`` resumes only
those that were paused by a user, and those are paused still.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from tests.faults.protocol_matrix import Transfer
from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round, Violation, Wanted
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study

BEGINNING = 60.0
"""Seconds within which other jobs must be done: they take less than one. A job waits for its peer far longer."""

WAYS = ("stopped", "refusing", "dropping")


class DeadPeer(Scenario):
    transfers = {"MaxOutage": 600}  # noqa: RUF012

    def __init__(self, dice: random.Random) -> None:
        self._kind = dice.choice(("push", "pull"))
        self._version = dice.choice((1, 2))
        self._way = dice.choice(WAYS)

    def play(self, world: World, this: Round) -> None:
        dice = this.dice
        stored = Stored()
        dead, healthy = (f"{self._kind}-{version}" for version in (self._version, 3 - self._version))
        studies = [self._study(world, stored, dice) for _ in range(dice.randint(5, 9))]
        *studies, other = studies
        # And something that is not transferred.
        own = world.matrix.b.upload_all(ct_study(2, size=32))[0]["ParentStudy"]
        this.sent, this.there = stored.md5s, world.matrix.b.md5s()
        this.wanted += [stored.wanted(dice, [one], (dead,)) for one in studies]
        beside = stored.wanted(dice, [other], (healthy,))
        starts = [acts.start(world, this, wanted) for wanted in this.wanted]
        early = dice.randint(0, 3)
        acts.perform(world, this, starts[:early], [])
        with self._down(world, this, dead):
            pauses = [
                acts.command(world, this, wanted, dice.choice(("pause", "cancel", "resume")))
                for wanted in this.wanted
                if dice.random() < 0.3
            ]
            acts.perform(world, this, starts[early:], pauses)
            self._others_begin(world, this, beside, studies[0][1] if self._kind == "push" else own)
            paused = [wanted for wanted in this.wanted if wanted.paused and _state(wanted) == "Paused"]
        if beside.transfer is not None:
            this.wanted.append(beside)
        for wanted in this.wanted:
            if wanted not in paused:
                ends.end(world, this, wanted)
        for wanted in paused:
            if _state(wanted) != "Paused":
                raise Violation(f"a job that a user had paused is {_state(wanted)}: {wanted}")
            ends.end(world, this, wanted)
        ends.becomes_right(world, this)
        world.staging_empties()

    def _study(self, world: World, stored: Stored, dice: random.Random) -> tuple[str, str]:
        files = ct_study(dice.randint(1, 6), size=dice.choice((64, 128)))
        return "Study", stored.upload(world.matrix.a, files)[0]["ParentStudy"]

    @contextlib.contextmanager
    def _down(self, world: World, this: Round, variant: str) -> Iterator[None]:
        """The peer of that variant is down meanwhile."""
        proxy = world.matrix.proxies[variant]
        this.story.append(f"the peer of {variant} is down: {self._way}")
        world.tally.faults[f"dead peer, {self._way}"] += 1
        if self._way == "stopped":
            peer = world.matrix.b if self._kind == "push" else world.matrix.a
            with world.stopped(peer, hard=this.dice.random() < 0.5):
                yield
        else:
            (proxy.cut if self._way == "refusing" else proxy.drop)()
            try:
                yield
            finally:
                proxy.heal()
        this.story.append("the peer is back")

    def _others_begin(self, world: World, this: Round, beside: Wanted, study: str) -> None:
        here = world.matrix.a if self._kind == "push" else world.matrix.b
        answer = here.request("GET", f"studies/{study}/archive", timeout=BEGINNING)
        if answer.status_code != 200:
            raise Violation(f"an archive beside jobs that wait: {answer.status_code} {answer.text}")
        copy = here.post(f"studies/{study}/anonymize", {}, timeout=BEGINNING)["ID"]
        here.delete(f"studies/{copy}")
        if self._way == "stopped":
            return
        acts.start(world, this, beside)()
        assert isinstance(beside.transfer, Transfer)
        here.wait_for_job(beside.transfer.job, timeout=BEGINNING)


def _state(wanted: Wanted) -> str:
    assert wanted.transfer is not None
    state: str = wanted.transfer.server.job(wanted.transfer.job)["State"]
    return state
