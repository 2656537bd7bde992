"""Jobs that are parked and woken, and users who come in between: an Orthanc of which only the states are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.parking import CANCEL, PAUSE, Parking
from orthanc_transfers.interfaces import Job, StopReason
from tests.support.waiting import wait_until


class WaitingJob:
    def __init__(self) -> None:
        self.waits = True
        self.told: list[str] = []

    def rest(self) -> None:
        self.told.append("rest")

    def hurry(self) -> None:
        self.told.append("hurry")

    def stop(self, reason: StopReason) -> None:
        self.told.append(f"stop {reason.name}")


class World:
    """One job ``a``, and the engine that runs it."""

    def __init__(self) -> None:
        self.state = "Running"
        self.posts: list[str] = []
        self.job = WaitingJob()
        self.parking = Parking(self._post, lambda identifier: self.state)

    def _post(self, uri: str) -> bytes:
        self.posts.append(uri.removeprefix("/jobs/a/"))
        if uri.endswith("resume"):
            if self.state != "Paused":
                raise HostError("not paused", 1)
            self.state = "Pending"
        return b"{}"

    def step(self) -> None:
        self.state = "Running"
        self.parking.step_begins("a", cast(Job, self.job))
        if self.job.waits:
            self.parking.park("a", cast(Job, self.job))

    def stop(self, reason: StopReason = StopReason.PAUSED) -> bool:
        ours = self.parking.stopped("a", cast(Job, self.job), reason)
        self.state = "Paused"
        return ours

    def woken(self) -> None:
        self.job.waits = False
        wait_until(lambda: not self.parking.holds("a"), "it is woken", 10, every=0.01)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.parking.close()


def test_a_job_that_waits_is_paused_unknown_to_it_and_resumed_when_it_need_not_wait(world: World) -> None:
    world.step()
    assert world.stop()
    assert world.parking.holds("a")
    world.woken()
    assert (world.posts[0], world.posts[-1], world.state) == ("pause", "resume", "Pending")
    world.step()
    assert world.job.told == ["rest"]


def test_one_that_does_not_wait_is_a_user_s_to_pause(world: World) -> None:
    world.job.waits = False
    world.step()
    assert not world.stop()
    assert not world.parking.holds("a")
    assert world.posts == []


@pytest.mark.parametrize("before", ["step", "stop"])
def test_a_user_s_pause_of_a_running_job_wins_over_ours(world: World, before: str) -> None:
    if before == "stop":
        world.step()
    world.parking.command("a", PAUSE)
    if before == "step":
        world.step()
    assert not world.stop()
    assert not world.parking.holds("a")


def test_a_user_s_pause_of_a_parked_job_is_not_undone(world: World) -> None:
    world.step()
    world.stop()
    world.parking.command("a", PAUSE)
    assert world.job.told == ["rest", "stop PAUSED"]
    assert not world.parking.holds("a")
    assert "resume" not in world.posts


def test_a_user_s_cancel_is_not_lost_while_our_pause_is_under_way(world: World) -> None:
    world.step()
    world.parking.command("a", CANCEL)
    assert world.stop()
    wait_until(lambda: not world.parking.holds("a"), "it is canceled", 10, every=0.01)
    assert world.posts == ["pause", "cancel", "cancel"]


def test_a_pause_of_a_job_in_the_queue_does_not_keep_it_from_being_parked_later(world: World) -> None:
    world.parking.command("a", PAUSE)
    world.step()
    assert not world.parking.holds("a")
    world.step()
    assert world.parking.holds("a")


def test_a_user_who_resumes_a_parked_job_lets_the_peer_be_tried(world: World) -> None:
    world.step()
    world.stop()
    world.step()
    assert world.job.told == ["rest", "hurry", "rest"]


def test_a_job_that_was_parked_before_a_restart_is_resumed_once_orthanc_has_started(world: World) -> None:
    world.state = "Paused"
    world.parking.restore("a", cast(Job, world.job))
    world.job.waits = False
    assert world.posts == []
    world.parking.started()
    world.woken()
    assert world.posts == ["resume"]


def test_a_job_that_is_canceled_or_gone_is_not_resumed_for_ever(world: World) -> None:
    world.step()
    world.stop()
    world.state = "Failure"
    world.woken()
    world.step()
    world.stop()
    world.parking.forget("a")
    assert not world.parking.holds("a")
