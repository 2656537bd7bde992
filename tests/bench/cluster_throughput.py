"""What three nodes cost against one: small pushes at once, one large push, and a bucket that has to be handed on.

`python -m tests.bench.cluster_throughput`: the medians of three runs, both sides in each, all on this machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from tests.bench.measurement import cpu_seconds
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush

STUDIES, SLICES, SIZE = 24, 5, 128
LARGE = 952
"""Slices of 525 KB: 500 MB."""
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
        large(a, one, three)
        owned, handed = buckets(three)
        print(f"a bucket of 4 KB: {owned:.2f} ms at its owner, {handed:.2f} ms handed on")


def small_pushes(a: OrthancServer, peer: str, studies: list[str]) -> float:
    """Seconds from the first order to the last success."""
    began = time.monotonic()
    jobs = [a.send([resource("Study", study)], peer)["ID"] for study in studies]
    for job in jobs:
        assert a.wait_for_job(job)["State"] == "Success"
    return time.monotonic() - began


def large(a: OrthancServer, one: OrthancCluster, three: OrthancCluster) -> None:
    """Print what a large push by turns takes: of time, and of the nodes' processor time for each MB."""
    a.clear()
    (study,) = {answer["ParentStudy"] for answer in a.upload_all(ct_study(LARGE))}
    resources = [resource("Study", study)]
    megabytes = int(a.get(f"studies/{study}/statistics")["DiskSize"]) / 1e6
    took: dict[str, list[float]] = {"one": [], "three": []}
    spent: dict[str, list[float]] = {"one": [], "three": []}
    for _ in range(RUNS):
        for name, cluster in (("one", one), ("three", three)):
            before = sum(cpu_seconds(node.pid) for node in cluster.nodes)
            began = time.monotonic()
            assert a.wait_for_job(a.send(resources, name)["ID"], timeout=600)["State"] == "Success"
            took[name].append(time.monotonic() - began)
            spent[name].append(
                1000 * (sum(cpu_seconds(node.pid) for node in cluster.nodes) - before) / megabytes
            )
            cluster.clear()
        print(
            f"{megabytes:.0f} MB: one node {took['one'][-1]:.1f} s, {spent['one'][-1]:.1f} ms a MB;"
            f" three {took['three'][-1]:.1f} s, {spent['three'][-1]:.1f} ms a MB"
        )
    ratio = statistics.median(b / a for a, b in zip(took["three"], took["one"], strict=True))
    more = statistics.median(b - a for a, b in zip(spent["one"], spent["three"], strict=True))
    print(
        f"throughput of three nodes, of one: {ratio:.2f}; the nodes' processor time: {more:.2f} ms a MB more"
    )


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
