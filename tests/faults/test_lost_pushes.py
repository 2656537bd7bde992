"""A peer of version 1 knows no way to ask for a push again: one that is lost starts over.

It is lost if its creation was not answered, or if its sender dies before Orthanc has saved the job again (it does so
every 10 s).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import Trap, World, broken_world
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

IDLE = 6
"""Seconds that a push is kept which nobody continues."""


@pytest.fixture(scope="module")
def world(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with broken_world(make_shared_server, tmp_path_factory.mktemp("nginx"), PushIdleTimeout=IDLE) as made:
        yield made


@pytest.mark.parametrize(
    ("side", "place", "nth"),
    [
        ("receiver", "Passive.create_push after", 1),
        ("sender", "RequestsTransport.request PUT push after", 20),
    ],
)
def test_a_push_of_version_1_starts_over_if_its_receiver_cannot_be_asked_for_it(
    world: World, side: str, place: str, nth: int
) -> None:
    transfer = world.transfer("push", 1)
    victim = world.a if side == "sender" else world.b
    trap = Trap(victim, place, f"kill {nth}")
    transfer.start_saved()
    trap.has_killed()
    victim.start()
    transfer.succeed()
    # The one that was not continued is dropped in time.
    transfer.is_whole(timeout=20 + 5 * IDLE)
