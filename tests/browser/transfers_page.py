"""Page object of ``/transfers/app/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.browser.orthanc_explorer import ARTIFACTS
from tests.support.page_build import workshop

TIMEOUT = 60.0
MAX_TABS = 120
SERIOUS = ("serious", "critical")


class TransfersPage:
    """The page of the Orthanc whose root is ``url``; every step waits until the page shows its outcome."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        self.address = f"{url}transfers/app/"

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true answer. Raises selenium's ``TimeoutException`` with ``what``."""
        ignored = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05, ignored_exceptions=ignored)
        return waiting.until(lambda _: condition(), what)

    def find(self, selector: str) -> WebElement:
        """Once it can be seen."""
        found: WebElement = self.wait(lambda: self.seen(selector), selector)
        return found

    def seen(self, selector: str) -> WebElement | None:
        return next((one for one in self.all(selector) if one.is_displayed()), None)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Once it is there and is not moved away by what the page hears meanwhile."""

        def clicked() -> bool:
            element = self.seen(selector)
            if element is None or not element.is_enabled():
                return False
            self.driver.execute_script(
                "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
            )
            try:
                element.click()
            except ElementClickInterceptedException:
                return False
            return True

        self.wait(clicked, f"a click on {selector}")

    def fill(self, selector: str, text: str) -> None:
        """As a user would; by the browser itself for dates and times, whose typing depends on the language."""
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
            "arguments[0].dispatchEvent(new Event('change', {bubbles: true}));",
            self.find(selector),
            text,
        )

    def select(self, selector: str, value: str) -> None:
        self.wait(
            lambda: self.all(f"{selector} option[value='{value}']:not([disabled])"), f"{value} in {selector}"
        )
        Select(self.find(selector)).select_by_value(value)

    def open(self, view: str = "transfers", query: str = "") -> None:
        """Load a view from scratch."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}{query}#/{view}")
        self.find(f"nav a[href='#/{view.split('/')[0]}'][aria-current=page]")

    # -- By keyboard ----------------------------------------------------------------------------------

    def key(self, *keys: str) -> None:
        """Pressed where the keyboard is now."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self, selector: str) -> bool:
        """Whether the keyboard is there."""
        return bool(
            self.driver.execute_script("return document.activeElement.matches(arguments[0])", selector)
        )

    def tab_to(self, selector: str, *, back: bool = False) -> None:
        """Press Tab, or Shift and Tab, until the keyboard is there, which must be to be seen."""
        self.find(selector)
        for _ in range(MAX_TABS):
            pressed = ActionChains(self.driver)
            if back:
                pressed.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
            else:
                pressed.send_keys(Keys.TAB).perform()
            if self.focused(selector):
                return
        raise AssertionError(f"{selector} is not reached by {MAX_TABS} presses of Tab")

    # -- Transfers ----------------------------------------------------------------------------------

    def transfer(self, state: str, at: int = 0) -> str:
        """The identifier of the first transfer of the list, once it is in that state."""

        def found() -> str | None:
            rows = self.all("tr[data-transfer]")
            if len(rows) <= at or not rows[at].find_elements(By.CSS_SELECTOR, f"[data-state={state}]"):
                return None
            return rows[at].get_attribute("data-transfer")

        return str(self.wait(found, f"a transfer that is {state}"))

    def states(self) -> list[str]:
        return [str(one.get_attribute("data-state")) for one in self.all("tr[data-transfer] [data-state]")]

    def text(self, selector: str = "main") -> str:
        return self.find(selector).text

    def shows(self, text: str, selector: str) -> None:
        """Wait for a text: what the page hears comes a moment later."""
        self.wait(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def progress(self, transfer: str) -> int:
        bar = self.find(f"[data-transfer='{transfer}'] [role=progressbar]")
        return int(bar.get_attribute("aria-valuenow") or 0)

    # -- What is looked at by people and by machines --------------------------------------------------

    def screenshot(self, name: str) -> Path:
        """Kept as ``tests/artifacts/<name>.png``."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def resize(self, width: int, height: int = 900) -> None:
        self.driver.set_window_size(width, height)

    def barriers(self) -> list[str]:
        """Serious findings of axe: what keeps people from using the page with a keyboard or a screen reader."""
        axe = workshop() / "node_modules" / "axe-core" / "axe.min.js"
        self.driver.execute_script(axe.read_text())
        # A colour that is just changing is none to be judged.
        still = (
            "return document.getAnimations().every((one) => one.effect.getTiming().iterations === Infinity)"
        )
        self.wait(lambda: self.driver.execute_script(still), "no colour is changing")
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "const failed = (error) => done([{id: String(error), impact: 'critical', nodes: []}]);"
            "axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations), failed);"
        )
        return [
            f"{one['id']}: {node['html']}: {node.get('failureSummary')}"
            for one in found
            if one["impact"] in SERIOUS
            for node in one["nodes"] or [{"html": ""}]
        ]

    def complaints(self) -> list[str]:
        """Errors in the browser's console since the last call: exceptions, breaches of the page's policy."""
        return [
            str(entry["message"])
            for entry in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
            if entry["level"] == "SEVERE"
        ]
