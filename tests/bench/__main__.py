"""``make bench``: transfers of this plugin beside other ways to move DICOM, in the same run.

Every side is run once, then every side again, and so on; medians and ratios are of these. Results are added to
``.cache/bench/results.json``; ``--write`` renders them into docs/performance.md and docs/performance.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import codecs, report
from tests.bench.data import DATA, files
from tests.bench.measuring import Figures, import_locally, measure
from tests.bench.places import DICOMWEB, Place, link, servers, settle
from tests.bench.sides import LOCAL, SIDES, STORE_A_PART
from tests.support.orthanc_server import CHECKOUT, OrthancServer
from tests.support.wan import Lab

CACHE = CHECKOUT / ".cache" / "bench"
RESULTS = CACHE / "results.json"
_NAME = "bench"


def main() -> None:
    options = _parse()
    if options.write:
        report.write(_load())
        return
    if options.codecs:
        codecs.main(CACHE)
        return
    for place in map(Place.parse, options.where.split(",")):
        if place.local or options.inside:
            _run(place, options)
            continue
        with link(place, _NAME) as made:
            # A process of its own at the sender's end of the link: what it asks its server does not cross it.
            again = [sys.executable, "-m", "tests.bench", *sys.argv[1:], "--inside"]
            again += ["--where", f"{place.rtt:g}:{place.rate:g}:{place.loss:g}"]
            subprocess.run([*made.inside("a"), *again], check=True, cwd=CHECKOUT)
            print(made.stats())
    if not options.inside:
        report.show(_load())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--where", default="loopback", help="loopback, RTT:RATE[:LOSS] in ms, Mbit/s, %%; commas"
    )
    parser.add_argument(
        "--data", default="a", help=", ".join(f"{key}: {text}" for key, (text, _) in DATA.items())
    )
    parser.add_argument("--sides", default="", help=f"commas: {', '.join(SIDES)}, {LOCAL}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of each data set, for a quick look")
    parser.add_argument("--again", action="store_true", help="also: nothing new, and 1 %% new")
    parser.add_argument("--codecs", action="store_true", help="codecs alone, on one core")
    parser.add_argument("--write", action="store_true", help="render all results into docs/")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(place: Place, options: argparse.Namespace) -> None:
    wanted = [name for name in options.sides.split(",") if name] or _usual(place)
    for data in options.data.split(","):
        found = files(CACHE, data, options.share)
        for stand_in in (False, True):
            names = [name for name in wanted if name == LOCAL or SIDES[name].version_1 == stand_in]
            if stand_in:
                names = [name for name in names if name != LOCAL]
            if names:
                _run_sides(place, data, found, names, options, stand_in)


def _usual(place: Place) -> list[str]:
    names = [name for name, side in SIDES.items() if side.part == 1 and (name != "STOW" or DICOMWEB.exists())]
    return (
        [LOCAL, *names] if place.local else [STORE_A_PART, "push auto", "pull auto", "push none", "push gzip"]
    )


def _run_sides(
    place: Place,
    data: str,
    found: list[Path],
    names: list[str],
    options: argparse.Namespace,
    stand_in: bool,
) -> None:
    folder = CACHE / "servers"
    shutil.rmtree(folder, ignore_errors=True)
    # Off loopback this runs at one end of a link that is up already.
    with servers(folder, None if place.local else Lab(_NAME), stand_in=stand_in) as (a, b):
        stored = a.upload_all(file.read_bytes() for file in found)
        study = stored[0]["ParentStudy"]
        # Asking a job at the other end of a link costs the link something.
        every = 0.01 if place.local else 0.05
        for number in range(options.runs):
            for name in names:
                b.clear()
                settle()
                figures = (
                    import_locally(found, b) if name == LOCAL else measure(SIDES[name], a, b, study, every)
                )
                if name != LOCAL:
                    figures.wall *= SIDES[name].part
                _keep(place, data, options.share, name, figures)
                if options.again and name in SIDES and SIDES[name].ours:
                    for kind, share in (("nothing new", 0.0), ("1 % new", 0.01)):
                        _remove(b, share)
                        settle()
                        figures = measure(SIDES[name], a, b, study, every)
                        _keep(place, data, options.share, f"{name}, {kind}", figures)
            print(f"run {number + 1} of {options.runs} is done", flush=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove(b: OrthancServer, share: float) -> None:
    instances = b.instances()
    for identifier in instances[:: max(1, round(1 / share))] if share else ():
        b.delete(f"instances/{identifier}")


def _keep(place: Place, data: str, share: float, side: str, figures: Figures) -> None:
    row = {
        "Place": str(place),
        "Rate": place.rate,
        "Data": data,
        "Share": share,
        "Side": side,
        "When": time.time(),
        **asdict(figures),
    }
    rows = [*_load(), row]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1))
    print(report.line(row), flush=True)


def _load() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


if __name__ == "__main__":
    main()
