"""The page's forms in Chromium: peers, limits on bandwidth; all by keyboard, and none that keeps anybody out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.keys import Keys

from tests.browser.transfers_page import TransfersPage
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.page_build import npm
from tests.support.times import orthanc_moment
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

EVIL = "<img src=x onerror=document.body.remove()>"


@dataclass(frozen=True)
class Hospital:
    """``a`` keeps its peers in its database; ``b``, the only one at first, has an odd name and asks for none."""

    a: OrthancServer
    b: OrthancServer
    study: str


@pytest.fixture(scope="module")
def hospital(make_shared_server: MakeServer) -> Hospital:
    a = make_shared_server("a", configuration={"OrthancPeersInDatabase": True})
    b = make_shared_server("b", configuration={"Name": EVIL})
    start_together(a, b)
    study = a.upload_all(ct_study(4, series=2, name="Doe^Keyboard"))[0]["ParentStudy"]
    return Hospital(a, b, study)


@pytest.fixture
def page(driver: WebDriver, hospital: Hospital) -> TransfersPage:
    """The page of ``a``, whose only peer is ``b``, which is empty."""
    for name in hospital.a.get("peers"):
        hospital.a.delete(f"peers/{name}")
    hospital.a.put("peers/b", {"Url": hospital.b.url})
    hospital.b.clear()
    page = TransfersPage(driver, hospital.a.url)
    page.resize(1300, 900)
    page.complaints()  # those of the test before
    return page


def peer(server: OrthancServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = server.get("peers?expand").get(name, {})
    return found


def test_a_peer_is_added_changed_and_removed(page: TransfersPage, hospital: Hospital) -> None:
    page.open("peers")
    page.click("[data-testid=peer-add]")
    page.fill("#p-name", "new")
    page.fill("#p-url", hospital.b.url)
    page.fill("#p-user", "alice")
    page.fill("#p-password", "secret")
    page.click("[data-testid=peer-save]")
    page.find("[data-peer=new] [data-state=installed]")
    page.shows(EVIL, "[data-peer=new]")
    assert (peer(hospital.a, "new")["Url"], peer(hospital.a, "new")["Username"]) == (hospital.b.url, "alice")

    # What the form does not show stays.
    hospital.a.put(
        "peers/new", {"Url": hospital.b.url, "Username": "alice", "Password": "x", "Timeout": 42, "Ward": "7"}
    )
    page.open("peers")
    page.click("[data-peer=new] [data-testid=peer-change]")
    page.find("[data-testid=peer-form] #p-url")
    page.wait(lambda: page.find("#p-user").get_attribute("value") == "alice", "the form is filled")
    page.fill("#p-self", "a")
    page.fill("#p-password", "y")
    page.click("[data-testid=peer-save]")
    page.find("[data-peer=new] [data-state=bidirectional]")
    known = peer(hospital.a, "new")
    assert (known["RemoteSelf"], known["Timeout"], known["Ward"]) == ("a", 42, "7")

    page.click("[data-peer=new] [data-testid=peer-remove]")
    page.shows("Remove the peer new?", "[data-testid=confirm]")
    page.key(Keys.ESCAPE)
    page.wait(lambda: not page.seen("[data-testid=confirm]"), "nothing is removed")
    page.click("[data-peer=new] [data-testid=peer-remove]")
    page.click("[data-testid=confirm-yes]")
    page.wait(lambda: not page.all("[data-peer=new]"), "it is gone")
    assert hospital.a.get("peers") == ["b"]
    assert page.complaints() == []


def test_a_peer_that_cannot_be_saved_keeps_the_form_open_and_says_why(
    page: TransfersPage, hospital: Hospital
) -> None:
    page.open("peers")
    page.click("[data-testid=peer-add]")
    for name, url in (
        ("<script>", "http://x/"),
        ("no spaces", "http://x/"),
        ("x", "javascript:alert(1)"),
        ("x", "ftp://x/"),
    ):
        page.fill("#p-name", name)
        page.fill("#p-url", url)
        page.click("[data-testid=peer-save]")
        assert page.seen("[data-testid=peer-form]")
    assert hospital.a.get("peers") == ["b"]
    page.click("[data-testid=peer-cancel]")
    # What the form cannot show would be lost.
    hospital.a.put("peers/b", {"Url": hospital.b.url, "HttpHeaders": {"X-Key": "secret"}})
    page.click("[data-peer=b] [data-testid=peer-change]")
    page.shows("HttpHeaders", "[data-testid=peer-form]")
    assert not page.find("[data-testid=peer-save]").is_enabled()


def test_where_peers_come_from_the_configuration_the_page_says_so(
    page: TransfersPage, hospital: Hospital
) -> None:
    there = TransfersPage(page.driver, hospital.b.url)
    there.open("peers")
    there.shows("OrthancPeersInDatabase", "[data-testid=peer-fixed]")
    assert there.all("[data-testid=peer-add]") == []


def test_a_study_is_sent_by_keyboard_alone_and_is_the_last_transfer_of_the_peer(
    page: TransfersPage, hospital: Hospital
) -> None:
    page.open("peers")
    page.tab_to("nav a[href='#/send']")
    page.key(Keys.ENTER)
    page.find("nav a[href='#/send'][aria-current=page]")
    page.tab_to("#s-name")
    page.key("keyboard", Keys.ENTER)
    row = f"tr[data-study='{hospital.study}']"
    page.find(row)
    page.tab_to(f"{row} button")
    page.key(Keys.ENTER)
    page.find("tr[data-series]")
    page.tab_to(f"{row} input", back=True)
    page.key(Keys.SPACE)
    page.tab_to("#s-to", back=True)
    page.key("b")
    page.tab_to("[data-testid=start]")
    page.key(Keys.ENTER)
    transfer = page.transfer("Success")
    assert hospital.b.get("studies") == [hospital.study]
    page.tab_to(f"tr[data-transfer='{transfer}'] a.name")
    page.key(Keys.ENTER)
    page.find("[data-testid=report] tbody tr")
    page.tab_to("[data-testid=report-csv]")
    page.tab_to("nav a[href='#/peers']", back=True)
    page.key(Keys.ENTER)
    page.shows("Doe, Keyboard", "[data-peer=b] [data-testid=last]")
    page.tab_to("[data-testid=peer-add]")
    page.key(Keys.ENTER)
    page.find("[data-testid=peer-form]")
    page.key(Keys.ESCAPE)
    page.wait(lambda: not page.seen("[data-testid=peer-form]"), "the form is closed")
    assert page.focused("[data-testid=peer-add]"), "where the keyboard was before"
    assert page.complaints() == []


@pytest.mark.skipif(npm() is None, reason="axe comes with npm, which is not here (scripts/setup.sh test)")
@pytest.mark.parametrize(("theme", "width"), [("light", 1300), ("dark", 420)])
def test_no_form_keeps_anybody_out(page: TransfersPage, hospital: Hospital, theme: str, width: int) -> None:
    hospital.a.wait_for_job(hospital.a.send([resource("Study", hospital.study)], "b")["ID"])
    page.resize(width, 900)
    page.open()
    page.select("header select:last-of-type", theme)

    def check(name: str) -> None:
        assert page.barriers() == [], name
        page.screenshot(f"page-{name}-{theme}-{width}")
        wide = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is wider than its window"

    page.open("send")
    page.click(f"tr[data-study='{hospital.study}'] input")
    page.click(f"tr[data-study='{hospital.study}'] button")
    page.find("tr[data-series]")
    check("send-chosen")
    page.open()
    page.click("tr[data-transfer] input")
    check("transfers-chosen")
    page.click("tr[data-transfer] a.name")
    page.find("[data-testid=report] tbody tr")
    check("report")
    page.open("peers")
    page.find("[data-peer=b] [data-state=installed]")
    check("peers")
    page.click("[data-testid=peer-add]")
    page.find("[data-testid=peer-form]")
    check("peer-form")
    page.click("[data-testid=peer-cancel]")
    page.click("[data-peer=b] [data-testid=peer-remove]")
    page.find("[data-testid=confirm]")
    check("confirm")
    page.open("settings")
    page.click("[data-testid=rule-add]")
    page.click("[data-testid=peer-limit-add]")
    check("settings-rows")
    page.open()
    page.select("header select:last-of-type", "auto")


def test_the_limit_of_a_peer_is_set_on_the_page_and_obeyed(page: TransfersPage, hospital: Hospital) -> None:
    page.open("settings")
    page.click("[data-testid=peer-limit-add]")
    page.select("[data-testid=peer-limit] select", "b")
    page.fill("[data-testid=peer-limit] input", "500")
    page.click("[data-testid=save]")
    wait_until(
        lambda: hospital.a.get("transfers/settings")["Bandwidth"]["Peers"] == {"b": 500}, "it is in force"
    )
    job = hospital.a.send([resource("Study", hospital.study)], "b", Compression="none")["ID"]
    hospital.a.wait_for_job(job)
    (sent,) = hospital.a.get("transfers/status", params={"id": job})["Transfers"]
    took = (orthanc_moment(sent["Ended"]) - orthanc_moment(sent["Started"])).total_seconds()
    # A slow machine takes longer, none takes less.
    assert sent["WireBytes"] > 2_000_000
    assert took > 0.8 * sent["WireBytes"] / (500 * 1024)
    page.click("[data-testid=peer-limit] button")
    page.click("[data-testid=save]")
    wait_until(lambda: hospital.a.get("transfers/settings")["Bandwidth"]["Peers"] == {}, "it is lifted")
    assert page.complaints() == []
