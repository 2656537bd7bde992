"""Draws the results into docs/performance.png."""

from __future__ import annotations

from pathlib import Path

from tests.bench.datasets import DATA
from tests.bench.results import Cells, Row, wall


def draw(rows: list[Row], file: Path) -> None:
    """A bar for each method, a panel for each link profile and data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [Cells(rows, *pair) for pair in dict.fromkeys((row["Profile"], row["Data"]) for row in rows)]
    counts = [len(_drawn(cells)) for cells in panels]
    figure, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(9, sum(0.25 * count + 0.8 for count in counts)),
        squeeze=False,
        height_ratios=counts,
    )
    for axis, cells in zip(axes[:, 0], panels, strict=True):
        sides = _drawn(cells)
        colours = ["tab:orange" if side in cells.ours() else "tab:gray" for side in sides]
        bars = axis.barh(sides, [cells.value(side, wall) or 0 for side in sides], color=colours)
        axis.invert_yaxis()
        axis.bar_label(bars, fmt=" %.1f s", fontsize=8)
        axis.margins(x=0.1)
        share = "" if cells.share == 1 else f", {cells.share:g} of it"
        axis.set_title(f"{cells.profile}: {DATA[cells.data]}{share}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def _drawn(cells: Cells) -> list[str]:
    return [side for side in cells.sides if "," not in side]
