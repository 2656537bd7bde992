"""One round of ``torture``: what it tries, what came of it, and whether that is as it must be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.protocol_matrix import Transfer


class Violation(Exception):
    """Something that must not happen."""


@dataclass
class Wanted:
    """One transfer of a round: how, what, and what came of it."""

    variant: str
    resources: list[dict[str, str]]
    instances: frozenset[str]
    compression: str
    transfer: Transfer | None = None
    canceled: bool = False
    """Whether that was ever asked for."""
    state: str = "not started"

    def __str__(self) -> str:
        levels = ", ".join(f"{item['Level']} {item['ID']}" for item in self.resources)
        job = f"job {self.transfer.job}" if self.transfer else "no job"
        return f"{self.variant}, {self.compression}, {len(self.instances)} instances, {job}: {self.state} ({levels})"


@dataclass
class Round:
    """What one round tries, and what happened."""

    number: int
    kills: bool
    dice: random.Random
    wanted: list[Wanted] = field(default_factory=list)
    there: dict[str, str] = field(default_factory=dict)
    """MD5s of what the receiver has at the beginning."""
    sent: dict[str, str] = field(default_factory=dict)
    """MD5s of what the sender has."""
    story: list[str] = field(default_factory=list)

    def told(self) -> Iterator[str]:
        """What happened, line by line."""
        yield from self.story
        yield from map(str, self.wanted)

    def complaint(self, stored: dict[str, str]) -> str | None:
        """What is wrong with what the receiver has (MD5 of each instance) in the end; ``None`` if nothing is."""
        due = dict(self.there)
        for wanted in self.wanted:
            if wanted.state == "Success":
                due.update((one, self.sent[one]) for one in wanted.instances)
        for one, md5 in due.items():
            if stored.get(one) != md5:
                return f"instance {one} should be there with MD5 {md5}, and is there with {stored.get(one)}"
        # The others are whole, or not there. Those that are whole may have what others have as well.
        others = [wanted for wanted in self.wanted if wanted.state != "Success"]
        for wanted in others:
            if all(stored.get(one) == self.sent[one] for one in wanted.instances):
                due.update((one, self.sent[one]) for one in wanted.instances)
        left = stored.keys() - due.keys()
        if left:
            owners = [wanted.variant for wanted in others if wanted.instances & left]
            return f"instances {sorted(left)} are there, without the rest of their transfers ({owners})"
        return None
