"""Made-up past transfers, as many as after years."""

from __future__ import annotations

import time
from collections.abc import Iterator

from orthanc_transfers.core.transfer_record import (
    PUSH,
    RECEIVE,
    SEND,
    StudyText,
    TransferRecord,
    TransferState,
)
from orthanc_transfers.ledger.past_transfers import PastTransfer, PastTransfers
from orthanc_transfers.ledger.shown import record_to_json, text_to_json
from tests.support.orthanc_server import OrthancServer

PAST = 10_000


def _rows() -> Iterator[PastTransfer]:
    now = time.time()
    for number in range(PAST):
        failed = number % 10 == 0
        record = TransferRecord(
            id=f"{number:08x}-0000",
            direction=RECEIVE if number % 4 == 0 else SEND,
            mode=PUSH,
            peer=f"peer-{number % 7}",
            state=TransferState.FAILURE if failed else TransferState.SUCCESS,
            resources=[{"Level": "Study", "ID": "-".join([f"{number:08x}"] * 5)}],
            resources_count=1,
            instances=100,
            done_instances=100,
            size=50_000_000,
            done_size=50_000_000,
            wire_size=20_000_000,
            error="peer 'b' refused instance 7: no space" if failed else None,
            ended=now - number,
        )
        text = StudyText(f"P{number}", f"Doe^Number {number}", "study", "Thorax", "20260101", "CT")
        shown = {**record_to_json(record), **text_to_json(text), "Report": False}
        yield PastTransfer(record.id, now - number, shown)


def keep_past_transfers(server: OrthancServer) -> None:
    """Into the list of a server that is not started yet: the newest has the identifier 00000000-0000."""
    index = PastTransfers(lambda: server.storage / "Transfers" / "history" / "transfers.sqlite")
    index.open()
    index.write(_rows())
    index.close()
