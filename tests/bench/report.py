"""Renders results as text and Markdown tables, for the terminal and docs/measurements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.bench import goals
from tests.bench.codecs import Table
from tests.bench.datasets import DATA
from tests.bench.goals import Goal
from tests.bench.results import Cells, Figure, Row, importing, sending, wall
from tests.bench.transfer_methods import STORE

_MB = 1024 * 1024


def run_line(row: Row) -> str:
    """One run as one line of text."""
    phases = " ".join(f"{name} {seconds:.2f}" for name, seconds in row["phases"].items())
    part = "" if row["Part"] == 1 else f"  ({row['wall']:.2f} s for {row['Part']:g} of it)"
    return (
        f"{row['Profile']:28} {row['Data']} {row['Side']:24} {wall(row):7.2f} s{part}"
        f"  cpu {row['cpu'][0]:.2f} + {row['cpu'][1]:.2f}"
        f"  job {1000 * row['job']:.0f} ms"
        f"  memory {row['memory'][0] // _MB} + {row['memory'][1] // _MB} MB"
        f"  steal {row['steal']:.2f}  {phases}"
    )


def transfers(rows: list[Row]) -> list[str]:
    """Markdown: one table for each link profile and data set, then the goals."""
    text: list[str] = []
    for profile, data in dict.fromkeys((row["Profile"], row["Data"]) for row in rows):
        cells = Cells(rows, profile, data)
        share = "" if cells.share == 1 else f", {cells.share:g} of it"
        when = {
            f"{row['Session']}, {row['Machine']}, {row['Commit']}"
            for row in rows
            if row["Profile"] == profile and row["Data"] == data
        }
        text += [f"### {profile}: ({data}) {DATA[data]}{share}", "", f"{'; '.join(sorted(when))}.", ""]
        text += _table(_HEADS, (_transfer(cells, side) for side in cells.sides))
        text.append("")
    return [*text, "### Goals", "", *_goals(goals.of_transfers(rows))]


_HEADS = (
    "",
    "s, median (least–most of n)",
    "of peer store",
    "CPU s, sender + receiver",
    "memory, MB, sender + receiver",
    "first bucket, sending, import, s",
    "a job, ms",
    "wire, MB",
    "ratio, codecs",
    "steal, s",
)


def _transfer(cells: Cells, side: str) -> list[str]:
    rows = cells.of(side)
    walls = [wall(row) for row in rows]
    content = rows[-1]["content"]
    codecs = ", ".join(content.get("Codecs", {}))
    part = rows[0]["Part"]
    about, of_what = ("", "") if part == 1 else ("≈ ", f", from {part:g} of it")
    first = _shown(cells, side, lambda row: row["first"]) if all(row["first"] for row in rows) else "–"
    phases = (
        f"{first}, {_shown(cells, side, sending)}, {_shown(cells, side, importing)}"
        if rows[0]["phases"]
        else ""
    )
    return [
        side,
        f"{about}**{_shown(cells, side, wall)}** ({min(walls):.2f}–{max(walls):.2f} of {len(walls)}){of_what}",
        _number(cells.ratio(side, STORE)),
        " + ".join(_shown(cells, side, lambda row, end=end: row["cpu"][end] / row["Part"]) for end in (0, 1)),
        " + ".join(
            f"{cells.value(side, lambda row, end=end: row['memory'][end] / _MB):.0f}" for end in (0, 1)
        ),
        phases,
        f"{1000 * job:.0f}" if (job := cells.value(side, lambda row: row.get("job", 0))) else "",
        _wire(cells, side),
        f"{content.get('CompressionRatio', '')} {codecs}".strip(),
        _shown(cells, side, lambda row: row["steal"]),
    ]


def _wire(cells: Cells, side: str) -> str:
    """What the job says, and what the link says."""
    content = cells.of(side)[-1]["content"]
    said = content.get("UploadedSizeMB", content.get("DownloadedSizeMB"))
    link = cells.value(side, lambda row: row["wire"] / row["Part"] / _MB)
    return ", ".join(
        [*([f"{said}"] if said is not None else []), *([f"{link:.0f} on the link"] if link else [])]
    )


def _shown(cells: Cells, side: str, figure: Figure) -> str:
    return _number(cells.value(side, figure))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def utilization_line(row: Row) -> str:
    """How much of a link was used, as one line of text."""
    return f"{row['Profile']:28} {row['Side']:24} {_used(row)} %"


def utilization(rows: list[Row]) -> list[str]:
    """Markdown: utilization of each link, in percent of its rate, as measured last."""
    sides = list(dict.fromkeys(row["Side"] for row in rows))
    used = {(row["Profile"], row["Side"]): row for row in rows}
    profiles = sorted({row["Profile"] for row in rows}, key=_numbers)
    shown = ([profile, *(_used(used.get((profile, side))) for side in sides)] for profile in profiles)
    return _table(["whole, middle, % of the rate", *sides], shown)


def _numbers(profile: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", profile)]


def _used(row: Row | None) -> str:
    return "" if row is None else f"{100 * row['Whole']:.0f}, {100 * row['Middle']:.0f}"


def codecs(table: Table) -> list[str]:
    """Markdown, and the goals."""
    names = list(next(iter(table.values())))
    rows = (
        [what, *(f"{cells[name]['Ratio']:.2f}, {cells[name]['Speed']:.0f}" for name in names)]
        for what, cells in table.items()
    )
    return [*_table(["ratio, MB/s of one core", *names], rows), "", *_goals(goals.of_codecs(table))]


def _goals(found: Iterable[Goal]) -> list[str]:
    rows = (
        [
            goal.what,
            f"{'≥' if goal.least else '≤'} {goal.bound:g}{goal.unit}",
            f"{goal.found:.2f}{goal.unit}",
            "yes" if goal.reached else "**no**",
        ]
        for goal in found
    )
    return _table(["", "goal", "found", "reached"], rows)


def _table(heads: Iterable[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [list(heads), *rows]
    return [f"| {' | '.join(cells)} |" for cells in (lines[0], ["---"] * len(lines[0]), *lines[1:])]


def write(page: Path, mark: str, text: list[str]) -> None:
    """Put lines between the marks of a page. Raises ``ValueError`` if it has none."""
    between = rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)"
    body = "\n".join(text)
    written, marks = re.subn(
        between, lambda match: f"{match[1]}\n{body}\n\n{match[2]}", page.read_text(), flags=re.DOTALL
    )
    if marks != 1:
        raise ValueError(f"{page} has no marks for {mark}")
    page.write_text(written)
