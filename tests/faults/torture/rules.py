"""Rules: what arrives is sent by itself, one way or each way, while networks break and Orthancs are killed.

In the end each side has what it must have, nothing waits, and a comparison finds no difference.
"""

from __future__ import annotations

import random
import time
from typing import Any

import requests

from tests.faults.torture import acts
from tests.faults.torture.round import Round, Violation
from tests.faults.torture.scenario import Scenario
from tests.faults.torture.studies import Stored
from tests.faults.torture.world import World
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import OrthancError, StatusError
from tests.support.orthanc_server import OrthancServer
from tests.support.rules import STABLE, history, queue, set_rule

PATIENCE = 240.0
"""Seconds within which all has arrived: a peer that was not there is tried again after up to a minute."""

NEVER = {"At": "00:00", "Days": "Mon"}

_GONE = (requests.RequestException, OrthancError)


class Rules(Scenario):
    transfers = {"MaxPeerBandwidth": 0, "MaxOutage": 5}  # noqa: RUF012

    def __init__(self, dice: random.Random) -> None:
        self._mirror = dice.random() < 0.5
        self._version = dice.choice((1, 2, 2))
        self._jobs = dice.choice((1, 4))

    def configure(self, a: OrthancServer, b: OrthancServer) -> None:
        for server in (a, b):
            server.configuration.update(STABLE)
            server.configuration["Transfers"]["MaxRuleJobs"] = self._jobs
            # Two kills may meet the import of one instance, which is sent again by itself here.
            server.configuration["Transfers"]["FatalInstanceRetention"] = 0

    def play(self, world: World, this: Round) -> None:
        dice, a, b = this.dice, world.matrix.a, world.matrix.b
        ways = [(a, f"b{self._version}"), *([(b, f"a{self._version}")] if self._mirror else [])]
        keys: dict[str, Any] = {"Compare": NEVER} if self._mirror else {}
        for server, peer in ways:
            set_rule(server, "torture", to=peer, **keys)
        this.story.append(f"{'mirrors' if self._mirror else 'a rule'}, version {self._version}")
        stored = {a.name: Stored(), b.name: Stored()}
        acts.spoil_network(world, this, (0, 0.02, 0.1))
        uploads = [
            self._upload(world, this, dice.choice(ways)[0], stored) for _ in range(dice.choice((5, 20, 50)))
        ]
        acts.perform(world, this, uploads, acts.troubles(world, this) + acts.troubles(world, this))
        acts.spare_network(world, this)
        sent = {**stored[a.name].md5s, **stored[b.name].md5s}
        wanted = {
            server.name: sent if self._mirror or server is b else stored[a.name].md5s for server in (a, b)
        }
        self._becomes_right(world, ways, wanted)
        if self._mirror:
            for server, _ in ways:
                _compare(server)
        world.staging_empties()

    def _upload(
        self, world: World, this: Round, server: OrthancServer, stored: dict[str, Stored]
    ) -> acts.Act:
        files = list(ct_study(this.dice.randint(1, 4), size=64, seed=this.dice.randrange(100)))

        def act() -> None:
            stored[server.name].upload(server, files)

        return act

    def _becomes_right(
        self, world: World, ways: list[tuple[OrthancServer, str]], wanted: dict[str, dict[str, str]]
    ) -> None:
        limit = time.monotonic() + PATIENCE
        while True:
            world.revive()
            try:
                complaint = _complaint(world, ways, wanted)
            except _GONE as error:
                complaint = str(error)
            if complaint is None:
                return
            if time.monotonic() > limit:
                raise Violation(complaint)
            time.sleep(0.2)


def _complaint(
    world: World, ways: list[tuple[OrthancServer, str]], wanted: dict[str, dict[str, str]]
) -> str | None:
    for server in world.servers:
        found = server.md5s()
        if found != wanted[server.name]:
            missing = sorted(wanted[server.name].keys() - found.keys())
            waiting = [queue(one) for one, _ in ways]
            return f"{server.name} lacks {missing}, or has more or other bytes; waiting: {waiting}"
    for server, _ in ways:
        waiting = queue(server)
        if waiting:
            return f"{server.name} has all, and this still waits: {waiting}"
        failed = [one for one in history(server) if one["State"] in ("Failed", "GivenUp")]
        if failed:
            return f"{server.name} gave up: {failed}"
    return None


def _compare(server: OrthancServer) -> None:
    try:
        found = server.post("transfers/rules/torture/compare", {"DryRun": True})
    except StatusError as error:
        raise Violation(f"{server.name} cannot compare: {error}") from error
    if found["Studies"] or found["Next"] is not None:
        raise Violation(f"{server.name} finds differences where there are none: {found}")
