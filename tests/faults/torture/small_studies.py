"""Hundreds of small studies, each sent by a job of its own, all at once, as autorouting does."""

from __future__ import annotations

import random

from tests.faults.protocol_matrix import VARIANTS
from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study

COUNTS = (100, 200, 300)


class SmallStudies(Scenario):
    transfers = {"MaxPeerBandwidth": 0}  # noqa: RUF012

    def __init__(self, dice: random.Random) -> None:
        # Mostly one way for all, as with one route.
        self._variants = dice.choice((("push-2",), ("push-1",), ("pull-2",), VARIANTS))

    def play(self, world: World, this: Round) -> None:
        dice = this.dice
        stored = Stored()
        studies = []
        for _ in range(dice.choice(COUNTS)):
            files = list(ct_study(dice.randint(1, 3), size=32, seed=dice.randrange(100)))
            studies.append(("Study", stored.upload(world.matrix.a, files)[0]["ParentStudy"]))
            if dice.random() < 0.1:
                world.matrix.b.upload(files[0])
        this.sent, this.there = stored.md5s, world.matrix.b.md5s()
        this.wanted += [stored.wanted(dice, [one], self._variants) for one in studies]
        acts.spoil_network(world, this, (0, 0, 0.02, 0.05))
        for wanted in this.wanted:
            acts.start(world, this, wanted)()
        some = dice.sample(this.wanted, 5)
        others = [act for wanted in some for act in acts.commands(world, this, wanted)]
        acts.perform(world, this, [], others + acts.troubles(world, this))
        acts.spare_network(world, this)
        for wanted in this.wanted:
            ends.end(world, this, wanted)
        ends.becomes_right(world, this)
        world.staging_empties()
