"""Jobs that were canceled while they rested."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orthanc_transfers.host.paused_jobs import PausedJobs
from tests.support.waiting import wait_until


class World:
    """The states of some jobs, how often each was asked for, and who was told to be canceled."""

    def __init__(self) -> None:
        self.states: dict[str, str | None] = {}
        self.canceled: list[str] = []
        self.asked: list[str] = []
        self.jobs = PausedJobs(self._state_of, period=0.001)

    def _state_of(self, identifier: str) -> str | None:
        self.asked.append(identifier)
        return self.states.get(identifier)

    def rest(self, identifier: str, state: str | None, *, alive: bool = True) -> None:
        self.states[identifier] = state
        self.jobs.watch(identifier, lambda: self.canceled.append(identifier), alive=alive, paused=True)

    def looked_at(self, identifier: str, times: int = 2) -> None:
        """Wait until some more looks at a job are over."""
        wanted = self.asked.count(identifier) + times
        wait_until(lambda: self.asked.count(identifier) >= wanted, "the job is looked at", 10, every=0.001)


def runs() -> bool:
    return any(thread.name.endswith("paused-jobs") for thread in threading.enumerate())


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.jobs.close()
    wait_until(lambda: not runs(), "the thread ends", 10)


def test_a_job_canceled_while_it_rests_is_told_once(world: World) -> None:
    world.rest("a", "Paused")
    world.looked_at("a")
    assert world.canceled == []
    world.states["a"] = "Failure"
    wait_until(lambda: world.canceled == ["a"], "it is told", 10)
    wait_until(lambda: not runs(), "no job is polled any more", 10)
    assert world.canceled == ["a"]


def test_a_job_canceled_before_the_first_look_is_told(world: World) -> None:
    world.rest("a", "Failure")
    wait_until(lambda: world.canceled == ["a"], "it is told", 10)


def test_a_job_that_had_failed_before_it_was_reloaded_is_not_told(world: World) -> None:
    world.rest("failed", "Failure", alive=False)
    world.rest("finished", "Success", alive=False)
    wait_until(lambda: not runs(), "no job is polled any more", 10)
    assert world.canceled == []


def test_a_job_that_had_been_canceled_before_it_was_reloaded_is_told(world: World) -> None:
    # Its process may have ended before it noticed.
    world.rest("a", "Canceled", alive=False)
    wait_until(lambda: world.canceled == ["a"], "it is told", 10)


def test_a_reloaded_job_that_is_canceled_after_a_look_is_told(world: World) -> None:
    world.rest("a", None, alive=False)
    world.looked_at("a")
    world.states["a"] = "Pending"
    world.looked_at("a")
    world.states["a"] = "Failure"
    wait_until(lambda: world.canceled == ["a"], "it is told", 10)


def test_a_job_that_goes_on_is_not_looked_at_any_more(world: World) -> None:
    world.rest("goes on", "Paused")
    world.rest("rests", "Paused")
    world.looked_at("goes on")
    world.jobs.forget("goes on")
    world.jobs.forget("never known")
    world.looked_at("rests")
    before = world.asked.count("goes on")
    world.states["goes on"] = "Failure"
    world.looked_at("rests")
    assert world.asked.count("goes on") == before
    assert world.canceled == []


def test_jobs_that_rest_later_are_looked_at_too(world: World) -> None:
    world.rest("first", "Success")
    wait_until(lambda: not runs(), "no job is polled any more", 10)
    world.rest("second", "Failure")
    wait_until(lambda: world.canceled == ["second"], "it is told", 10)
