"""Registry of incoming transfers: opening by token, discarding, expiry."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    Conflict,
    ImportRefused,
    TooLarge,
    UnknownTransaction,
)
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    dicom,
    fill,
    hold_lookups,
    identify,
    receiver,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


# --- stopping


def test_after_discarding_nothing_is_left_and_nothing_works(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    transfer.discard()
    transfer.discard()
    assert world.leftovers() == set()
    with pytest.raises(UnknownTransaction):
        transfer.write([Range(0, 1)], memoryview(b"x"))
    with pytest.raises(UnknownTransaction):
        transfer.commit()
    assert world.registry.find("pull", "a" * 32) is None


# --- opening


def test_the_same_token_gives_the_same_reception(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        transfers = list(pool.map(lambda _: world.pull(FILES), range(8)))
    assert len({transfer.id for transfer in transfers}) == 1
    assert len(world.leftovers()) == 1


def test_a_push_with_a_known_token_and_another_manifest_is_a_conflict(world: World) -> None:
    world.pull(FILES, kind="push", meta={"version": 0})
    with pytest.raises(Conflict):
        world.pull(FILES[1:], kind="push", meta={"version": 0})


def test_a_pull_whose_manifest_changed_starts_over(world: World) -> None:
    old = world.pull(FILES)
    fill(old, FILES)
    new = world.pull(FILES[1:])
    assert new.id != old.id
    assert new.missing() == [new.manifest.area]
    assert world.leftovers() == {new.id}


def test_a_pull_that_failed_can_be_tried_again(world: World) -> None:
    world.store.refused[identify(FILES[3])] = "no"
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    world.store.refused.clear()
    again = world.pull(FILES)
    fill(again, FILES)
    assert again.commit().stored == 12


@pytest.mark.parametrize("kind", ["push", "pull"])
def test_a_server_that_stops_does_not_look_any_further_what_it_has_of_a_new_transfer(
    world: World, kind: str
) -> None:
    begun = hold_lookups(world)
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.pull, FILES, kind=kind)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    assert world.leftovers() == set()


def test_a_transfer_that_is_canceled_stops_looking_up_what_is_stored(world: World) -> None:
    begun, cancellation = hold_lookups(world), Cancellation()
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.pull, FILES, cancellation=cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    world.store.before_md5s = lambda cancellation: None
    assert world.pull(FILES).missing()


def test_a_creation_that_failed_can_be_tried_again(world: World) -> None:
    def fail(cancellation: Cancellation) -> None:
        raise RuntimeError("no database")

    world.store.before_md5s = fail
    with pytest.raises(RuntimeError):
        world.pull(FILES)
    world.store.before_md5s = lambda cancellation: None
    assert world.pull(FILES).missing()
    assert len(world.leftovers()) == 1


def test_a_manifest_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, max_manifest_instances=11) as world,
        pytest.raises(TooLarge, match=r"12 .*MaxManifestInstances, 11"),
    ):
        world.pull(FILES)


# --- expiry


def test_an_idle_pull_outlives_an_idle_push_but_not_for_ever(world: World) -> None:
    push = world.pull(FILES, kind="push", meta={"version": 0})
    pull = world.pull(FILES)
    world.clock.seconds += world.settings.push_idle_timeout + 1
    world.registry.expire()
    assert push.dropped
    assert not pull.dropped
    world.clock.seconds += 8 * 86400
    world.registry.expire()
    assert pull.dropped
    assert world.leftovers() == set()


def test_bytes_that_arrive_keep_a_reception_alive(world: World) -> None:
    push = world.pull(FILES, kind="push", meta={"version": 0})
    for _ in range(5):
        world.clock.seconds += world.settings.push_idle_timeout - 1
        push.write([Range(0, 10)], memoryview(FILES[0])[:10])
        world.registry.expire()
    assert not push.dropped


def test_a_remembered_outcome_expires_too(world: World) -> None:
    pull = world.pull(FILES)
    fill(pull, FILES)
    pull.commit()
    world.clock.seconds += world.settings.push_idle_timeout + 1
    world.registry.expire()
    assert world.leftovers() == set()
