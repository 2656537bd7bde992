"""One round: what it tries, what came of it, and whether that is as it must be."""

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
    refusal: str = ""
    """What the error must contain if it is to fail for good; empty if it must go through."""
    transfer: Transfer | None = None
    job: str = ""
    """Of a transfer without ``transfer``."""
    transaction: str = ""
    """Of a push of such a job that has ended."""
    attempts: int = 0
    """How often it was begun: at first, and by resubmitting."""
    canceled: bool = False
    """Whether that was ever asked for."""
    paused: bool = False
    """Whether a user has paused it, and nobody has resumed it since."""
    state: str = "not started"

    @property
    def ended_well(self) -> bool:
        return self.state == "Success"

    def __str__(self) -> str:
        levels = ", ".join(f"{item['Level']} {item['ID']}" for item in self.resources)
        known = self.transfer.job if self.transfer else self.job
        job = f"job {known}" if known else "no job"
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
            if wanted.ended_well:
                due.update((one, self.sent[one]) for one in wanted.instances)
        for one, md5 in due.items():
            if stored.get(one) != md5:
                return f"instance {one} should be there with MD5 {md5}, and is there with {stored.get(one)}"
        # The others are whole, or not there. Those that are whole may have what others have as well.
        others = [wanted for wanted in self.wanted if not wanted.ended_well]
        for wanted in others:
            if all(stored.get(one) == self.sent[one] for one in wanted.instances):
                due.update((one, self.sent[one]) for one in wanted.instances)
        left = stored.keys() - due.keys()
        if left:
            owners = [wanted.variant for wanted in others if wanted.instances & left]
            return f"instances {sorted(left)} are there, without the rest of their transfers ({owners})"
        return None

    def shares(self, wanted: Wanted) -> bool:
        """Whether another transfer has instances of this one, which it may bring at any time."""
        return any(other is not wanted and other.instances & wanted.instances for other in self.wanted)
