"""A receiver that may store nothing (Orthanc's option ``ReadOnly``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ReadOnly
from orthanc_transfers.core.model import PushState
from tests.receiver.push_client import FILES, create_any, outcome, put_all, send
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    creation2_of,
    creation_of,
    hold_imports,
    receiver,
    wait_until,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


def set_read_only(world: World, value: bool = True) -> None:
    world.stop()
    world.read_only = value
    world.start()


@pytest.mark.parametrize("version", [1, 2])
def test_no_push_is_created(world: World, version: int) -> None:
    set_read_only(world)
    with pytest.raises(
        ReadOnly, match="has ReadOnly in its configuration and receives nothing: set ReadOnly to"
    ):
        create_any(world, version)
    assert world.registry.all() == []
    assert world.metrics.available == world.settings.max_push_transactions


def test_no_pull_is_opened(world: World) -> None:
    set_read_only(world)
    with pytest.raises(ReadOnly):
        world.pull(FILES)


def test_a_push_that_was_begun_before_rests_until_it_may_go_on(world: World) -> None:
    first = world.v1.create(creation_of(FILES))
    status = world.v2.create(creation2_of(FILES))
    set_read_only(world)
    with pytest.raises(ReadOnly):
        put_all(world, first)
    with pytest.raises(ReadOnly):
        send(world, status)
    with pytest.raises(ReadOnly):
        world.v2.commit(status.id)
    set_read_only(world, False)
    put_all(world, first)
    world.v1.commit(first)
    assert len(world.store.files) == len(FILES)


def test_the_outcome_of_a_push_that_ended_before_is_still_known(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED
    set_read_only(world)
    assert world.v2.status(status.id).state is PushState.COMMITTED


def test_what_was_begun_before_can_be_dropped(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    set_read_only(world)
    world.pushes.drop(status.id)
    assert world.registry.all() == []


def test_an_interrupted_commit_is_resumed_by_the_next_start_without_the_option(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    begun, _ = hold_imports(world)
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    # Those that are under way end, no other begins.
    world.stop()
    world.store.before_add = lambda identifier: None
    stored = len(world.store.files)
    assert stored < len(FILES)
    world.read_only = True
    world.start()
    with caplog.at_level(logging.WARNING):
        world.pushes.recover()
    assert "resumed once this Orthanc is started without ReadOnly" in caplog.text
    with pytest.raises(ReadOnly):
        world.v2.status(status.id)
    assert len(world.store.files) == stored
    set_read_only(world, False)
    world.pushes.recover()
    wait_until(lambda: len(world.store.files) == len(FILES))
