"""Goals, and whether the results reach them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.codecs import Table
from tests.bench.results import Cells, Row, cpu, importing, wall
from tests.bench.transfer_methods import LOCAL, STORE

_MB = 1024 * 1024

# What shrinks less is best sent as it is.
_SHRINKS = 1.05


@dataclass(frozen=True)
class Goal:
    """``found`` is to be ``bound`` at most, or with ``least`` at least."""

    what: str
    found: float
    bound: float
    unit: str = ""
    least: bool = False

    @property
    def reached(self) -> bool:
        return self.found >= self.bound if self.least else self.found <= self.bound


def of_transfers(rows: list[Row]) -> Iterator[Goal]:
    """Those that were measured."""
    for profile, data in dict.fromkeys((row["Profile"], row["Data"]) for row in rows):
        cells = Cells(rows, profile, data)
        where = f"{profile}, ({data})" + ("" if cells.share == 1 else f", {cells.share:g} of it")
        if profile == "loopback":
            yield from _on_loopback(cells, where)
        elif data == "a" and profile == "100 ms, 200 Mbit/s":
            for side in _auto(cells):
                filled = cells.value(side, _of_the_link)
                yield Goal(
                    f"{where}, {side}: total − import, of the wire's bytes at its rate", filled or 0, 1.15
                )
        elif data == "a" and profile.startswith("100 ms") and "loss" in profile:
            for side in _auto(cells):
                ratio = cells.ratio(side, STORE)
                if ratio is not None:
                    yield Goal(f"{where}, {side}: times faster than the peer store", 1 / ratio, 5, least=True)


# Of the peer store, on loopback.
_TIME = {"a": 0.6, "b": 0.25, "c": 1.2, "r": 0.6, "x": 1.0}
_CPU = {"b": 0.35, "r": 0.8}
_ONE_SMALL = 25
"""Milliseconds that the job of one small instance may last."""


def _on_loopback(cells: Cells, where: str) -> Iterator[Goal]:
    for side in cells.ours():
        # zstd on loopback is no use: auto knows better.
        if "zstd" not in side:
            yield from _of_peer_store(cells, where, side)
        if cells.data == "o":
            milliseconds = cells.value(side, lambda row: 1000 * row["job"])
            yield Goal(f"{where}, {side}: a job, by its own times", milliseconds or 0, _ONE_SMALL, " ms")
        limits = [ratio for local in LOCAL if (ratio := cells.ratio(side, local, importing)) is not None]
        if limits:
            yield Goal(f"{where}, {side}: import phase, of the fastest local import", max(limits), 1.1)
        if cells.data == "c":
            above = cells.value(side, lambda row: row["memory"][0] / _MB)
            yield Goal(f"{where}, {side}: sender's memory", above or 0, 600 * cells.share + 300, " MB")
    for side in cells.sides:
        if cells.data == "a" and side.endswith("nothing new"):
            yield Goal(f"{where}, {side}", cells.value(side, wall) or 0, 1, " s")


def _of_peer_store(cells: Cells, where: str, side: str) -> Iterator[Goal]:
    if cells.data in _TIME and (ratio := cells.ratio(side, STORE)) is not None:
        bound = 0.62 if (cells.data, side.split()[-1]) == ("a", "auto") else _TIME[cells.data]
        yield Goal(f"{where}, {side}: of the peer store's time", ratio, bound)
    if cells.data in _CPU and (ratio := cells.ratio(side, STORE, cpu, cpu)) is not None:
        yield Goal(f"{where}, {side}: of the peer store's CPU seconds", ratio, _CPU[cells.data])


def _auto(cells: Cells) -> list[str]:
    return [side for side in cells.ours() if side.endswith("auto")]


def _of_the_link(row: Row) -> float:
    return float((row["wall"] - importing(row)) * row["Rate"] * 1e6 / 8 / row["wire"])


def of_codecs(table: Table) -> Iterator[Goal]:
    """Those of ``make bench BENCH_ARGS=--codecs``."""
    for what, cells in table.items():
        auto, zlib = cells["auto"], cells["zlib 6"]
        if "16 bit" in what:
            yield Goal(f"{what}: wire bytes of zlib level 6's", zlib["Ratio"] / auto["Ratio"], 0.85)
            yield Goal(f"{what}: times zlib level 6's speed", auto["Speed"] / zlib["Speed"], 10, least=True)
        if zlib["Ratio"] < _SHRINKS:
            yield Goal(f"{what}: CPU time of zlib level 6's", zlib["Speed"] / auto["Speed"], 0.05)
