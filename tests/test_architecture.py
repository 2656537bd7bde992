"""The layers of docs/design.md. Imports go to lower layers only, and never between the three in the middle:

core <- runtime <- interfaces <- (net | pipeline | receiver) <- jobs <- ledger <- rules <- rest <- host <- plugin

``cluster`` is beside ``jobs``; only ``clustering``, beside the composition root, knows it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "orthanc_transfers"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    "_version": 0,
    "_startup": 0,
    "core": 0,
    "explorer": 0,
    "companion": 0,
    "runtime": 1,
    "interfaces": 2,
    "net": 3,
    "pipeline": 3,
    "receiver": 3,
    "jobs": 4,
    "cluster": 4,
    "ledger": 5,
    "rules": 6,
    "rest": 7,
    "host": 8,
    "clustering": 8,
    "plugin": 9,
    "cli": 9,
    "": 10,
    "entry": 11,
    "__main__": 11,
}
"""Folder or module below the package -> its floor; "" is ``orthanc_transfers/__init__.py``."""

THREADS = "orthanc_transfers.runtime.threads"
"""The one module that starts threads."""

IMPORTERS = {"orthanc": ("host", "_startup", "entry")}
"""Who may import Python's module of Orthanc: also who says that nothing else of the package can be imported."""

IMPURE = {
    "asyncio",
    "concurrent",
    "ctypes",
    "datetime",
    "fcntl",
    "http",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "orthanc",
    "os",
    "pathlib",
    "queue",
    "random",
    "requests",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib3",
    "uuid",
}
"""What ``core`` must not import: threads, files, sockets, the clock, chance, Orthanc."""


def imports(source: str) -> Iterator[str]:
    """The full names of all modules that a source imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide from where a name comes"
            yield node.module or ""
            # from orthanc_transfers.host import metrics
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> str:
    """``orthanc_transfers.core.model`` -> ``core``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


def name_of(path: Path) -> str:
    return ".".join(("orthanc_transfers", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def violations(module: str, source: str) -> list[str]:
    """What a module must not do, given where it stands."""
    here = layer(module)
    found = []
    for name in imports(source):
        top = name.split(".")[0]
        if top == "orthanc_transfers" and name != "orthanc_transfers":
            there = layer(name)
            if there != here and LAYERS[there] >= LAYERS[here]:
                found.append(f"{module} imports {name}: {here} must not know of {there}")
        if top in ("ctypes", "orthanc") and here not in IMPORTERS.get(top, ("host",)):
            found.append(f"{module} imports {top}, which only host/ may")
        if here == "core" and top in IMPURE:
            found.append(f"{module} imports {top}: core is pure")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.split(".")[-1] in ("Thread", "ThreadPoolExecutor", "Timer") and module != THREADS:
            found.append(f"{module} starts a thread; only runtime/threads.py does")
        if here == "core" and called == "open":
            found.append(f"{module} opens a file: core is pure")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_keeps_to_its_layer(path: Path) -> None:
    assert violations(name_of(path), path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_module_has_a_place_in_the_layers() -> None:
    packages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert packages - {"__init__"} <= LAYERS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.planner", "from orthanc_transfers.interfaces import Clock"),
        ("core.planner", "from orthanc_transfers import net"),
        ("core.backoff", "def delay():\n    import time"),
        ("core.settings", "text = open('orthanc.json').read()"),
        ("runtime.journal", "from orthanc_transfers.interfaces import Clock"),
        ("net.retry", "from orthanc_transfers.jobs.context import RunContext"),
        ("net.retry", "from orthanc_transfers.pipeline.progress import Progress"),
        ("pipeline.executor", "from orthanc_transfers.receiver import writer"),
        ("receiver.staging", "from orthanc_transfers.net.bandwidth import Bandwidth"),
        ("receiver.registry", "from orthanc_transfers.cluster.ownership import PostgresOwnership"),
        ("jobs.push", "import orthanc_transfers.host.jobs"),
        ("jobs.push", "import orthanc"),
        ("jobs.push", "threading.Thread(target=run).start()"),
        ("rest.peer_routes", "from ctypes import c_void_p"),
        ("host.jobs", "from orthanc_transfers import plugin"),
    ],
)
def test_a_breach_of_the_layers_is_noticed(module: str, source: str) -> None:
    assert violations(f"orthanc_transfers.{module}", source)


def graph() -> dict[str, set[str]]:
    """Which modules each module imports, by their names below the package; ``__init__.py`` left out."""
    names = {name_of(path).partition(".")[2] for path in MODULES if path.name != "__init__.py"}
    return {
        name: {one.partition(".")[2] for one in imports(source_of(name))} & names - {name} for name in names
    }


def source_of(name: str) -> str:
    return (PACKAGE / (name.replace(".", "/") + ".py")).read_text()


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Each module's floor: 0 if it imports none of the others, else one above the highest it imports.

    Raises ``CycleError`` if imports go in a circle.
    """
    found: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        found[name] = max((found[one] + 1 for one in arrows[name]), default=0)
    return found


def test_no_imports_in_a_circle_and_how_many_floors_and_arrows_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrows = graph()
    floors(arrows)
    packages = sorted(
        {name.rpartition(".")[0] for name in arrows} - {""}, key=lambda one: (LAYERS[one.split(".")[0]], one)
    )
    rows = []
    for package in packages:
        inside = {name for name in arrows if name.rpartition(".")[0] == package}
        within = {name: arrows[name] & inside for name in inside}
        out = {one.rpartition(".")[0] or one for name in inside for one in arrows[name] - inside}
        rows.append(
            f"{package:12} {len(inside):3} modules on {max(floors(within).values()) + 1} floors,"
            f" {sum(map(len, within.values())):3} arrows within, to {len(out)} other packages"
        )
    with capsys.disabled():
        print("", *rows, sep="\n")


def test_every_module_has_its_place_in_the_design() -> None:
    design = (PACKAGE.parent / "docs" / "design.md").read_text()
    named = set(re.findall(r"\w+\.py\b", design))
    modules = {module.name for module in MODULES if module.name != "__init__.py"}
    assert modules - named == set()
    # And nothing is told of that is not there.
    tests = {path.name for path in (PACKAGE.parent / "tests").rglob("*.py")}
    assert named - modules - tests - {"__init__.py"} == set()
