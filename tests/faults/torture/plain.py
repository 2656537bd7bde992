"""Overlapping transfers of random studies, of which the receiver may have a part."""

from __future__ import annotations

from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored, random_files
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study


class Plain(Scenario):
    def play(self, world: World, this: Round) -> None:
        self._prepare(world, this)
        acts.spoil_network(world, this)
        starts = [acts.start(world, this, wanted) for wanted in this.wanted]
        others = [act for wanted in this.wanted for act in acts.commands(world, this, wanted)]
        acts.perform(world, this, starts, others + acts.troubles(world, this))
        acts.spare_network(world, this)
        for wanted in this.wanted:
            ends.end(world, this, wanted)
        ends.becomes_right(world, this)

    def _prepare(self, world: World, this: Round) -> None:
        dice, stored = this.dice, Stored()
        files = random_files(dice)
        stored.upload(world.matrix.a, files)
        if dice.random() < 0.5:
            world.matrix.b.upload_all(dice.sample(files, dice.randrange(len(files))))
        # And something that is not transferred.
        world.matrix.b.upload_all(ct_study(2, size=32))
        this.sent, this.there = stored.md5s, world.matrix.b.md5s()
        levels = [one for one in stored.below if one[0] != "Patient"]
        for _ in range(dice.randint(1, 4)):
            chosen = dice.sample(levels, min(len(levels), dice.choice((1, 1, 2, 5))))
            this.wanted.append(stored.wanted(dice, chosen))
