"""The page's view of rules in Chromium: added, refused, run, looked at, changed, removed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.transfers_page import TransfersPage
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.page_build import npm
from tests.support.rules import STABLE, remove_rules, set_rule, study, wait_ended

pytestmark = [pytest.mark.orthanc, pytest.mark.browser]

RULE = {"Name": "night", "Trigger": "Manual", "Destinations": ["b"]}
TEXT = "[data-testid=rule-form] textarea"


@dataclass(frozen=True)
class Hospital:
    """``a`` may send to ``b``; another peer of it is not there."""

    a: OrthancServer
    b: OrthancServer


@pytest.fixture(scope="module")
def hospital(make_shared_server: MakeServer) -> Hospital:
    a, b = make_shared_server("a", configuration=STABLE), make_shared_server("b")
    pair(a, b)
    start_together(a, b)
    return Hospital(a, b)


@pytest.fixture
def page(driver: WebDriver, hospital: Hospital) -> TransfersPage:
    remove_rules(hospital.a)
    hospital.a.clear()
    hospital.b.clear()
    page = TransfersPage(driver, hospital.a.url)
    page.resize(1300, 900)
    page.complaints()  # those of the test before
    return page


def write(page: TransfersPage, rule: Any) -> None:
    page.fill(TEXT, rule if isinstance(rule, str) else json.dumps(rule))
    page.click("[data-testid=rule-save]")


def test_a_rule_is_added_run_changed_and_removed(page: TransfersPage, hospital: Hospital) -> None:
    a, b = hospital.a, hospital.b
    arrived = study(a)
    page.open("rules")
    page.find("[data-testid=rule-none]")
    page.click("[data-testid=rule-add]")
    page.find("[data-testid=rule-form]")
    # What the server says of a rule that cannot work, and of what is no JSON, is said in the form.
    write(page, "{")
    page.shows("not JSON", "[data-testid=rule-failure]")
    write(page, {**RULE, "Trigger": "StableStudie"})
    page.shows('"Trigger" must be one of', "[data-testid=rule-failure]")
    write(page, RULE)
    page.find("[data-rule=night] [data-state=Success]")
    assert a.get("transfers/rules/night")["Rule"] == RULE

    page.click("[data-rule=night] [data-testid=rule-dry]")
    page.shows(arrived, "[data-rule=night] [data-testid=rule-dry-result]")
    assert b.get("studies") == []
    page.click("[data-rule=night] [data-testid=rule-run]")
    wait_ended(a, arrived)
    page.wait(lambda: page.text("[data-rule=night] [data-testid=rule-done]") == "1", "one is done")
    page.select("[data-testid=queue-past]", "true")
    page.find(f"[data-testid=entry][data-resource='{arrived}'][data-state=Done]")
    page.shows("Phantom", "[data-testid=entry] .name")

    page.click("[data-rule=night] [data-testid=rule-toggle]")
    page.find("[data-rule=night] [data-state=Paused]")
    page.click("[data-rule=night] [data-testid=rule-change]")
    write(page, {**RULE, "Destinations": ["nowhere"]})
    page.shows("which is no peer", "[data-rule=night] [data-testid=rule-problem]")
    page.click("[data-rule=night] [data-testid=rule-remove]")
    page.click("[data-testid=confirm-yes]")
    page.find("[data-testid=rule-none]")
    assert a.get("transfers/rules")["Rules"] == []
    # Of the two that were refused, the browser tells.
    assert all("400" in one for one in page.complaints())


def test_a_mirror_shows_its_differences_and_compares(page: TransfersPage, hospital: Hospital) -> None:
    a, b = hospital.a, hospital.b
    arrived = study(a)
    set_rule(a, "mirror", Trigger="Manual", Compare={"At": "02:00"})
    page.open("rules")
    page.click("[data-rule=mirror] [data-testid=rule-dry-compare]")
    page.shows(arrived, "[data-rule=mirror] [data-testid=rule-dry-result]")
    assert b.get("studies") == []
    page.click("[data-rule=mirror] [data-testid=rule-compare]")
    wait_ended(a, arrived)
    page.shows("1 queued", "[data-rule=mirror] [data-testid=rule-comparison]")
    assert b.get("studies") == [arrived]
    assert page.complaints() == []


@pytest.mark.skipif(npm() is None, reason="axe comes with npm, which is not here (scripts/setup.sh test)")
@pytest.mark.parametrize(("theme", "width"), [("light", 1300), ("dark", 420)])
def test_the_rules_keep_nobody_out(page: TransfersPage, hospital: Hospital, theme: str, width: int) -> None:
    a = hospital.a
    sent, waiting = study(a), study(a)
    set_rule(a, "archive", Trigger="Manual")
    a.post("transfers/rules/archive/run", {"Resources": [{"Level": "Study", "ID": sent}]})
    wait_ended(a, sent)
    set_rule(a, "mirror", Trigger="Manual", Compare={"At": "02:00"})
    set_rule(a, "to-nobody", to="nobody")
    closed = [
        {"Days": "Mon-Sun", "From": "00:00", "To": "00:01"},
        {"Days": "Mon", "From": "03:00", "To": "03:01"},
    ]
    set_rule(a, "night", Trigger="Manual", Window=closed)
    a.post("transfers/rules/night/run", {"Resources": [{"Level": "Study", "ID": waiting}]})
    page.resize(width, 900)
    page.open("rules")
    page.select("header select:last-of-type", theme)

    def check(name: str) -> None:
        assert page.barriers() == [], name
        page.screenshot(f"page-{name}-{theme}-{width}")
        wide = page.driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is wider than its window"

    page.find("[data-rule=to-nobody] [data-state=Failure]")
    page.click("[data-rule=mirror] [data-testid=rule-dry-compare]")
    page.find("[data-rule=mirror] [data-testid=rule-dry-result] li")
    check("rules")
    page.find("[data-testid=queue-past]")
    page.select("[data-testid=queue-past]", "true")
    page.find("[data-testid=entry][data-state=Done]")
    page.driver.execute_script("document.querySelector('[data-testid=entry]').scrollIntoView()")
    check("rules-history")
    page.click("[data-testid=rule-add]")
    page.find("[data-testid=rule-form]")
    check("rule-form")
    page.click("[data-testid=rule-cancel]")
    page.open()
    page.select("header select:last-of-type", "auto")
