"""A receiver that may store nothing (Orthanc's option ``ReadOnly``)."""

from __future__ import annotations

import logging

import pytest

from orthanc_transfers.core.errors import ReadOnly
from orthanc_transfers.core.model import PushState
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    creation2_of,
    creation_of,
    hold_imports,
    wait_until,
)
from tests.receiver.push_client import FILES, create_any, outcome, put_all, send


def set_read_only(receiver: Receiver, value: bool = True) -> None:
    receiver.stop()
    receiver.read_only = value
    receiver.start()


@pytest.mark.parametrize("version", [1, 2])
def test_no_push_is_created(receiver: Receiver, version: int) -> None:
    set_read_only(receiver)
    with pytest.raises(
        ReadOnly, match="has ReadOnly in its configuration and receives nothing: set ReadOnly to"
    ):
        create_any(receiver, version)
    assert receiver.registry.all() == []
    assert receiver.metrics.available == receiver.settings.max_push_transactions


def test_no_pull_is_opened(receiver: Receiver) -> None:
    set_read_only(receiver)
    with pytest.raises(ReadOnly):
        receiver.pull(FILES)


def test_a_push_that_was_begun_before_rests_until_it_may_go_on(receiver: Receiver) -> None:
    first = receiver.v1.create(creation_of(FILES))
    status = receiver.v2.create(creation2_of(FILES))
    set_read_only(receiver)
    with pytest.raises(ReadOnly):
        put_all(receiver, first)
    with pytest.raises(ReadOnly):
        send(receiver, status)
    with pytest.raises(ReadOnly):
        receiver.v2.commit(status.id)
    set_read_only(receiver, False)
    put_all(receiver, first)
    receiver.v1.commit(first)
    assert len(receiver.store.files) == len(FILES)


def test_the_outcome_of_a_push_that_ended_before_is_still_known(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    set_read_only(receiver)
    assert receiver.v2.status(status.id).state is PushState.COMMITTED


def test_what_was_begun_before_can_be_dropped(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    set_read_only(receiver)
    receiver.pushes.drop(status.id)
    assert receiver.registry.all() == []


def test_an_interrupted_commit_is_resumed_by_the_next_start_without_the_option(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    begun, _ = hold_imports(receiver)
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    # Those that are under way end, no other begins.
    receiver.stop()
    receiver.store.before_add = lambda identifier: None
    stored = len(receiver.store.files)
    assert stored < len(FILES)
    receiver.read_only = True
    receiver.start()
    with caplog.at_level(logging.WARNING):
        receiver.pushes.recover()
    assert "resumed once this Orthanc is started without ReadOnly" in caplog.text
    with pytest.raises(ReadOnly):
        receiver.v2.status(status.id)
    assert len(receiver.store.files) == stored
    set_read_only(receiver, False)
    receiver.pushes.recover()
    wait_until(lambda: len(receiver.store.files) == len(FILES))
