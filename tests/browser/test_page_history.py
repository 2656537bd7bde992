"""The page with ten thousand past transfers, in Chromium."""

from __future__ import annotations

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.transfers_page import TransfersPage
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.past_rows import PAST, keep_past_transfers

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> OrthancServer:
    server = make_shared_server("old")
    keep_past_transfers(server)
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
