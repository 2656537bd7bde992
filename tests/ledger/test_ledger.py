"""The history asks Orthanc's index for little at a time."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.core.transfer_record import PUSH, SEND, StudyText, TransferRecord, TransferState
from orthanc_transfers.ledger.ledger import Ledger
from orthanc_transfers.ledger.texts import Texts
from tests.receiver.memory_receiver import TestClock, running_receiver
from tests.support.waiting import wait_until

COUNT = 20


class Archive:
    """An index that walks through 100,000 instances at each question: time passes at no other moment."""

    def __init__(self, clock: TestClock) -> None:
        self._clock = clock
        self.asked = 0

    def text(self, resource: Resource) -> StudyText:
        self.asked += 1
        self._clock.seconds += 0.12
        return StudyText("1", "Ann", resource.id)


def ended(number: int) -> TransferRecord:
    return TransferRecord(
        id=f"{number:08x}",
        direction=SEND,
        mode=PUSH,
        state=TransferState.SUCCESS,
        resources=[{"Level": "Study", "ID": f"{number:08x}-1-2-3-4"}],
        created=1.0,
        ended=2.0 + number,
    )


@contextmanager
def kept_history(folder: Path) -> Iterator[tuple[Ledger, Archive, TestClock]]:
    """A history, and the index that it asks."""
    with running_receiver(folder / "staging") as receiver:
        clock = receiver.clock
        archive = Archive(clock)
        texts = Texts(archive, clock)
        history = folder / "history"
        ledger = Ledger(lambda: history, receiver.registry, receiver.reports, texts, clock, retention_days=30)
        try:
            yield ledger, archive, clock
        finally:
            ledger.close()


def test_what_waits_for_its_text_takes_little_memory(tmp_path: Path) -> None:
    with kept_history(tmp_path) as (ledger, _, _):
        for number in range(200):
            ledger.ended(ended(number))
        gc.collect()
        tracemalloc.start()
        try:
            ledger.find(TransferQuery(), 1, 0)  # writes them down
            gc.collect()
            # Some 250 bytes each, where the whole of what is shown takes 2 KB; and what the call itself leaves.
            assert tracemalloc.get_traced_memory()[0] < 200 * 700
        finally:
            tracemalloc.stop()


def test_questions_that_take_long_are_asked_rarely_and_what_ends_is_written_meanwhile(tmp_path: Path) -> None:
    with kept_history(tmp_path) as (ledger, archive, clock):
        for number in range(COUNT):
            ledger.ended(ended(number))
        ledger.start()
        for asked in (1, 2, 3):
            wait_until(lambda asked=asked: archive.asked == asked, "a text is asked for", every=0.01)
            ledger.ended(ended(COUNT + asked))
            found = ledger.find(TransferQuery(), 100, 0)
            assert found.total == COUNT + asked
            # Ten times what the question took.
            clock.seconds += 1.0
            assert archive.asked == asked
            clock.seconds += 0.1
