"""Studies of random shape, and what of them is to be transferred."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from tests.faults.protocol_matrix import VARIANTS
from tests.faults.torture.round import Wanted
from tests.support.dicom_data import ct_study, multi_frame
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer

MB = 1024 * 1024
COMPRESSIONS = ("none", "gzip", "zstd", "auto")


@dataclass
class Stored:
    """What a sender has: the instances below each resource, and their MD5s."""

    below: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """By level and identifier, in the order of the uploads, not that of random identifiers."""
    md5s: dict[str, str] = field(default_factory=dict)

    def upload(self, server: OrthancServer, files: Iterable[bytes]) -> list[dict[str, str]]:
        """Store some more; Orthanc's answers."""
        answers = []
        for data in files:
            stored = server.upload(data)
            answers.append(stored)
            one = stored["ID"]
            self.md5s[one] = hashlib.md5(data).hexdigest()
            for level, key in (("Instance", "ID"), ("Series", "ParentSeries"), ("Study", "ParentStudy")):
                self.below.setdefault((level, stored[key]), set()).add(one)
            self.below.setdefault(("Patient", stored["ParentPatient"]), set()).add(one)
        return answers

    def wanted(
        self, dice: random.Random, chosen: Iterable[tuple[str, str]], variants: tuple[str, ...] = VARIANTS
    ) -> Wanted:
        """A transfer of these resources, in any way."""
        chosen = list(chosen)
        return Wanted(
            dice.choice(variants),
            [resource(level, identifier) for level, identifier in chosen],
            frozenset().union(*(self.below[one] for one in chosen)),
            dice.choice(COMPRESSIONS),
        )


def random_files(dice: random.Random) -> list[bytes]:
    """One to three studies, at times with a large instance, or with more than are announced at once."""
    files: list[bytes] = []
    for _ in range(dice.randint(1, 3)):
        files += ct_study(
            dice.randint(1, 20),
            size=dice.choice((64, 128, 256, 384)),
            series=dice.randint(1, 3),
            seed=dice.randrange(100),
        )
    if dice.random() < 0.2:
        files.append(multi_frame(2 * MB))
    if dice.random() < 0.15:
        files += ct_study(FIRST_INSTANCES + dice.randint(1, 60), seed=dice.randrange(100), size=32, series=2)
    return files
