"""What the page costs its Orthanc: ``python -m tests.bench.page_cost``, with 10,000 past transfers.

CPU time of the whole process of Orthanc, with the page open in Chromium and without it: idle, and beside a transfer at
2 MB/s; and that of one request for the list.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.bench.measurement import cpu_seconds
from tests.browser.conftest import ARGUMENTS, CHROMEDRIVER, CHROMIUM
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.past_rows import keep_past_transfers

SECONDS = 40.0
REQUESTS = 500
QUERIES = {
    "first page": "limit=25",
    "last page": "limit=25&offset=9975",
    "a search": "limit=25&text=number+9999",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        a, b = OrthancServer("a", Path(folder) / "a"), OrthancServer("b", Path(folder) / "b")
        try:
            pair(a, b)
            a.configuration["Transfers"] = {"MaxPeerBandwidth": 16}
            keep_past_transfers(a)
            start_together(a, b)
            measure(a)
        finally:
            a.remove()
            b.remove()


def measure(a: OrthancServer) -> None:
    (study,) = {one["ParentStudy"] for one in a.upload_all(ct_study(500))}
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ARGUMENTS:
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        for what in ("idle", "transfer"):
            for shown in ("about:blank", f"{a.url}transfers/app/"):
                browser.get(shown)
                job = (
                    a.send([resource("Study", study)], "b", Compression="none")["ID"]
                    if what == "transfer"
                    else None
                )
                time.sleep(3)  # what begins costs more than what goes on
                before, since = cpu_seconds(a.pid), time.monotonic()
                time.sleep(SECONDS)
                share = (cpu_seconds(a.pid) - before) / (time.monotonic() - since)
                print(
                    f"{what}, {'no page' if shown == 'about:blank' else 'page'}: {100 * share:.2f} % of a core",
                    flush=True,
                )
                if job is not None:
                    assert a.job(job)["State"] == "Running"
                    a.post(f"jobs/{job}/cancel")
    finally:
        browser.quit()
    for name, query in QUERIES.items():
        before = cpu_seconds(a.pid)
        for _ in range(REQUESTS):
            a.get(f"transfers/status?{query}")
        print(f"{name}: {1000 * (cpu_seconds(a.pid) - before) / REQUESTS:.2f} ms a request", flush=True)


if __name__ == "__main__":
    main()
