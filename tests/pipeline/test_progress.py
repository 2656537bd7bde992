"""Buckets, bytes, speed and time left."""

from __future__ import annotations

import weakref
from functools import partial

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.pipeline.progress import WINDOW, Progress


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(clock)


def test_nothing_is_done_before_there_are_buckets(progress: Progress) -> None:
    assert not progress.planned
    assert progress.fraction() == 0
    assert progress.ratio is None
    assert progress.seconds_left() is None
    assert progress.speed() == 0


def test_planning_and_committing_count_as_one_bucket_each(progress: Progress) -> None:
    progress.plan(scheduled=lambda: 3, completed=0, left=300)
    assert progress.fraction() == pytest.approx(1 / 5)
    progress.bucket_done(100, 50, Codec.GZIP)
    assert progress.fraction() == pytest.approx(2 / 5)
    progress.bucket_done(100, 50, Codec.GZIP)
    progress.bucket_done(100, 50, Codec.GZIP)
    assert progress.fraction() == pytest.approx(4 / 5)


def test_buckets_that_need_not_travel_are_completed(progress: Progress) -> None:
    progress.plan(scheduled=lambda: 4, completed=3, left=100)
    assert progress.completed == 3
    assert progress.fraction() == pytest.approx(4 / 6)
    assert progress.wire == 0


def test_a_new_plan_does_not_take_progress_back(progress: Progress) -> None:
    progress.plan(scheduled=lambda: 2, completed=0, left=200)
    progress.bucket_done(100, 100, Codec.NONE)
    progress.plan(scheduled=lambda: 2, completed=0, left=200)
    assert progress.completed == 0
    assert progress.fraction() == pytest.approx(2 / 4)


def test_a_transfer_goes_on_from_the_progress_it_was_saved_with(clock: Clock) -> None:
    progress = Progress(clock, 0.7)
    assert progress.fraction() == 0.7
    progress.plan(scheduled=lambda: 10, completed=0, left=1)
    assert progress.fraction() == 0.7


def test_bytes_are_counted_before_and_after_the_codecs(progress: Progress) -> None:
    progress.plan(lambda: 3, 0, 300)
    progress.bucket_done(100, 25, Codec.ZSTD)
    progress.bucket_done(100, 50, Codec.GZIP)
    progress.bucket_done(100, 25, Codec.ZSTD)
    assert progress.wire == 100
    assert progress.ratio == 3
    assert progress.codecs == {"gzip": 1, "zstd": 2}


def test_the_speed_is_that_of_the_last_seconds(progress: Progress, clock: Clock) -> None:
    progress.plan(lambda: 100, 0, 10_000)
    progress.start()
    clock.time += 10
    progress.bucket_done(1000, 500, Codec.GZIP)
    assert progress.speed() == pytest.approx(500 / 10)
    clock.time += WINDOW + 1
    assert progress.speed() == 0
    progress.bucket_done(1000, 800, Codec.GZIP)
    assert progress.speed() == pytest.approx(800 / WINDOW)


def test_the_speed_at_the_end_is_the_mean_of_the_time_in_which_bytes_flowed(
    progress: Progress, clock: Clock
) -> None:
    progress.plan(lambda: 2, 0, 2000)
    for _ in range(2):
        progress.start()
        clock.time += 50
        progress.bucket_done(1000, 500, Codec.GZIP)
        progress.stop()
        clock.time += 1000
    assert progress.speed() == pytest.approx(1000 / 100)


def test_the_time_left_follows_the_speed_before_the_codec(progress: Progress, clock: Clock) -> None:
    progress.plan(lambda: 4, 0, 4000)
    progress.start()
    assert progress.seconds_left() is None
    clock.time += 2
    progress.bucket_done(1000, 10, Codec.ZSTD)
    assert progress.seconds_left() == pytest.approx(6)
    progress.stop()
    assert progress.seconds_left() is None


def test_progress_does_not_go_back_when_there_turn_out_to_be_more_buckets(progress: Progress) -> None:
    scheduled = 2
    progress.plan(lambda: scheduled, 0, 200)
    progress.bucket_done(100, 100, Codec.NONE)
    assert progress.fraction() == pytest.approx(2 / 4)
    scheduled = 20
    assert progress.fraction() == pytest.approx(2 / 4)


def test_a_plan_is_let_go_when_its_bytes_have_flowed_or_cannot(progress: Progress) -> None:
    class Plan:
        total = 2

    plan = Plan()
    kept = weakref.ref(plan)
    progress.plan(partial(getattr, plan, "total"), 0, 200)
    progress.start()
    progress.bucket_done(100, 100, Codec.NONE)
    plan.total = 6
    del plan
    assert kept() is not None
    progress.stop()
    assert kept() is None
    assert progress.fraction() == pytest.approx(2 / 8)
