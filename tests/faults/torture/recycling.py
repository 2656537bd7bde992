"""A receiver that recycles: Orthanc deletes whole patients to make room for others.

One transfer after another, so that it is known what each found there and left:

- one that says ``Success`` has all its instances there at that moment;
- one that can never fit is refused, says which option is the reason, and nothing at all is deleted for it;
- any other goes through, if need be when it is resubmitted;
- no patient goes as long as there is room for all.
"""

from __future__ import annotations

import random

from tests.faults.torture import acts, ends
from tests.faults.torture.round import Round, Violation, Wanted
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study, small_instances
from tests.support.orthanc_server import OrthancServer

MEGABYTES = 5
HEAVY = 3
"""Instances of 525 KB of a patient where bytes are limited: three patients are less than the limit, four are more."""

TRANSFERS = 3


class Recycling(Scenario):
    """``MaximumPatientCount`` or ``MaximumStorageSize``; the limit in patients is ``fitting`` in either case."""

    def __init__(self, dice: random.Random) -> None:
        self._by_size = dice.random() < 0.3
        self._option = "MaximumStorageSize" if self._by_size else "MaximumPatientCount"
        self._fitting = 2 if self._by_size else dice.randint(2, 4)
        self._stored = Stored()
        self._patients: dict[str, str] = {}
        """Of each instance."""
        self._others = 0

    def configure(self, a: OrthancServer, b: OrthancServer) -> None:
        b.configuration[self._option] = MEGABYTES if self._by_size else self._fitting

    def play(self, world: World, this: Round) -> None:
        dice, a, b = this.dice, world.matrix.a, world.matrix.b
        for number in range(self._fitting + 2):
            self._note(self._stored.upload(a, self._patient(dice, f"Ours^{number}")))
        this.sent = self._stored.md5s
        patients = [one for one in self._stored.below if one[0] == "Patient"]
        for _ in range(TRANSFERS):
            if dice.random() < 0.6:
                self._others += 1
                self._note(b.upload_all(self._patient(dice, f"Other^{self._others}")))
            this.there = b.md5s()
            # Where bytes are limited, none of three patients: whether they fit is Orthanc's own arithmetic.
            counts = (1, 2, 4) if self._by_size else range(1, self._fitting + 2)
            wanted = self._stored.wanted(dice, dice.sample(patients, dice.choice(counts)))
            if len(self._patients_of(wanted.instances)) > self._fitting:
                wanted.refusal = self._option
            this.wanted[:] = [wanted]
            self._transfer(world, this, wanted)
            world.tally.faults["recycling limit"] += 1

    def _patient(self, dice: random.Random, name: str) -> list[bytes]:
        if self._by_size:
            return list(ct_study(HEAVY, name=name))
        return list(small_instances(dice.randint(1, 6), name=name))

    def _note(self, answers: list[dict[str, str]]) -> None:
        self._patients.update((stored["ID"], stored["ParentPatient"]) for stored in answers)

    def _patients_of(self, instances: frozenset[str] | set[str]) -> set[str]:
        return {self._patients[one] for one in instances}

    def _transfer(self, world: World, this: Round, wanted: Wanted) -> None:
        acts.spoil_network(world, this, (0, 0.05, 0.15))
        others = acts.commands(world, this, wanted) + acts.troubles(world, this)
        acts.perform(world, this, [acts.start(world, this, wanted)], others)
        acts.spare_network(world, this)
        ends.end(world, this, wanted)
        this.story.append(str(wanted))
        if not wanted.ended_well:
            # What was canceled or lost may go on for a while.
            world.staging_empties()
        complaint = self._complaint(this, wanted, world.matrix.b.md5s())
        if complaint is not None:
            raise Violation(f"{complaint}; {self._option}, room for {self._fitting} patients; {wanted}")

    def _complaint(self, this: Round, wanted: Wanted, stored: dict[str, str]) -> str | None:
        ours = {one: this.sent[one] for one in wanted.instances}
        there = {one: md5 for one, md5 in stored.items() if one in ours}
        if wanted.ended_well and there != ours:
            return f"Success, and of {len(ours)} instances {len(there)} are there"
        if not wanted.ended_well and there != ours and there.keys() - this.there.keys():
            return f"a part of it is there: {len(there)} of {len(ours)}"
        strange = {one for one, md5 in stored.items() if {**this.there, **ours}.get(one) != md5}
        if strange:
            return f"instances {sorted(strange)} are there and should not be"
        fits = len(self._patients_of(set(this.there) | set(ours))) <= self._fitting
        if (wanted.refusal or fits) and not this.there.keys() <= stored.keys():
            return f"{len(this.there.keys() - stored.keys())} instances of others were deleted for nothing"
        return None
