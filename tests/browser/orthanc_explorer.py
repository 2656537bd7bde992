"""Page object of Orthanc Explorer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
TIMEOUT = 30.0


class OrthancExplorer:
    """The pages of the Orthanc whose root is ``url``; every step waits until the page shows its outcome."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        self._url = url

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true answer. Raises selenium's ``TimeoutException`` with ``what``."""
        ignored = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05, ignored_exceptions=ignored)
        return waiting.until(lambda _: condition(), what)

    def screenshot(self, name: str) -> None:
        """Kept as ``tests/artifacts/<name>.png``."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.driver.save_screenshot(str(ARTIFACTS / f"{name}.png"))

    # -- Pages --------------------------------------------------------------------------------------

    def open(self, page: str, identifier: str) -> None:
        """Load the page of a ``patient``, a ``study``, a ``series`` or an ``instance`` from scratch."""
        self.visit(f"{self._url}app/explorer.html#{page}?uuid={identifier}", page, identifier)

    def visit(self, address: str, page: str, identifier: str) -> None:
        """Load an address from scratch, which should show the page of a resource."""
        # From one address to another that differs behind the "#" only, nothing would be loaded.
        self.driver.get("about:blank")
        self.driver.get(address)
        self.wait_for_page(page, identifier)

    def follow(self, selector: str, page: str, identifier: str) -> None:
        """Click on a link of the page that is shown, to the page of another resource."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()
        self.wait_for_page(page, identifier)

    def back(self, page: str, identifier: str) -> None:
        """The browser's own button, to a page that was shown before."""
        self.driver.back()
        self.wait_for_page(page, identifier)

    def wait_for_page(self, page: str, identifier: str) -> None:
        """Until Orthanc Explorer shows that resource, and nothing moves any more."""
        self.wait(
            lambda: self.driver.execute_script(
                """
                var mobile = window.jQuery && window.jQuery.mobile;
                return Boolean(mobile && mobile.activePage && mobile.activePage[0].id === arguments[0] &&
                               mobile.pageData && mobile.pageData.uuid === arguments[1] &&
                               jQuery('#' + arguments[0] + '-info li').length &&
                               !jQuery('body').hasClass('ui-mobile-viewport-transitioning') &&
                               !jQuery('.ui-page.in, .ui-page.out').length);
                """,
                page,
                identifier,
            ),
            f"the page of the {page} {identifier}",
        )

    # -- The button and its dialog ------------------------------------------------------------------

    def buttons(self) -> list[WebElement]:
        """All yellow buttons of that name that can be seen."""
        found = self.driver.find_elements(By.CSS_SELECTOR, "a.ui-btn-up-e, a.ui-btn-hover-e")
        return [one for one in found if one.is_displayed() and one.text.strip() == "Transfers accelerator"]

    def press(self) -> None:
        """Press the button, and wait until its dialog says more than that it waits."""
        (button,) = self.buttons()
        button.click()
        self.wait(lambda: self.text() and not self.text().endswith("…"), "the peers, or a message")

    def double_press(self) -> None:
        """As ``press``, by a user in the habit of double clicks."""
        (button,) = self.buttons()
        self._double_click(button)
        self.wait(lambda: self.text() and not self.text().endswith("…"), "the peers, or a message")

    def dialogs(self) -> list[WebElement]:
        """Those that are open; there should never be more than one."""
        return self.driver.find_elements(By.CSS_SELECTOR, ".ui-simpledialog-container")

    def text(self) -> str:
        """What the open dialog says below its title; empty if there is none."""
        found = self.driver.find_elements(By.ID, "transfers-dialog")
        return found[0].text.strip() if found else ""

    def peers(self) -> dict[str, str]:
        """The peers listed, in their order: ``"clickable"``, or what it says below a greyed name."""
        listed = {}
        for entry in self._entries():
            links = entry.find_elements(By.TAG_NAME, "a")
            if links:
                listed[links[0].text] = "clickable"
            else:
                name, reason = entry.text.split("\n")
                listed[name] = reason
        return listed

    def entry(self, peer: str) -> WebElement:
        """The row of a peer."""
        (found,) = [one for one in self._entries() if one.text.split("\n")[0].strip() == peer]
        return found

    def choose(self, peer: str) -> None:
        """Click on a peer."""
        self.entry(peer).click()

    def double_choose(self, peer: str) -> None:
        """Click on a peer twice, or on what is there by then."""
        self._double_click(self.entry(peer))

    def close(self) -> None:
        """The dialog's own cross."""
        (dialog,) = self.dialogs()
        dialog.find_element(By.CSS_SELECTOR, ".ui-header a").click()
        self.wait(lambda: not self.dialogs(), "the dialog is closed")

    def wait_for_message(self, words: str) -> str:
        """What the dialog says, once these words are in it."""
        return str(self.wait(lambda: words in self.text() and self.text(), f"a message with: {words}"))

    def wait_for_job_page(self) -> str:
        """The identifier of the job whose page has opened by itself."""
        self.wait(lambda: "#job?uuid=" in self.driver.current_url, "the page of a job")
        identifier = self.driver.current_url.split("#job?uuid=")[1]
        self.wait_for_page("job", identifier)
        self.wait(
            lambda: identifier in self.driver.find_element(By.ID, "job-info").text, "the job on its page"
        )
        return identifier

    def _double_click(self, target: WebElement) -> None:
        # As slow as people are: a server answers between the two clicks.
        ActionChains(self.driver).click(target).pause(0.25).click().perform()

    def _entries(self) -> list[WebElement]:
        return self.driver.find_elements(
            By.CSS_SELECTOR, "#transfers-dialog li:not([data-role=list-divider])"
        )
