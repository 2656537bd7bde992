"""Small studies sent by a rule, against the same studies posted by hand: ``python -m tests.bench.rules``.

Both sides send each study by a job of its own, between two Orthancs of this machine. The clock runs from the first
request until the last study is in the receiver.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from tests.support.dicom_data import small_instances
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, running
from tests.support.waiting import wait_until

GOAL = 1.2
"""Times as long as by hand, at most."""


def by_hand(a: OrthancServer, studies: list[str]) -> None:
    """A request for each study."""
    for study in studies:
        a.send([resource("Study", study)], "b")


def by_rule(a: OrthancServer, studies: list[str]) -> None:
    """A rule that is run for these studies."""
    a.put("transfers/rules/bench", {"Name": "bench", "Trigger": "Manual", "Destinations": "b"})
    a.post("transfers/rules/bench/run", {"Resources": [resource("Study", study) for study in studies]})


def measure(a: OrthancServer, b: OrthancServer, start: Callable[[], None], count: int) -> float:
    """Seconds until all are there, of which there are none before."""
    b.clear()
    began = time.monotonic()
    start()
    wait_until(lambda: b.get("statistics")["CountStudies"] == count, "all arrive", timeout=300, every=0.02)
    seconds = time.monotonic() - began
    wait_until(
        lambda: all(job["State"] in ("Success", "Failure") for job in a.get("jobs?expand")), "all jobs end"
    )
    return seconds


def main() -> None:
    """Alternately, so that both meet the same machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    configuration = {"JobsHistorySize": 1000, "StableAge": 3600}
    a, b = (OrthancServer(name, configuration=configuration) for name in "ab")
    pair(a, b)
    with running(a, b):
        for _ in range(options.studies):
            a.upload_all(small_instances(2))
        studies = a.get("studies")
        times: dict[str, list[float]] = {"by hand": [], "by rule": []}
        for _ in range(options.runs):
            times["by hand"].append(measure(a, b, lambda: by_hand(a, studies), len(studies)))
            times["by rule"].append(measure(a, b, lambda: by_rule(a, studies), len(studies)))
    for name, seconds in times.items():
        print(f"{name}: {', '.join(f'{one:.2f}' for one in seconds)} s")
    ratio = statistics.median(times["by rule"]) / statistics.median(times["by hand"])
    print(
        f"{options.studies} studies by a rule take {ratio:.2f} times as long as by hand; the goal is {GOAL}"
    )


if __name__ == "__main__":
    main()
