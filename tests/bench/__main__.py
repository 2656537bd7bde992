"""``make bench``: transfers of this plugin beside other ways to move DICOM, in the same run.

Every side is run once, then every side again, and so on; medians and ratios are of these. Each run begins with both
servers started anew and the receiver empty. All runs are kept in ``.cache/bench/runs.json``; ``--write`` renders,
for each link profile and data set, the last session that had the peer store in it into docs/measurements and its plot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import archive, codecs, link_utilization, plot, report, results
from tests.bench.datasets import DATA, Jobs, files
from tests.bench.import_baseline import import_locally
from tests.bench.link_profile import LinkProfile
from tests.bench.measurement import Measurement, measure
from tests.bench.server_pair import DICOMWEB, ITSELF, NGINX, STAND_IN, Pair
from tests.bench.transfer_methods import LOCAL, METHODS, STORE, Resources
from tests.support.orthanc_server import CHECKOUT, ENTRY
from tests.support.wan_link import WanLink

PAGES = CHECKOUT / "docs" / "measurements"
PLOT = CHECKOUT / "docs" / "performance.png"

_ALL = [*LOCAL, *METHODS]
_AGAIN = ["push auto", "pull auto"]
_ON_A_LINK = [STORE, "push auto", "pull auto", "push none", "push gzip"]


def main() -> None:
    options = _parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs, codecs_file = options.folder / "runs.json", options.folder / "codecs.json"
    links_file = options.folder / "links.json"
    if options.codecs:
        table = codecs.measure(options.folder)
        codecs_file.write_text(json.dumps(table, indent=1))
        print("\n".join(report.codecs(table)))
    elif options.links is not None:
        for profile in options.links:
            for row in link_utilization.measure(profile, options.folder):
                results.keep(links_file, row)
                print(report.utilization_line(row), flush=True)
        print("\n".join(report.utilization(results.load(links_file))))
    elif options.write:
        rows = results.of_last_sessions(results.load(runs))
        if not rows:
            raise SystemExit(f"no session in {runs} has the peer store in it")
        report.write(PAGES / "transfers.md", "results", report.transfers(rows))
        plot.draw(rows, PLOT)
        if links_file.exists():
            report.write(PAGES / "links.md", "links", report.utilization(results.load(links_file)))
        if codecs_file.exists():
            table = json.loads(codecs_file.read_text())
            report.write(PAGES / "codecs.md", "codecs", report.codecs(table))
    else:
        session = Session(options, runs)
        for profile in options.where:
            session.run(profile)
        print("\n".join(report.transfers(session.rows)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--where",
        type=lambda text: [LinkProfile.parse(one) for one in text.split(",")],
        default=[LinkProfile()],
        help="loopback, RTT:RATE[:LOSS] in ms, Mbit/s, %%; commas",
    )
    parser.add_argument(
        "--data",
        type=_listed(DATA),
        default=["a"],
        help="; ".join(f"{key}: {data}" for key, data in DATA.items()),
    )
    parser.add_argument(
        "--sides",
        type=_listed(_ALL),
        default=[],
        help=f"commas; of {', '.join(_ALL)}. Default: all on loopback; on a link {', '.join(_ON_A_LINK)}",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of each data set, for a quick look")
    parser.add_argument(
        "--peer-store-share",
        type=float,
        default=0.05,
        help="of the instances, which the peer store brings over a link, where all would take too long; "
        "its time is extrapolated from them (default 0.05)",
    )
    parser.add_argument(
        "--https",
        choices=[NGINX, ITSELF],
        help="with TLS, by nginx in front of each Orthanc, or by Orthanc itself",
    )
    parser.add_argument(
        "--preloaded", type=int, default=0, help="instances that the receiver has already: others, small ones"
    )
    parser.add_argument("--again", action="store_true", help="auto also with nothing new, and with 1 %% new")
    parser.add_argument("--codecs", action="store_true", help="codecs alone, on one core")
    parser.add_argument(
        "--links",
        nargs="?",
        type=lambda text: [LinkProfile.parse(one) for one in text.split(",")],
        const=[LinkProfile.parse(one) for one in link_utilization.ALL],
        help="utilization of links, RTT:RATE as above (root; iperf3 for comparison)",
    )
    parser.add_argument("--write", action="store_true", help="render what is kept into docs/")
    parser.add_argument(
        "--folder", type=Path, default=CHECKOUT / ".cache" / "bench", help="where data and runs are kept"
    )
    return parser.parse_args()


def _listed(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


@dataclass(frozen=True)
class Load:
    """What is being sent where."""

    profile: LinkProfile
    data: str
    files: list[Path]
    run: int


class Session:
    """One call of the program. ``rows`` are its runs."""

    def __init__(self, options: argparse.Namespace, file: Path) -> None:
        self._options = options
        self._file = file
        self.rows: list[results.Row] = []
        self._with = [f"HTTPS by {options.https}"] if options.https else []
        if options.preloaded:
            self._with.append(f"receiver with {options.preloaded} others")
        self._facts = {
            "Session": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            "Commit": _commit(),
            "Machine": _machine(),
        }

    def run(self, profile: LinkProfile) -> None:
        """All data sets and methods with one link profile."""
        options = self._options
        wanted = options.sides or (_usual() if profile.local else _ON_A_LINK)
        for data in options.data:
            found = files(options.folder, data, options.share)
            with (
                profile.link() as link,
                tempfile.TemporaryDirectory(dir=options.folder) as folder,
                self._pairs(Path(folder), link, wanted, found) as pairs,
            ):
                for number in range(1, options.runs + 1):
                    load = Load(profile, data, found, number)
                    for name in wanted:
                        self._run_side(load, name, pairs, Path(folder))

    @contextlib.contextmanager
    def _pairs(
        self, folder: Path, link: WanLink | None, sides: list[str], found: list[Path]
    ) -> Iterator[dict[bool, tuple[Pair, Resources]]]:
        """The servers for the sides that are not, and that are, the stand-in; and what the senders have."""
        options = self._options
        made: dict[bool, tuple[Pair, Resources]] = {}
        there = archive.make(folder, options.preloaded) if options.preloaded else None
        try:
            for stand_in in {METHODS[name].stand_in for name in sides if name in METHODS}:
                place, script = folder / str(stand_in), STAND_IN if stand_in else ENTRY
                place.mkdir()
                pair = Pair(place, link, script, https=options.https, archive=there)
                made[stand_in] = pair, []
                made[stand_in] = pair, pair.fill(found)
            yield made
        finally:
            for pair, _ in made.values():
                pair.remove()

    def _run_side(
        self, load: Load, name: str, pairs: dict[bool, tuple[Pair, Resources]], folder: Path
    ) -> None:
        if name in LOCAL:
            self._keep(load, name, import_locally(name, load.files, folder))
            return
        side, options = METHODS[name], self._options
        pair, resources = pairs[side.stand_in]
        part = 1.0
        if name == STORE and not load.profile.local and options.peer_store_share < 1:
            resources, part = _part(pair, options.peer_store_share)
        jobs = DATA[load.data].jobs
        run = partial(
            measure,
            side,
            pair,
            [resources] if jobs is Jobs.TOGETHER else [[one] for one in resources],
            in_turn=jobs is Jobs.IN_TURN,
        )
        pair.renew()
        figures = run()
        _check(pair, name, part, figures, options.preloaded)
        self._keep(load, name, figures, part)
        if options.again and name in _AGAIN:
            self._keep(load, f"{name}, nothing new", run())
            if options.preloaded:
                return
            pair.lose(0.01)
            self._keep(load, f"{name}, 1 % new", run())

    def _keep(self, load: Load, side: str, figures: Measurement, part: float = 1.0) -> None:
        row = {
            **self._facts,
            "Profile": ", ".join([str(load.profile), *self._with]),
            "Rate": load.profile.rate,
            "Data": load.data,
            "Share": self._options.share,
            "Side": side,
            "Run": load.run,
            "Part": part,
            **asdict(figures),
        }
        self.rows.append(row)
        results.keep(self._file, row)
        print(f"{load.run}: {report.run_line(row)}", flush=True)


def _usual() -> list[str]:
    return [name for name in _ALL if name != "STOW" or DICOMWEB.exists()]


def _part(pair: Pair, share: float) -> tuple[Resources, float]:
    """Some of the sender's instances, and what share they are."""
    with pair.near(pair.a):
        instances = pair.a.instances()
    taken = instances[:: round(1 / share)]
    return [{"Level": "Instance", "ID": one} for one in taken], len(taken) / len(instances)


def _check(pair: Pair, name: str, part: float, figures: Measurement, preloaded: int) -> None:
    """Raises ``RuntimeError`` unless this run brought all that it should, by itself."""
    wanted, found = round(pair.count(pair.a) * part), pair.count(pair.b) - preloaded
    stored = figures.content.get("Report", {}).get("Stored", found)
    if not wanted == found == stored:
        raise RuntimeError(f"{name}: {wanted} instances wanted, {found} there, {stored} by this transfer")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit"  # an unpacked archive, or no git
    return done.stdout.strip()


def _machine() -> str:
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{len(models)} x {models[0]}, Linux {platform.release()}" if models else platform.platform()


if __name__ == "__main__":
    main()
