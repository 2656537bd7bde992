"""The yellow button of Orthanc Explorer, in Chromium, between two real Orthancs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By

from tests.browser.orthanc_explorer import OrthancExplorer
from tests.browser.prefix_proxy import PrefixProxy
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import CONFIGS, OrthancServer, load_configuration
from tests.support.ports import free_port

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

GREYED = "not reachable, or without the transfers plugin"


@dataclass(frozen=True)
class Hospital:
    """Orthanc ``a`` with one patient of two studies of two series, and its peers.

    ``b`` is pushed to; ``b-pulls`` is the same Orthanc, which pulls; ``plain`` has no transfers plugin;
    no server listens at ``down``.
    """

    a: OrthancServer
    b: OrthancServer
    patient: str
    studies: list[str]
    series: str

    @property
    def resources(self) -> dict[str, str]:
        return {"patient": self.patient, "study": self.studies[0], "series": self.series}


@pytest.fixture(scope="module")
def hospital(make_shared_server: MakeServer) -> Hospital:
    a, b = make_shared_server("a"), make_shared_server("b")
    plain = make_shared_server("plain", script=None)
    a.add_peer("b", b)
    a.add_peer("B-pulls", b, RemoteSelf="a")
    a.add_peer("plain", plain)
    a.configuration["OrthancPeers"]["down"] = {"Url": f"http://127.0.0.1:{free_port()}/"}
    b.add_peer("a", a)
    for server in (a, b, plain):
        server.launch()
    for server in (a, b, plain):
        server.wait_until_ready()
    stored = [
        answer for _ in range(2) for answer in a.upload_all(ct_study(4, size=64, series=2, name="Doe^Jane"))
    ]
    studies = sorted({answer["ParentStudy"] for answer in stored})
    return Hospital(a, b, stored[0]["ParentPatient"], studies, a.get(f"studies/{studies[0]}")["Series"][0])


@pytest.fixture
def explorer(driver: WebDriver, hospital: Hospital) -> OrthancExplorer:
    """Orthanc Explorer of ``a``; nothing is stored on ``b``."""
    if not hospital.b.running:
        hospital.b.start()
    hospital.b.clear()
    return OrthancExplorer(driver, hospital.a.url)


@pytest.fixture
def proxy(hospital: Hospital) -> Iterator[PrefixProxy]:
    with PrefixProxy(hospital.a.url) as proxy:
        yield proxy


def transfers(server: OrthancServer) -> set[str]:
    """The jobs of this plugin that a server has."""
    jobs = server.get("jobs?expand")
    return {job["ID"] for job in jobs if job["Type"] in ("PushTransfer", "PullTransfer")}


@pytest.mark.parametrize("page", ["patient", "study", "series"])
def test_the_button_is_on_the_page_and_lists_the_peers_in_order(
    explorer: OrthancExplorer, hospital: Hospital, page: str
) -> None:
    explorer.open(page, hospital.resources[page])
    explorer.press()
    assert list(explorer.peers().items()) == [
        ("b", "clickable"),
        ("B-pulls", "clickable"),
        ("down", GREYED),
        ("plain", GREYED),
    ]


def test_a_link_below_the_button_leads_to_the_page_of_all_transfers(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    explorer.open("study", hospital.studies[0])
    explorer.driver.find_element(By.ID, "study-transfers-page").click()
    explorer.wait(
        lambda: explorer.driver.find_element(By.CSS_SELECTOR, "nav a[aria-current=page]"), "the page"
    )
    assert explorer.driver.current_url.startswith(f"{hospital.a.url}transfers/app/")


def test_there_is_no_button_on_the_page_of_an_instance(explorer: OrthancExplorer, hospital: Hospital) -> None:
    explorer.open("instance", hospital.a.get(f"series/{hospital.series}")["Instances"][0])
    assert explorer.buttons() == []


@pytest.mark.parametrize("page", ["patient", "study", "series"])
def test_a_click_on_a_peer_opens_the_page_of_the_job_that_brings_it_there(
    explorer: OrthancExplorer, hospital: Hospital, page: str
) -> None:
    explorer.open(page, hospital.resources[page])
    explorer.press()
    explorer.choose("b")
    job = hospital.a.wait_for_job(explorer.wait_for_job_page())
    assert (job["Type"], job["State"]) == ("PushTransfer", "Success")
    resource = {"patient": "patients", "study": "studies", "series": "series"}[page]
    assert hospital.b.md5s() == hospital.a.md5s(f"{resource}/{hospital.resources[page]}")


def test_a_peer_with_remote_self_pulls_and_a_link_leads_to_its_job(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    explorer.open("study", hospital.studies[0])
    explorer.press()
    explorer.choose("B-pulls")
    explorer.wait_for_message('The peer "B-pulls" now fetches')

    link = explorer.driver.find_element(By.ID, "transfers-remote-job")
    root, job = str(link.get_attribute("href")).split("app/explorer.html#job?uuid=")
    assert root == hospital.b.url
    link.click()
    explorer.driver.switch_to.window(explorer.driver.window_handles[-1])
    assert explorer.wait_for_job_page() == job

    done = hospital.b.wait_for_job(job)
    assert (done["Type"], done["State"]) == ("PullTransfer", "Success")
    assert hospital.b.md5s() == hospital.a.md5s(f"studies/{hospital.studies[0]}")


def test_a_peer_that_is_down_is_greyed_and_a_click_on_it_does_nothing(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    hospital.b.stop()
    before = transfers(hospital.a)
    explorer.open("study", hospital.studies[0])
    explorer.press()
    assert set(explorer.peers().values()) == {GREYED}
    listed = explorer.text()
    explorer.double_choose("b")
    assert explorer.text() == listed
    assert transfers(hospital.a) == before


def test_a_peer_that_became_unreachable_meanwhile_is_named_in_the_words_of_the_server(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    explorer.open("study", hospital.studies[0])
    explorer.press()
    hospital.b.stop()
    explorer.choose("B-pulls")
    said = explorer.wait_for_message('The transfer to the peer "B-pulls" could not be started: ')
    refused = hospital.a.request(
        "POST",
        "transfers/send",
        json={
            "Resources": [{"Level": "Study", "ID": hospital.studies[0]}],
            "Peer": "B-pulls",
            "Compression": "gzip",
        },
    ).json()
    assert said.endswith(refused.get("Details") or refused["Message"])
    explorer.close()


def test_a_double_click_starts_one_transfer(explorer: OrthancExplorer, hospital: Hospital) -> None:
    before = transfers(hospital.a)
    explorer.open("study", hospital.studies[0])
    explorer.double_press()
    assert len(explorer.dialogs()) == 1
    explorer.double_choose("b")
    job = explorer.wait_for_job_page()
    assert hospital.a.wait_for_job(job)["State"] == "Success"
    assert transfers(hospital.a) == before | {job}
    # The second click meets nothing on the page that has opened, such as the button that cancels the job.
    explorer.wait_for_page("job", job)


def test_after_a_walk_to_another_study_there_is_one_button_and_it_sends_that_study(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    first, second = hospital.studies
    explorer.open("study", first)
    explorer.press()
    explorer.close()
    explorer.follow("#study .patient-link", "patient", hospital.patient)
    assert len(explorer.buttons()) == 1
    explorer.follow(f'#list-studies a[href$="{second}"]', "study", second)
    explorer.press()
    explorer.choose("b")
    hospital.a.wait_for_job(explorer.wait_for_job_page())
    assert hospital.b.get("studies") == [second]


def test_the_dialog_does_not_outlive_the_page_of_its_study(
    explorer: OrthancExplorer, hospital: Hospital
) -> None:
    first, second = hospital.studies
    explorer.open("patient", hospital.patient)
    explorer.follow(f'#list-studies a[href$="{first}"]', "study", first)
    explorer.press()
    explorer.back("patient", hospital.patient)
    explorer.follow(f'#list-studies a[href$="{second}"]', "study", second)
    assert explorer.dialogs() == []
    assert len(explorer.buttons()) == 1


def test_a_closed_dialog_opens_again(explorer: OrthancExplorer, hospital: Hospital) -> None:
    explorer.open("study", hospital.studies[0])
    explorer.press()
    explorer.close()
    explorer.press()
    assert explorer.peers()


def test_without_any_peer_it_says_where_to_add_one(driver: WebDriver, make_server: MakeServer) -> None:
    with make_server("alone") as alone:
        stored = alone.upload(next(ct_study(1, size=64)))
        explorer = OrthancExplorer(driver, alone.url)
        explorer.open("study", stored["ParentStudy"])
        explorer.press()
        assert "No Orthanc peer is configured" in explorer.text()
        assert "OrthancPeers" in explorer.text()


def test_a_server_that_does_not_answer_is_said(driver: WebDriver, make_server: MakeServer) -> None:
    with make_server("alone") as alone:
        stored = alone.upload(next(ct_study(1, size=64)))
        explorer = OrthancExplorer(driver, alone.url)
        explorer.open("study", stored["ParentStudy"])
        alone.stop()
        explorer.press()
        assert explorer.text() == (
            "The list of the peers could not be read: this Orthanc server does not answer"
        )


def test_behind_a_reverse_proxy_with_a_prefix_everything_works(
    explorer: OrthancExplorer, hospital: Hospital, proxy: PrefixProxy
) -> None:
    explorer = OrthancExplorer(explorer.driver, proxy.url)
    explorer.open("study", hospital.studies[0])
    explorer.press()
    explorer.choose("b")
    hospital.a.wait_for_job(explorer.wait_for_job_page())
    assert explorer.driver.current_url.startswith(proxy.url)
    assert hospital.b.get("studies") == [hospital.studies[0]]
    assert not [path for path in proxy.strays if "transfers" in path]


@pytest.mark.parametrize("page", ["study", "series"])
def test_the_button_for_orthanc_explorer_2_leads_to_the_yellow_one(
    explorer: OrthancExplorer, hospital: Hospital, proxy: PrefixProxy, page: str
) -> None:
    options = load_configuration(CONFIGS / "orthanc-explorer-2.json")["OrthancExplorer2"]["UiOptions"]
    (button,) = options["CustomButtons"][page]
    identifier = hospital.resources[page]
    for root in (hospital.a.url, proxy.url):
        address = urljoin(root + "ui/app/", button["Url"].replace("{UUID}", identifier))
        explorer.visit(address, page, identifier)
        assert len(explorer.buttons()) == 1


def test_the_error_of_a_proxy_is_said_by_its_status(
    explorer: OrthancExplorer, hospital: Hospital, proxy: PrefixProxy
) -> None:
    proxy.answers["transfers/peers"] = (502, "<html>Bad gateway</html>")
    explorer = OrthancExplorer(explorer.driver, proxy.url)
    explorer.open("study", hospital.studies[0])
    explorer.press()
    assert explorer.text() == "The list of the peers could not be read: HTTP status 502 Bad Gateway"


def test_names_and_errors_are_text_and_never_html(
    explorer: OrthancExplorer, hospital: Hospital, proxy: PrefixProxy
) -> None:
    evil = "<img src=x onerror='window.evil = true'>"
    proxy.answers["transfers/peers"] = (200, json.dumps({"<b>x</b>": "installed", evil: "disabled"}))
    proxy.answers["transfers/send"] = (
        404,
        json.dumps({"Message": "Unknown resource", "Details": f"no {evil}"}),
    )
    explorer = OrthancExplorer(explorer.driver, proxy.url)
    explorer.open("study", hospital.studies[0])
    explorer.press()
    assert explorer.peers() == {"<b>x</b>": "clickable", evil: GREYED}
    explorer.choose("<b>x</b>")
    said = explorer.wait_for_message("could not be started")
    assert said == f'The transfer to the peer "<b>x</b>" could not be started: no {evil}'
    assert explorer.driver.execute_script("return window.evil") is None


def test_only_web_addresses_become_links(
    explorer: OrthancExplorer, hospital: Hospital, proxy: PrefixProxy
) -> None:
    proxy.answers["transfers/peers"] = (200, json.dumps({"b": "bidirectional"}))
    proxy.answers["transfers/send"] = (
        200,
        json.dumps({"Peer": "b", "RemoteJob": "42", "URL": "javascript:alert(1)//jobs/42"}),
    )
    explorer = OrthancExplorer(explorer.driver, proxy.url)
    explorer.open("study", hospital.studies[0])
    explorer.press()
    explorer.choose("b")
    assert "42" in explorer.wait_for_message('The peer "b" now fetches')
    assert explorer.driver.find_elements(By.CSS_SELECTOR, "#transfers-dialog a") == []
