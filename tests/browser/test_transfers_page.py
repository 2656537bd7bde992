"""The page ``/transfers/app/`` in Chromium, on real Orthancs."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.prefix_proxy import PrefixProxy
from tests.browser.transfers_page import TransfersPage
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.page_build import npm
from tests.support.ports import free_port
from tests.support.raw_push import RawPush
from tests.support.times import orthanc_moment
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

VIEWS = ("transfers", "send", "fetch", "peers", "rules", "settings")
EVIL = "<b><script>document.body.remove()</script>"


@dataclass(frozen=True)
class Hospital:
    """Orthanc ``a``, which sends at 4 MB/s at most, with ten small studies and a large one; its peers.

    ``b`` is empty; no server listens at ``down``.
    """

    a: OrthancServer
    b: OrthancServer
    small: list[str]
    large: str


@pytest.fixture(scope="module")
def hospital(make_shared_server: MakeServer) -> Hospital:
    a, b = make_shared_server("a"), make_shared_server("b")
    a.configuration["Transfers"] = {"MaxPeerBandwidth": 32}
    a.add_peer("b", b)
    a.configuration["OrthancPeers"]["down"] = {"Url": f"http://127.0.0.1:{free_port()}/"}
    start_together(a, b)
    small = [
        a.upload_all(ct_study(2, size=64, name=f"Small^Number {n}"))[0]["ParentStudy"] for n in range(10)
    ]
    large = a.upload_all(ct_study(60, series=3, name="Large^Study"))[0]["ParentStudy"]
    return Hospital(a, b, small, large)


@pytest.fixture
def page(driver: WebDriver, hospital: Hospital) -> TransfersPage:
    """The page of ``a``, in English; nothing is stored on ``b``."""
    hospital.b.clear()
    page = TransfersPage(driver, hospital.a.url)
    page.resize(1300, 900)
    page.complaints()  # those of the test before
    return page


def test_ten_studies_are_found_chosen_and_sent(page: TransfersPage, hospital: Hospital) -> None:
    page.open("send")
    page.fill("#s-name", "small")
    page.click("form.filters button")
    page.wait(lambda: len(page.all("tr[data-study]")) == 10, "the ten studies")
    page.click("thead input")
    page.select("#s-to", "b")
    page.screenshot("page-send")
    page.click("[data-testid=start]")
    page.transfer("Success")
    assert set(hospital.b.get("studies")) == set(hospital.small)
    assert page.complaints() == []


def test_a_transfer_is_watched_paused_resumed_and_its_report_downloaded(
    page: TransfersPage, hospital: Hospital, downloads: Path
) -> None:
    page.open("send")
    page.click(f"tr[data-study='{hospital.large}'] input")
    page.select("#s-to", "b")
    page.select("#s-compression", "none")
    page.click("[data-testid=start]")
    transfer = page.transfer("Running")
    page.wait(lambda: 0 < page.progress(transfer) < 100, "the bar between its ends")
    seen = page.progress(transfer)
    page.wait(lambda: page.progress(transfer) > seen, "the bar moves")
    page.screenshot("page-transfers")
    page.click(f"tr[data-transfer='{transfer}'] [data-action=pause]")
    page.transfer("Paused")
    assert hospital.a.job(transfer)["State"] == "Paused"
    page.click(f"tr[data-transfer='{transfer}'] [data-action=resume]")
    page.transfer("Success")
    assert len(hospital.b.instances()) == 60

    page.click(f"tr[data-transfer='{transfer}'] a.name")
    page.wait(lambda: len(page.all("[data-testid=report] tbody tr")) == 60, "an instance in each row")
    page.screenshot("page-transfer")
    page.click("[data-testid=report-json]")
    file = downloads / f"report-{transfer}.json"
    wait_until(file.exists, "the report is downloaded")
    report = json.loads(file.read_text())
    assert {one["Outcome"] for one in report["Instances"]} == {"stored"}
    page.click("[data-testid=report-csv]")
    file = downloads / f"report-{transfer}.csv"
    wait_until(file.exists, "the report as CSV")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["Instance"] for row in rows] == [one["ID"] for one in report["Instances"]]
    assert page.complaints() == []


def test_several_transfers_are_paused_ranked_and_canceled_at_once(
    page: TransfersPage, hospital: Hospital
) -> None:
    jobs = {
        hospital.a.send([resource("Study", hospital.large)], "b", Compression="none")["ID"] for _ in "123"
    }
    with PrefixProxy(hospital.a.url) as proxy:
        below = TransfersPage(page.driver, proxy.url)
        below.open()
        for job in jobs:
            below.click(f"tr[data-transfer='{job}'] input")
        below.click(".chosen-bar [data-action=pause]")
        below.wait(lambda: below.states()[:3] == ["Paused"] * 3, "all three are paused")
        below.fill("[data-testid=priority]", "7")
        below.click(".chosen-bar [data-action=priority]")
        # Each is another job now, in Orthanc, and still chosen.
        below.wait(lambda: not {one["ID"] for one in active(hospital.a)} & jobs, "the new jobs")
        below.wait(lambda: below.states()[:3] == ["Paused"] * 3, "they are paused, too")
        assert [one["Priority"] for one in active(hospital.a)] == [7, 7, 7]
        below.shows("3 chosen", ".chosen-bar")
        below.open(f"transfers/{active(hospital.a)[0]['ID']}")
        below.fill("[data-testid=priority]", "9")
        below.click("[data-action=priority]")
        below.wait(lambda: 9 in [one["Priority"] for one in active(hospital.a)], "one more")
        (first,) = (one["ID"] for one in active(hospital.a) if one["Priority"] == 9)
        below.wait(lambda: first in below.driver.current_url, "the page follows the job")
        below.open()
        for one in active(hospital.a):
            below.click(f"tr[data-transfer='{one['ID']}'] input")
        below.click(".chosen-bar [data-action=cancel]")
        below.wait(lambda: below.states()[:3] == ["Canceled"] * 3, "all three are canceled")
        steered = [path for method, path in proxy.asked if method != "GET"]
        assert set(steered) == {"transfers/actions"}
    assert page.complaints() == []


def active(server: OrthancServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(
        "transfers/status", params={"state": "Running,Pending,Waiting,Paused"}
    )["Transfers"]
    return found


def test_a_transfer_that_waits_for_a_dead_peer_says_so_and_is_canceled(
    page: TransfersPage, hospital: Hospital
) -> None:
    hospital.a.send([resource("Study", hospital.small[0])], "down")
    page.open()
    transfer = page.transfer("Waiting")
    page.shows("peer 'down' cannot be reached", f"tr[data-transfer='{transfer}'] .wait")
    page.click(f"tr[data-transfer='{transfer}'] input")
    page.click(".chosen-bar [data-action=cancel]")
    page.wait(lambda: page.seen(f"tr[data-transfer='{transfer}'] [data-state=Canceled]"), "it is canceled")


def test_a_study_is_fetched_from_a_peer_and_then_known_to_be_here(
    page: TransfersPage, hospital: Hospital
) -> None:
    study = hospital.b.upload_all(ct_study(4, size=64, series=2, name="Remote^Study"))[0]["ParentStudy"]
    page.open("fetch")
    page.select("#s-peer", "b")
    page.click("form.filters button")
    row = f"tr[data-study='{study}']"
    page.find(f"{row} [data-local=none]")
    page.click(f"{row} input")
    page.click("[data-testid=start]")
    page.transfer("Success")
    assert len(hospital.a.get(f"studies/{study}/instances")) == 4

    page.open("fetch")
    page.select("#s-peer", "b")
    page.click("form.filters button")
    page.find(f"{row} [data-local=whole]")
    page.screenshot("page-fetch")


def test_a_push_is_seen_at_its_receiver_with_the_name_of_its_sender(
    page: TransfersPage, hospital: Hospital
) -> None:
    # A push whose sender was told to stop before it knew of it is there for a while.
    before = {one["ID"] for one in active(hospital.b)}
    job = hospital.a.send([resource("Study", hospital.large)], "b", Compression="none")["ID"]
    there = TransfersPage(page.driver, hospital.b.url)
    there.open()
    (push,) = wait_until(lambda: {one["ID"] for one in active(hospital.b)} - before, "the push")
    row = f"tr[data-transfer='{push}']"
    there.find(f"{row} [data-state=Running]")
    there.shows("a", f"{row} .peer")
    there.wait(lambda: there.progress(push) > 0, "its bytes")
    assert there.all(f"{row} [data-action]") == [], "it is steered at its sender"
    there.find(f"{row} [data-state=Success]")
    there.click(f"{row} a.name")
    there.wait(lambda: len(there.all("[data-testid=report] tbody tr")) == 60, "its report")
    hospital.a.wait_for_job(job)

    stranger = RawPush(hospital.b, 2, list(small_instances(1)))
    headers = {"X-Real-IP": "192.0.2.1"}
    body = {**stranger.creation(), "SenderName": EVIL}
    stranger.path = hospital.b.post("transfers/v2/push", body, headers=headers)["Path"]
    there.open()
    (evil,) = (one["ID"] for one in active(hospital.b) if one["Peer"] == EVIL)
    there.shows(EVIL, f"tr[data-transfer='{evil}'] .peer")
    there.shows("192.0.2.1", f"tr[data-transfer='{evil}']")
    stranger.drop()
    assert there.complaints() == []


def test_what_others_write_is_shown_as_text(page: TransfersPage, hospital: Hospital) -> None:
    study = hospital.a.upload_all(ct_study(1, size=64, name=EVIL))[0]["ParentStudy"]
    hospital.a.wait_for_job(hospital.a.send([resource("Study", study)], "b")["ID"])
    page.open()
    transfer = page.transfer("Success")
    page.shows("<b><script>", f"tr[data-transfer='{transfer}'] .name")
    page.open(f"transfers/{transfer}")
    page.shows("<b><script>", "h1")
    page.open("send")
    page.shows("<b><script>", f"tr[data-study='{study}'] .name")
    assert page.complaints() == []
    hospital.a.delete(f"studies/{study}")


@pytest.mark.skipif(npm() is None, reason="axe comes with npm, which is not here (scripts/setup.sh test)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_view_keeps_anybody_out(page: TransfersPage, hospital: Hospital, theme: str) -> None:
    hospital.a.wait_for_job(hospital.a.send([resource("Study", hospital.small[1])], "b")["ID"])
    page.open()
    page.select("header select:last-of-type", theme)
    for view in VIEWS:
        page.open(view)
        page.find("main .panel .head, main .filters")
        assert page.barriers() == [], view
        page.screenshot(f"page-{view}-{theme}")
    page.resize(420, 900)
    page.open()
    page.find("tr[data-transfer]")
    wide = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than a telephone"
    assert page.barriers() == []
    page.screenshot(f"page-narrow-{theme}")


def test_below_a_prefix_nothing_else_is_asked_for_and_the_token_goes_along(
    page: TransfersPage, hospital: Hospital
) -> None:
    with PrefixProxy(hospital.a.url) as proxy:
        below = TransfersPage(page.driver, proxy.url)
        below.open("transfers", "?token=abc.123")
        below.find("tr[data-transfer]")
        asked = [token for token in proxy.tokens if token is not None]
        assert asked
        assert set(asked) == {"abc.123"}
        # Without the final slash, too, as Orthanc itself takes it.
        below.driver.get(f"{proxy.url}transfers/app#/peers")
        below.find("[data-peer=b] [data-state=installed]")
        assert [one for one in proxy.strays if one != "/favicon.ico"] == []
    assert below.complaints() == []


def test_the_link_to_a_peer_is_measured(page: TransfersPage, hospital: Hospital) -> None:
    page.open("peers")
    page.click("[data-peer=b] button")
    page.shows("MB/s", "[data-peer=b] [data-testid=measured]")
    page.shows("connection refused", "[data-peer=down] .problem")


def test_the_languages_are_chosen_and_kept(page: TransfersPage) -> None:
    page.open()
    for language, word in (("de", "Gegenstellen"), ("fr", "Pairs"), ("en", "Peers")):
        page.select("header select:first-of-type", language)
        page.open()
        assert page.text("nav a[href='#/peers']") == word
        assert page.driver.execute_script("return document.documentElement.lang") == language


def test_a_timetable_is_written_on_the_page_and_obeyed(page: TransfersPage, hospital: Hospital) -> None:
    page.open("settings")
    page.click("[data-testid=rule-add]")
    for day in (6, 7):
        page.click(f"[data-testid=rule] label:nth-of-type({day}) input")
    page.fill("[data-testid=rule] input[type=time]:nth-of-type(1)", "00:00")
    page.fill("[data-testid=rule] input[type=time]:nth-of-type(2)", "00:00")
    page.fill("[data-testid=rule] input[type=number]", "700")
    page.screenshot("page-settings")
    page.click("[data-testid=save]")
    page.shows("700", "[data-testid=now]")
    job = hospital.a.send([resource("Study", hospital.large)], "b", Compression="none")["ID"]
    page.open()
    page.transfer("Running")
    page.shows("KB/s", f"tr[data-transfer='{job}']")

    def status() -> dict[str, Any]:
        found: dict[str, Any] = hospital.a.get("transfers/status", params={"id": job})
        return found

    shown = wait_until(
        lambda: (now := status())["Transfers"][0]["WireBytes"] > 1_000_000 and now, "1 MB is sent"
    )
    (sent,) = shown["Transfers"]
    took = (orthanc_moment(shown["Now"]) - orthanc_moment(sent["Started"])).total_seconds()
    # A slow machine takes longer, none takes less.
    assert took > 0.8 * sent["WireBytes"] / (700 * 1024)
    hospital.a.post(f"jobs/{job}/cancel")
    page.open("settings")
    page.click("[data-testid=rule] .tool")
    page.click("[data-testid=save]")
    page.shows("no limit", "[data-testid=now]")
    assert page.complaints() == []
