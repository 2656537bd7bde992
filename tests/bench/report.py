"""Results -> lines, tables, goals, docs/performance.md and its plot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from tests.bench.data import DATA
from tests.bench.sides import LOCAL, STORE_A_PART
from tests.support.orthanc_server import CHECKOUT

Row = dict[str, Any]

PAGE = CHECKOUT / "docs" / "performance.md"
PLOT = CHECKOUT / "docs" / "performance.png"
STORE = "peer store"
_MB = 1024 * 1024


def line(row: Row) -> str:
    """One run, for whoever watches."""
    phases = " ".join(f"{name} {seconds:.2f}" for name, seconds in row["phases"].items())
    return (
        f"{row['Place']:28} {row['Data']} {row['Side']:24} {row['wall']:7.2f} s"
        f"  cpu {row['cpu'][0]:.2f} + {row['cpu'][1]:.2f}"
        f"  memory {row['memory'][0] // _MB} + {row['memory'][1] // _MB} MB  {phases}"
    )


def show(rows: list[Row]) -> None:
    """Everything, in the terminal."""
    print("\n".join(tables(rows)))


def tables(rows: list[Row]) -> list[str]:
    """Markdown: one table for each place and data set, then the goals."""
    text: list[str] = []
    for place, data in dict.fromkeys((row["Place"], row["Data"]) for row in rows):
        cells = Cells(rows, place, data)
        text += [f"### {place}: ({data}) {DATA[data][0]}{cells.share}", ""]
        text += [
            "| | s (median, least–most of n) | of peer store | CPU s, sender + receiver | peak memory, MB "
            "| send, import s | ratio |",
            "|---|---|---|---|---|---|---|",
        ]
        text += [cells.table_row(side) for side in cells.sides]
        text.append("")
    return [*text, "### Goals", "", "| goal | found | |", "|---|---|---|", *goals(rows)]


class Cells:
    """The medians of one place and data set."""

    def __init__(self, rows: Iterable[Row], place: str, data: str) -> None:
        self.rows = [row for row in rows if (row["Place"], row["Data"]) == (place, data)]
        self.sides = list(dict.fromkeys(row["Side"] for row in self.rows))

    @property
    def share(self) -> str:
        shares = {row["Share"] for row in self.rows} - {1.0}
        return f", {', '.join(f'{share:g}' for share in shares)} of it" if shares else ""

    def of(self, side: str) -> list[Row]:
        return [row for row in self.rows if row["Side"] == side]

    def wall(self, side: str) -> float | None:
        return median(row["wall"] for row in self.of(side)) if self.of(side) else None

    def value(self, side: str, figure: Callable[[Row], float]) -> float:
        return median(map(figure, self.of(side)))

    @property
    def store(self) -> float | None:
        """Seconds of the peer store, measured or reckoned from a part."""
        measured = self.wall(STORE)
        return self.wall(STORE_A_PART) if measured is None else measured

    def ratio(self, side: str) -> float | None:
        mine, theirs = self.wall(side), self.store
        return None if mine is None or theirs is None else mine / theirs

    def table_row(self, side: str) -> str:
        rows = self.of(side)
        walls = [row["wall"] for row in rows]
        ratio = self.ratio(side)
        phases = ""
        if rows[0]["phases"]:
            phases = f"{self.value(side, sending):.2f}, {self.value(side, importing):.2f}"
        shrunk = rows[-1]["content"].get("CompressionRatio", "")
        cells = [
            side,
            f"**{median(walls):.2f}** ({min(walls):.2f}–{max(walls):.2f} of {len(walls)})",
            "" if ratio is None else f"{ratio:.2f}",
            f"{self.value(side, lambda row: row['cpu'][0]):.1f} + {self.value(side, lambda row: row['cpu'][1]):.1f}",
            f"{self.value(side, lambda row: row['memory'][0] / _MB):.0f} + "
            f"{self.value(side, lambda row: row['memory'][1] / _MB):.0f}",
            phases,
            str(shrunk),
        ]
        return f"| {' | '.join(cells)} |"


def sending(row: Row) -> float:
    """Seconds in which bytes were carried."""
    return float(row["phases"].get("Sending", 0) + row["phases"].get("Fetching", 0))


def importing(row: Row) -> float:
    """Seconds of the commit."""
    return float(row["phases"].get("Importing", 0))


def goals(rows: list[Row]) -> list[str]:
    """What was aimed at, and what was found; where nothing was measured, nothing is said."""
    text: list[str] = []

    def goal(what: str, found: float | None, most: float, unit: str = "") -> None:
        if found is not None:
            text.append(
                f"| {what} ≤ {most:g}{unit} | {found:.2f}{unit} | {'yes' if found <= most else '**no**'} |"
            )

    for data, most in (("a", 0.6), ("b", 0.3), ("c", 1.2)):
        cells = Cells(rows, "loopback", data)
        for side in ("push auto", "push none", "push gzip", "pull auto", "pull none", "pull gzip"):
            goal(f"loopback, ({data}), {side}: of the peer store's time", cells.ratio(side), most)
    cells = Cells(rows, "loopback", "c")
    for side in cells.sides:
        if side.startswith(("push", "pull")) and "zlib" not in side:
            above = cells.value(side, lambda row: row["memory"][0] / _MB)
            goal(f"loopback, (c), {side}: memory of the sender", above, 900, " MB")
    cells = Cells(rows, "loopback", "a")
    for side in cells.sides:
        if "zlib" in side:
            continue
        if side.endswith("nothing new"):
            goal(f"loopback, (a), {side}", cells.wall(side), 1, " s")
        local = cells.wall(LOCAL)
        if local and side.startswith(("push", "pull")) and "," not in side:
            share = cells.value(side, importing) / local
            goal(f"loopback, (a), {side}: import phase, of the local import", share, 1.1)
    for place in dict.fromkeys(row["Place"] for row in rows):
        cells = Cells(rows, place, "a")
        for side in ("push auto", "pull auto"):
            if place.startswith("100 ms") and "loss" in place and cells.ratio(side):
                store, mine = cells.store, cells.wall(side)
                assert store is not None
                assert mine is not None
                text.append(
                    f"| {place}, (a), {side}: times faster than the peer store ≥ 5 | {store / mine:.1f} | "
                    f"{'yes' if store / mine >= 5 else '**no**'} |"
                )
            if place == "100 ms, 200 Mbit/s" and cells.of(side):
                filled = cells.value(
                    side,
                    lambda row: (row["wall"] - importing(row)) * row["Rate"] * 1e6 / 8 / row["wire"],
                )
                goal(f"{place}, (a), {side}: total − import, of the wire's bytes at its rate", filled, 1.15)
    return text


def write(rows: list[Row]) -> None:
    """Put the tables between the marks of docs/performance.md, and draw the plot."""
    page = PAGE.read_text()
    body = "\n".join(tables(rows))
    marks = r"(<!-- results -->\n).*?(<!-- end of results -->)"
    PAGE.write_text(re.sub(marks, lambda match: f"{match[1]}\n{body}\n\n{match[2]}", page, flags=re.DOTALL))
    _draw(rows)


def _draw(rows: list[Row]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    pairs = [
        pair for pair in dict.fromkeys((row["Place"], row["Data"]) for row in rows) if _drawn(rows, *pair)
    ]
    figure, axes = pyplot.subplots(len(pairs), 1, figsize=(9, 2.6 * len(pairs)), squeeze=False)
    for axis, (place, data) in zip(axes[:, 0], pairs, strict=True):
        sides = _drawn(rows, place, data)
        cells = Cells(rows, place, data)
        values = [cells.wall(side) or 0 for side in sides]
        colours = ["tab:orange" if side.startswith(("push", "pull")) else "tab:gray" for side in sides]
        axis.barh(sides, values, color=colours)
        axis.invert_yaxis()
        axis.bar_label(axis.containers[0], fmt=" %.1f", fontsize=8)
        axis.set_title(f"{place}: {DATA[data][0]}", fontsize=9, loc="left")
        axis.set_xlabel("seconds, median", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def _drawn(rows: list[Row], place: str, data: str) -> list[str]:
    return [side for side in Cells(rows, place, data).sides if "," not in side and "zlib" not in side]
