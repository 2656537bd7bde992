"""What this server made of instances that it changed is remembered, bounded, and never in the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.model import Instance
from orthanc_transfers.receiver.changed_instances import ChangedInstances


def test_an_instance_is_known_as_long_as_what_was_made_of_it_is_stored(tmp_path: Path) -> None:
    ChangedInstances(tmp_path / "changed").record([(Instance("a", 5, "sent"), "stored")])
    again = ChangedInstances(tmp_path / "changed")
    assert again.sent_md5s({"a": "stored", "b": "stored"}) == {"a": "sent"}
    assert again.sent_md5s({"a": "other"}) == {}
    assert again.sent_md5s({"a": None}) == {}


def test_an_instance_that_is_stored_anew_is_known_as_it_was_sent_last(tmp_path: Path) -> None:
    changed = ChangedInstances(tmp_path)
    changed.record([(Instance("a", 5, "first"), "x")])
    changed.record([(Instance("a", 5, "second"), "y")])
    assert changed.sent_md5s({"a": "x"}) == {}
    assert changed.sent_md5s({"a": "y"}) == {"a": "second"}


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    changed = ChangedInstances(tmp_path, max_rows=10)
    for number in range(25):
        changed.record([(Instance(str(number), 5, "sent"), "stored")])
    known = changed.sent_md5s({str(number): "stored" for number in range(25)})
    assert set(known) == {str(number) for number in range(15, 25)}


def test_nothing_is_made_before_there_is_something_to_remember(tmp_path: Path) -> None:
    changed = ChangedInstances(tmp_path / "changed")
    changed.record([])
    assert changed.sent_md5s({"a": "stored"}) == {}
    assert not (tmp_path / "changed").exists()


def test_a_damaged_database_is_logged_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "changed.sqlite").write_bytes(b"no database" * 1000)
    changed = ChangedInstances(tmp_path)
    changed.record([(Instance("a", 5, "sent"), "stored")])
    assert changed.sent_md5s({"a": "stored"}) == {}
    assert "not remembered" in caplog.text


@pytest.mark.parametrize("shared", [False, True])
def test_many_threads_record_and_ask_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    # Nothing but this object keeps them apart where it is shared.
    changed = ChangedInstances(tmp_path, shared=shared)

    def work(number: int) -> dict[str, str]:
        changed.record([(Instance(str(number), 5, "sent"), "stored")])
        return changed.sent_md5s({str(number): "stored"})

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(50))) == [{str(number): "sent"} for number in range(50)]
    assert not caplog.records
    assert [path.name for path in tmp_path.iterdir()] == ["changed.sqlite"]
