"""What three nodes cost against one: small pushes at once, and a bucket that has to be handed on.

`python -m tests.bench.cluster_throughput`: the medians of three runs, both sides in each, all on this machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush

STUDIES, SLICES, SIZE = 24, 5, 128
RUNS = 3
BUCKETS = 200


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        three = stack.enter_context(OrthancCluster(folder / "three"))
        one = stack.enter_context(OrthancCluster(folder / "one", size=1))
        a = OrthancServer("a", folder / "a", configuration={"ConcurrentJobs": 8})
        stack.callback(a.remove)
        a.add_peer("three", a, Url=three.url)
        a.add_peer("one", a, Url=one.url)
        a.start()
        studies = sorted(
            {
                answer["ParentStudy"]
                for _ in range(STUDIES)
                for answer in a.upload_all(ct_study(SLICES, size=SIZE))
            }
        )
        ratios = []
        for _ in range(RUNS):
            seconds = {name: small_pushes(a, name, studies) for name in ("three", "one")}
            for cluster in (three, one):
                assert len(cluster.any_node().instances()) == STUDIES * SLICES
                cluster.clear()
            ratios.append(seconds["one"] / seconds["three"])
            print(
                f"{STUDIES} pushes of {SLICES}: one node {seconds['one']:.2f} s, three {seconds['three']:.2f} s"
            )
        print(f"throughput of three nodes, of one: {statistics.median(ratios):.2f}")
        owned, handed = buckets(three)
        print(f"a bucket of 4 KB: {owned:.2f} ms at its owner, {handed:.2f} ms handed on")


def small_pushes(a: OrthancServer, peer: str, studies: list[str]) -> float:
    """Seconds from the first order to the last success."""
    began = time.monotonic()
    jobs = [a.send([resource("Study", study)], peer)["ID"] for study in studies]
    for job in jobs:
        assert a.wait_for_job(job)["State"] == "Success"
    return time.monotonic() - began


def buckets(cluster: OrthancCluster) -> tuple[float, float]:
    """Medians in milliseconds: at the owner, and at another node."""
    owner, other = cluster.nodes[:2]
    (data,) = ct_study(1, size=1024)
    push = RawPush(owner, 2, [data])
    identifier = push.create().json()["ID"]
    took: dict[str, list[float]] = {owner.url: [], other.url: []}
    with requests.Session() as session:
        for number in range(BUCKETS):
            for url in took:
                path = f"{url}transfers/v2/push/{identifier}/{number * 4096}/4096"
                body = data[number * 4096 : (number + 1) * 4096]
                began = time.monotonic()
                session.put(path, data=body).raise_for_status()
                took[url].append(1000 * (time.monotonic() - began))
    owned, handed = (statistics.median(times) for times in took.values())
    return owned, handed


if __name__ == "__main__":
    main()
