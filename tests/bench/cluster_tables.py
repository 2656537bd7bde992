"""What a cluster costs PostgreSQL: ``python -m tests.bench.cluster_tables``, with a million past transfers.

Alone on a real PostgreSQL that fsyncs, on this machine; no Orthanc. Prints the tables of docs/measurements/cluster.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from orthanc_transfers.cluster.cluster import Cluster, join
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.core.settings import parse_settings
from orthanc_transfers.runtime.clock import SystemClock
from tests.support.postgresql import PostgreSQL

_OUTCOME = {"State": "committed", "Finished": 1.0, "Report": {}}

_FILL = """
WITH past AS (
    INSERT INTO orthanc_transfers.reports (id, ended, content)
    SELECT md5('past' || n)::uuid, now() - n * interval '2 seconds', decode(repeat(md5(n::text), 40), 'hex')
    FROM generate_series(%s::int, %s::int) AS n RETURNING id
), first AS (
    INSERT INTO orthanc_transfers.report_names (name, report) SELECT md5('token' || id)::uuid, id FROM past
)
INSERT INTO orthanc_transfers.report_names (name, report) SELECT md5('job' || id)::uuid, id FROM past
"""
_STEP = 100_000

_BEATING = 50
"""Nodes whose heartbeats are measured."""


@dataclass
class Results:
    """``calls``: name -> ms of each; ``values``: what else was counted."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.calls.setdefault(name, []).append((time.perf_counter() - begin) * 1000)

    def tables(self) -> list[str]:
        """In Markdown."""
        rows = ["| call | median, ms | 99th percentile, ms |", "|---|---|---|"]
        for name, times in self.calls.items():
            last = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
            rows.append(f"| {name} | {statistics.median(times):.2f} | {last:.2f} |")
        rows += ["", "| | |", "|---|---|"]
        return rows + [f"| {name} | {value} |" for name, value in self.values.items()]


def measure(past: int, transfers: int, *, durable: bool = True, threads: int = 8) -> Results:
    """With so many past transfers, and so many new ones for each figure."""
    results = Results()
    with PostgreSQL(durable=durable) as server:
        settings = parse_settings({"Cluster": {"ConnectionUri": server.uri}})
        cluster = join(settings, {}, SystemClock(), shared_staging=True)
        others = [join(settings, {}, SystemClock(), shared_staging=False) for _ in range(2)]
        try:
            cluster.ownership.start()
            _fill(server, past, results)
            _calls(cluster, others[0], transfers, results)
            _throughput([cluster, *others], transfers * threads, threads, results)
            _heartbeats(server, cluster, results)
            _expiry(server, cluster, past // 10, results)
        finally:
            for one in (cluster, *others):
                one.close()
    return results


def manifest(seed: str, count: int) -> Manifest:
    return Manifest(Instance(f"{seed}-{index:08d}-{'0' * 27}", 500_000, "0" * 32) for index in range(count))


def _fill(server: PostgreSQL, past: int, results: Results) -> None:
    begin = time.perf_counter()
    with psycopg.connect(server.uri, autocommit=True) as connection:
        for first in range(1, past + 1, _STEP):
            connection.execute(_FILL, (first, min(past, first + _STEP - 1)))
        connection.execute("VACUUM ANALYZE")
        size = connection.execute("SELECT pg_size_pretty(pg_database_size('postgres'))").fetchone()
    results.values["past transfers, with 640 bytes of report and 2 names each"] = f"{past:,}"
    results.values["the database then"] = str(size and size[0])
    results.values["made in"] = f"{time.perf_counter() - begin:.0f} s"


def _transfer(cluster: Cluster, name: str, instances: Manifest, results: Results | None) -> None:
    """All that one transfer asks of the database, from claim to expiry."""
    timed = results.timed if results is not None else lambda name: _nothing()
    owner = cluster.ownership
    size = f"{len(instances)} instances"
    with timed("claim"):
        owner.claim(name, "push", f"token-{name}", {"kind": "push"}, limit=1000)
    with timed(f"begin_commit, {size}"):
        owner.begin_commit(name, instances)
    owner.begin_import(name, range(len(instances)))
    report = {"ID": name, "Instances": [{"ID": one.id, "Outcome": "stored"} for one in instances]}
    with timed(f"end, {size}"):
        owner.end(name, _OUTCOME, report, [f"token-{name}", f"job-{name}"])
    with timed("forget"):
        owner.forget(name)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _calls(cluster: Cluster, other: Cluster, count: int, results: Results) -> None:
    cluster.ownership.claim("warm", "push", "warm", {}, limit=0)
    before = cluster.database.requests
    for index in range(count):
        _transfer(cluster, f"small-{index}", manifest(f"small-{index}", 1), results)
    # One more has deleted old reports.
    requests = (cluster.database.requests - before - 1) / count
    results.values["requests of one transfer, shared staging"] = f"{requests:.1f}"
    before = other.database.requests
    for index in range(count):
        _transfer(other, f"own-{index}", manifest(f"own-{index}", 1), None)
    requests = (other.database.requests - before - 1) / count
    results.values["requests of one transfer, staging of its own"] = f"{requests:.1f}"
    for index in range(count):
        _transfer(cluster, f"study-{index}", manifest(f"study-{index}", 1000), results)
    before = cluster.database.requests
    buckets = 100_000
    begin = time.perf_counter()
    for _ in range(buckets):
        cluster.ownership.check()
        cluster.ownership.locate(identifier="warm")
    results.values["requests of one bucket at the owner, or handed on"] = str(
        cluster.database.requests - before
    )
    results.values["processor time of one bucket, to find its owner"] = (
        f"{(time.perf_counter() - begin) / buckets * 1e6:.1f} µs"
    )
    for index in range(count):
        with results.timed("locate, a transfer that this node has not heard of"):
            cluster.ownership.locate(identifier=f"unknown-{index}")
        with results.timed("report, by another name"):
            assert cluster.ownership.report(f"job-study-{index}") is not None


def _throughput(clusters: list[Cluster], count: int, threads: int, results: Results) -> None:
    def one(index: int) -> None:
        _transfer(clusters[index % 3], f"many-{index}", manifest(f"many-{index}", 100), None)

    before = _processor_seconds()
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(count)))
    took = time.perf_counter() - begin
    spent = _processor_seconds() - before
    results.values[f"transfers of 100 instances a second, {threads} at once on 3 nodes"] = (
        f"{count / took:.0f}"
    )
    results.values["PostgreSQL's processor time of one of them"] = f"{spent / count * 1000:.1f} ms"
    results.values["of one processor, for 10,000 transfers an hour"] = f"{spent / count * 10_000 / 3600:.2%}"


def _heartbeats(server: PostgreSQL, cluster: Cluster, results: Results) -> None:
    with psycopg.connect(server.uri, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO orthanc_transfers.nodes (start, name, address, folder, expires)"
            " SELECT gen_random_uuid(), 'node' || n, 'http://node' || n || ':8042', true, now() + interval '1 hour'"
            " FROM generate_series(1, %s::int) AS n",
            (_BEATING,),
        )
    name = f"heartbeat, {_BEATING} nodes"
    members = cluster.ownership._members
    before = _processor_seconds()
    count = 500
    for _ in range(count):
        with results.timed(name):
            members.renew()
    spent = (_processor_seconds() - before) / count
    results.values[f"of one processor, for the heartbeats of {_BEATING} nodes"] = (
        f"{spent * _BEATING / 2:.2%}"
    )


def _expiry(server: PostgreSQL, cluster: Cluster, count: int, results: Results) -> None:
    with psycopg.connect(server.uri, autocommit=True) as connection:
        connection.execute(
            "UPDATE orthanc_transfers.reports SET ended = ended - interval '10 years'"
            " WHERE id IN (SELECT id FROM orthanc_transfers.reports ORDER BY ended LIMIT %s)",
            (count,),
        )
    begin = time.perf_counter()
    cluster.reports.sweep()
    results.values[f"{count:,} reports that expire at once, deleted in"] = (
        f"{time.perf_counter() - begin:.1f} s"
    )


def _processor_seconds() -> float:
    """Of all processes of PostgreSQL on this machine that live."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == "postgres":
            ticks += sum(map(int, rest.split()[11:13]))
    return ticks / 100


def _main(print_line: Callable[[str], object] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--past", type=int, default=1_000_000, help="past transfers")
    parser.add_argument("--transfers", type=int, default=200, help="new ones, for each figure")
    options = parser.parse_args()
    for line in measure(options.past, options.transfers).tables():
        print_line(line)


if __name__ == "__main__":
    _main()
