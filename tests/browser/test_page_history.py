"""The page with ten thousand past transfers, in Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

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
from tests.browser.transfers_page import TransfersPage
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

PAST = 10_000


def past_transfers() -> Iterator[PastTransfer]:
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


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> OrthancServer:
    server = make_shared_server("old")
    index = PastTransfers(lambda: server.storage / "Transfers" / "history" / "transfers.sqlite")
    index.open()
    index.write(past_transfers())
    index.close()
    return server.start()


def test_ten_thousand_past_transfers_are_paged_and_searched(driver: WebDriver, server: OrthancServer) -> None:
    page = TransfersPage(driver, server.url)
    page.resize(1300, 900)
    page.complaints()  # those of the test before
    page.open()

    def first() -> str | None:
        return page.find("tr[data-transfer]").get_attribute("data-transfer")

    page.shows("1–25 of 10,000", ".foot")
    assert len(page.all("tr[data-transfer]")) == 25
    assert first() == "00000000-0000"
    page.click("[data-testid=older]")
    page.wait(lambda: first() == f"{25:08x}-0000", "the second page")
    page.click("[data-testid=oldest]")
    page.wait(lambda: first() == f"{PAST - 25:08x}-0000", "the last page")
    page.shows("9,976–10,000 of 10,000", ".foot")
    page.click("[data-testid=newest]")
    page.wait(lambda: first() == "00000000-0000", "the first page")
    page.fill("#f-text", "number 9999")
    page.wait(
        lambda: (
            [one.get_attribute("data-transfer") for one in page.all("tr[data-transfer]")]
            == [f"{9999:08x}-0000"]
        ),
        "the one",
    )
    page.fill("#f-text", "no space")
    page.shows("1–25 of 1,000", ".foot")
    page.select("#f-direction", "receive")
    page.shows("1–25 of 500", ".foot")
    page.screenshot("page-history")
    assert page.complaints() == []
