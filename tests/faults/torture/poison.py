"""Studies with an instance whose import kills Orthanc (SIGSEGV in DCMTK), beside others that are harmless.

- each attempt to transfer such a study kills the receiver twice at most;
- it fails for good, and names that instance; nothing of it is there;
- the others go through, though they may have to be resubmitted: they may have been imported when it died.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study, small_instances
from tests.support.orthanc_server import OrthancServer
from tests.support.poison import harmless, poisoned

DEATHS = 2
"""That a poisoned instance may cause, each time that it is sent."""


class Poison(Scenario):
    def configure(self, a: OrthancServer, b: OrthancServer) -> None:
        # The sender never looks into what it has. With MD5s in its index, it would notice that the file was changed.
        a.configuration["StoreMD5ForAttachments"] = False

    def play(self, world: World, this: Round) -> None:
        dice, b = this.dice, world.matrix.b
        stored = Stored()
        study, culprit = self._plant(world, this, stored)
        healthy = [
            ("Study", stored.upload(world.matrix.a, ct_study(dice.randint(1, 8), size=64))[0]["ParentStudy"])
            for _ in range(2)
        ]
        b.upload_all(ct_study(2, size=32))
        this.sent, this.there = stored.md5s, b.md5s()
        for _ in range(dice.choice((1, 1, 2))):
            wanted = stored.wanted(dice, [study])
            wanted.refusal = culprit
            this.wanted.append(wanted)
        poisoned_ones = this.wanted[:]
        for one in healthy:
            this.wanted.append(stored.wanted(dice, [one]))
        dice.shuffle(this.wanted)
        world.tally.faults["poison"] += len(poisoned_ones)
        world.deaths_allowed = lambda: DEATHS * sum(wanted.attempts for wanted in poisoned_ones)
        acts.spoil_network(world, this, (0, 0, 0.1))
        starts = [acts.start(world, this, wanted) for wanted in this.wanted]
        others = [act for wanted in this.wanted for act in acts.commands(world, this, wanted)]
        acts.perform(world, this, starts, others)
        acts.spare_network(world, this)
        for wanted in this.wanted:
            ends.end(world, this, wanted)
        ends.becomes_right(world, this)
        world.staging_empties()
        world.tally.faults["death of poison"] += world.deaths

    def _plant(self, world: World, this: Round, stored: Stored) -> tuple[tuple[str, str], str]:
        """A study with a poisoned instance at the sender; the study, and that instance."""
        a = world.matrix.a
        files = list(small_instances(this.dice.randint(2, 12), name="Phantom^Poison"))
        spot = this.dice.randrange(len(files))
        poison = poisoned(files[spot])
        answers = stored.upload(a, [*files[:spot], harmless(files[spot]), *files[spot + 1 :]])
        (file,) = (path for path in _files(a) if path.stat().st_size == len(poison))
        file.write_bytes(poison)
        a.restart()  # it remembers what it stored lately
        culprit = answers[spot]["ID"]
        stored.md5s[culprit] = hashlib.md5(poison).hexdigest()
        return ("Study", answers[spot]["ParentStudy"]), culprit


def _files(server: OrthancServer) -> list[Path]:
    return [path for path in server.storage.glob("??/??/*") if path.is_file()]
