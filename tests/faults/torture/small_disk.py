"""A receiver on a small disk, which another program fills and empties again.

Staging, Orthanc's storage and its index are there, or some of them: transfers do not fit, or no longer. Orthanc does
not end of it, and once there is room all goes through, or is undone.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study, small_instances
from tests.support.orthanc_server import OrthancServer
from tests.support.small_disk import SmallDisk

MB = 1_000_000
DISK = 14 * MB
ON_IT = (("staging",), ("storage",), ("staging", "storage"), ("staging", "storage"))


class SmallDiskRound(Scenario):
    """Raises ``PermissionError`` where no disk can be mounted."""

    def __init__(self, dice: random.Random, folder: Path) -> None:
        self._disk = SmallDisk(folder / "disk", DISK)
        self._on_it = dice.choice(ON_IT)
        self._filled = False

    def configure(self, a: OrthancServer, b: OrthancServer) -> None:
        if "storage" in self._on_it:
            b.storage = self._disk.path / "storage"
            b.configuration.update(StorageDirectory=str(b.storage), IndexDirectory=str(b.storage))
        if "staging" in self._on_it:
            b.configuration["Transfers"]["StagingDirectory"] = str(self._disk.path / "staging")

    def play(self, world: World, this: Round) -> None:
        dice, b = this.dice, world.matrix.b
        stored = Stored()
        studies = [
            ("Study", stored.upload(world.matrix.a, files)[0]["ParentStudy"])
            for files in (ct_study(dice.randint(2, 5)), small_instances(dice.randint(20, 60)), ct_study(2))
        ]
        b.upload_all(ct_study(2, size=32))
        this.sent, this.there = stored.md5s, b.md5s()
        this.wanted += [stored.wanted(dice, [one]) for one in studies]
        this.story.append(f"on the small disk: {', '.join(self._on_it)}")
        acts.spoil_network(world, this, (0, 0, 0.1))
        starts = [acts.start(world, this, wanted) for wanted in this.wanted]
        others = [act for wanted in this.wanted for act in acts.commands(world, this, wanted)]
        others += [self._fill(world, this) for _ in range(dice.randint(1, 3))]
        others += [self._make_room for _ in range(dice.randint(0, 2))]
        if this.kills and dice.random() < 0.4:
            others.append(self._kill(world, this))
        acts.perform(world, this, starts, others)
        acts.spare_network(world, this)
        # Jobs may still fail for the disk, and say so.
        for wanted in this.wanted[: dice.randint(0, len(this.wanted))]:
            ends.watch(world, this, wanted)
        self._make_room()
        for wanted in this.wanted:
            ends.end(world, this, wanted)
        ends.becomes_right(world, this)
        world.staging_empties()

    def close(self) -> None:
        self._disk.close()

    def _fill(self, world: World, this: Round) -> acts.Act:
        leave = this.dice.choice((0, 0, 20_000, 300_000, 2 * MB))

        def act() -> None:
            with contextlib.suppress(OSError):
                if self._disk.free > leave:
                    self._disk.fill(leave)
                    world.tally.faults["disk filled"] += 1
                    this.story.append(f"the disk is filled, but for {leave} bytes")
            self._filled = True

        return act

    def _make_room(self) -> None:
        if self._filled:
            self._disk.make_room()
            self._filled = False

    def _kill(self, world: World, this: Round) -> acts.Act:
        kill = acts.kill(world, this)

        def act() -> None:
            # On a full disk Orthanc itself does not start: SQLite cannot open the index.
            self._make_room()
            kill()

        return act
