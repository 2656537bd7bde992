"""Registry of incoming transfers: opening by token, discarding, expiry."""

from __future__ import annotations

import secrets
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
from orthanc_transfers.receiver import expiry
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    dicom,
    fill,
    hold_lookups,
    identify,
    running_receiver,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


# --- stopping


def test_after_discarding_nothing_is_left_and_nothing_works(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    transfer.discard()
    transfer.discard()
    assert receiver.leftovers() == set()
    with pytest.raises(UnknownTransaction):
        transfer.write([Range(0, 1)], memoryview(b"x"))
    with pytest.raises(UnknownTransaction):
        transfer.commit()
    assert receiver.registry.find("pull", "a" * 32) is None


# --- opening


def test_the_same_token_gives_the_same_reception(receiver: Receiver) -> None:
    with ThreadPoolExecutor(8) as pool:
        transfers = list(pool.map(lambda _: receiver.pull(FILES), range(8)))
    assert len({transfer.id for transfer in transfers}) == 1
    assert len(receiver.leftovers()) == 1


def test_a_push_with_a_known_token_and_another_manifest_is_a_conflict(receiver: Receiver) -> None:
    receiver.pull(FILES, kind="push", meta={"version": 0})
    with pytest.raises(Conflict):
        receiver.pull(FILES[1:], kind="push", meta={"version": 0})


def test_a_pull_whose_manifest_changed_starts_over(receiver: Receiver) -> None:
    old = receiver.pull(FILES)
    fill(old, FILES)
    new = receiver.pull(FILES[1:])
    assert new.id != old.id
    assert new.missing() == [new.manifest.area]
    assert receiver.leftovers() == {new.id}


def test_a_pull_that_failed_stays_so_until_it_is_discarded_to_be_tried_again(receiver: Receiver) -> None:
    receiver.store.refused[identify(FILES[3])] = "no"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    receiver.store.refused.clear()
    with pytest.raises(ImportRefused, match="no"):
        receiver.pull(FILES).commit()
    transfer.discard()
    again = receiver.pull(FILES)
    fill(again, FILES)
    assert again.commit().stored == 12


@pytest.mark.parametrize("kind", ["push", "pull"])
def test_a_server_that_stops_does_not_look_any_further_what_it_has_of_a_new_transfer(
    receiver: Receiver, kind: str
) -> None:
    begun = hold_lookups(receiver)
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(receiver.pull, FILES, kind=kind)
        assert begun.wait(PATIENCE)
        receiver.stop()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    assert receiver.leftovers() == set()


def test_a_transfer_that_is_canceled_stops_looking_up_what_is_stored(receiver: Receiver) -> None:
    begun, cancellation = hold_lookups(receiver), Cancellation()
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(receiver.pull, FILES, cancellation=cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    receiver.store.before_md5s = lambda cancellation: None
    assert receiver.pull(FILES).missing()


def test_a_creation_that_failed_can_be_tried_again(receiver: Receiver) -> None:
    def fail(cancellation: Cancellation) -> None:
        raise RuntimeError("no database")

    receiver.store.before_md5s = fail
    with pytest.raises(RuntimeError):
        receiver.pull(FILES)
    receiver.store.before_md5s = lambda cancellation: None
    assert receiver.pull(FILES).missing()
    assert len(receiver.leftovers()) == 1


def test_a_manifest_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (
        running_receiver(tmp_path, max_manifest_instances=11) as receiver,
        pytest.raises(TooLarge, match=r"12 .*MaxManifestInstances, 11"),
    ):
        receiver.pull(FILES)


# --- expiry


def test_an_idle_pull_outlives_an_idle_push_but_not_for_ever(receiver: Receiver) -> None:
    push = receiver.pull(FILES, kind="push", meta={"version": 0})
    pull = receiver.pull(FILES)
    receiver.clock.seconds += receiver.settings.push_idle_timeout + 1
    receiver.registry.expire()
    assert push.dropped
    assert not pull.dropped
    receiver.clock.seconds += 8 * 86400
    receiver.registry.expire()
    assert pull.dropped
    assert receiver.leftovers() == set()


def test_bytes_that_arrive_keep_a_reception_alive(receiver: Receiver) -> None:
    push = receiver.pull(FILES, kind="push", meta={"version": 0})
    for _ in range(5):
        receiver.clock.seconds += receiver.settings.push_idle_timeout - 1
        push.write([Range(0, 10)], memoryview(FILES[0])[:10])
        receiver.registry.expire()
    assert not push.dropped


def test_a_remembered_outcome_expires_too(receiver: Receiver) -> None:
    pull = receiver.pull(FILES)
    fill(pull, FILES)
    pull.commit()
    receiver.clock.seconds += receiver.settings.push_idle_timeout + 1
    receiver.registry.expire()
    assert receiver.leftovers() == set()


def test_so_many_outcomes_are_remembered_and_no_more(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "REMEMBERED", 2)
    pulls = []
    for _ in range(4):
        receiver.clock.seconds += 1
        pulls.append(receiver.pull(FILES, token=secrets.token_hex(16)))
    for pull in pulls[:3]:
        receiver.clock.seconds += 1
        fill(pull, FILES)
        pull.commit()
    receiver.registry.expire()
    # What is being received is none.
    assert [pull.dropped for pull in pulls] == [True, False, False, False]
    assert pulls[1].commit().stored + pulls[1].commit().already_stored == len(FILES)
