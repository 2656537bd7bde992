"""Journal replay: a journal cut anywhere tells what was written before, and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.history import from_bits, replay, to_bits
from orthanc_transfers.runtime.journal import Kind, Record
from tests.receiver.memory_receiver import dicom, manifest_of

FILES = [dicom(f"file-{number}", 900) for number in range(4)]
MANIFEST = manifest_of(FILES)
BYTES = b"".join(FILES)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_indices_survive_their_bits(count: int) -> None:
    for indices in (frozenset[int](), frozenset(range(count)), frozenset(range(0, count, 3))):
        assert from_bits(to_bits(indices, count), count) == indices
    with pytest.raises(ValueError, match="another manifest"):
        from_bits(to_bits(frozenset(), count), count + 9)


def _history_of_a_life(folder: Path) -> tuple[Path, list[tuple[int, RangeSet, bool, bool]]]:
    """A journal with everything in it, and after each record: its length, bytes, committing, ended."""
    area = Area.create(folder / ("a" * 32), MANIFEST, {})
    have = RangeSet()
    states: list[tuple[int, RangeSet, bool, bool]] = []

    def remember(*, committing: bool = False, ended: bool = False) -> None:
        size = (area.directory / "journal").stat().st_size
        states.append((size, RangeSet(have), committing, ended))

    for item in (Range(0, 1000), Range(1000, 1100), Range(2000, MANIFEST.size), Range(1100, 2000)):
        area.journal_ranges(Kind.RECEIVED, [item])
        have.add(item)
        remember()
    area.journal_ranges(Kind.LOST, [Range(0, 500)])
    have.discard(Range(0, 500))
    remember()
    area.journal_ranges(Kind.RECEIVED, [Range(0, 500)])
    have.add(Range(0, 500))
    remember()
    area.journal_committing(frozenset({0, 2}))
    remember(committing=True)
    area.journal_receiving()
    remember()
    area.journal_committing(frozenset({0, 2}))
    remember(committing=True)
    shutil.copy(area.directory / "area", folder / "area")
    area.journal_outcome({"State": "committed"})
    remember(committing=True, ended=True)
    shutil.move(folder / "area", area.directory / "area")
    return area.directory, states


def test_a_journal_cut_at_any_byte_tells_what_was_written_before_and_no_more(tmp_path: Path) -> None:
    directory, states = _history_of_a_life(tmp_path)
    journal = (directory / "journal").read_bytes()
    assert len(journal) == states[-1][0]
    states.insert(0, (0, RangeSet(), False, False))
    for cut in range(len(journal) + 1):
        (directory / "journal").write_bytes(journal[:cut])
        _, have, committing, ended = next(state for state in reversed(states) if state[0] <= cut)
        history = Area.reopen(directory).history
        assert history.have == have
        assert (history.absent is not None) == committing
        assert (history.outcome is not None) == ended


def test_records_that_do_not_fit_the_manifest_count_for_nothing(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    area.journal_ranges(Kind.RECEIVED, [Range(0, 10), Range(10, MANIFEST.size + 1)])
    area.close()
    assert list(Area.reopen(area.directory).history.have) == [Range(0, 10)]


def test_what_was_stored_is_known_though_the_process_died_just_after_the_manifest_grew() -> None:
    whole = Manifest(Instance(f"{number}", 10, "") for number in range(20))
    records = [Record(Kind.STORED, to_bits({1}, 3))]
    assert replay(iter(records), whole).stored == {1}
