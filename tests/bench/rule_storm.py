"""A storm of studies that a rule is to send, while its peer is away: ``python -m tests.bench.rule_storm``.

All must be queued, and all arrive once the peer is there. Told are the pace at which they are queued, how long Orthanc
takes to answer meanwhile, and what those that wait take of memory and threads.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.dicom_data import small_instances
from tests.support.orthanc_server import OrthancServer, pair, running
from tests.support.rules import STABLE, set_rule
from tests.support.waiting import wait_until

UPLOADERS = 4

PATIENCE = 1800.0


class Answers:
    """How long an Orthanc takes to answer a question, each 50 ms."""

    def __init__(self, server: OrthancServer) -> None:
        self._server = server
        self.seconds: list[float] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Meanwhile."""
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.05):
                began = time.monotonic()
                self._server.get("system")
                self.seconds.append(time.monotonic() - began)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def __str__(self) -> str:
        median, longest = statistics.median(self.seconds), max(self.seconds)
        return f"an answer takes {1000 * median:.0f} ms, the longest {1000 * longest:.0f} ms"


def size(server: OrthancServer) -> tuple[float, int]:
    """Megabytes of memory, and threads."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    found = {
        key: value.split()[0] for key, _, value in (line.partition(":") for line in lines) if value.split()
    }
    return int(found["VmRSS"]) / 1024, int(found["Threads"])


def upload(server: OrthancServer, count: int) -> None:
    """Studies of one instance each."""

    def some(number: int) -> None:
        for _ in range(number, count, UPLOADERS):
            server.upload_all(small_instances(1))

    threads = [threading.Thread(target=some, args=(number,)) for number in range(UPLOADERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def counts(server: OrthancServer) -> dict[str, int]:
    """Entries of the rule by state."""
    found: dict[str, int] = server.get("transfers/rules/all")["Counts"]
    return found


def timed(what: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    what()
    return time.monotonic() - began


def main() -> None:
    """The storm, and what becomes of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=5000)
    parser.add_argument("--arrive", action="store_true", help="wait until all have arrived, too")
    options = parser.parse_args()
    count = options.studies
    configuration = {**STABLE, "StableAge": 1, "JobsHistorySize": 10, "Transfers": {"MaxOutage": 1}}
    a, b = (OrthancServer(name, configuration=configuration) for name in "ab")
    pair(a, b)
    with running(a, b):
        set_rule(a)
        b.stop()
        before, answers = size(a), Answers(a)
        with answers.measured():
            uploaded = timed(lambda: upload(a, count))

            def queue_up() -> None:
                wait_until(
                    lambda: sum(counts(a).values()) == count, "all are queued", timeout=PATIENCE, every=0.2
                )

            queued = timed(queue_up)
        after = size(a)
        print(
            f"{count} studies arrived within {uploaded:.0f} s, all were queued {queued:.0f} s later; {answers}"
        )
        print(
            f"with none waiting it had {before[0]:.0f} MB and {before[1]} threads,"
            f" with {counts(a)['Waiting']} it has {after[0]:.0f} MB and {after[1]}"
        )
        if options.arrive:
            b.start()
            seconds = timed(
                lambda: wait_until(
                    lambda: b.get("statistics")["CountStudies"] == count,
                    "all arrive",
                    timeout=PATIENCE,
                    every=0.5,
                )
            )
            print(f"all arrived within {seconds:.0f} s of the peer's start")


if __name__ == "__main__":
    main()
