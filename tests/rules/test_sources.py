"""Where instances came from, by the reports of what was received."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.rules import sources
from orthanc_transfers.rules.sources import Sources
from tests.runtime.fake_time import FakeClock


@pytest.fixture
def known(tmp_path: Path) -> Sources:
    reports = Reports(tmp_path / "reports", 30, FakeClock())
    (tmp_path / "reports").mkdir()
    for number in range(5):
        reports.write({"ID": f"r{number}", "Instances": [{"ID": f"i{number}"}, {"ID": "both"}]})
    return Sources(reports)


def ended(
    number: int,
    kind: str = "push",
    name: str | None = "a",
    error: str | None = None,
    process: str | None = None,
) -> IncomingTransfer:
    outcome: Any = SimpleNamespace(error=error)
    found = SimpleNamespace(
        id=f"r{number}", kind=kind, sender_name=name, peer="peer", originator=process, outcome=outcome
    )
    return cast(IncomingTransfer, found)


def test_pushes_are_known_by_the_name_of_their_sender_and_pulls_by_the_peer(known: Sources) -> None:
    known.received(ended(0))
    known.received(ended(1, kind="pull"))
    known.received(ended(3, process="one of a"))
    assert (known.of("i0"), known.of("i1"), known.of("i2")) == ({"a"}, {"peer"}, set())
    # The last one counts.
    assert known.of("both") == {"a", "one of a"}


def test_what_failed_or_has_no_name_or_report_is_not_known(known: Sources) -> None:
    known.received(ended(0, error="refused"))
    known.received(ended(1, name=None))
    known.received(ended(7))
    assert known.of("i0") == set()
    assert known.of("i1") == set()


def test_memory_is_bounded(known: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_INSTANCES", 2)
    for number in range(5):
        known.received(ended(number))
    assert known.of("i0") == set()
    assert known.of("i4") == {"a"}
