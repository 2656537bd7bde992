"""The layers of docs/design.md: core ← transfer ← rest ← host ← plugin. Imports go leftwards only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "orthanc_transfers"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {"core": 0, "explorer": 0, "transfer": 1, "rest": 2, "host": 3, "plugin": 4, "": 4, "entry": 5}
"""Folder or module below the package -> its place; "" is ``orthanc_transfers/__init__.py``."""

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
"""What the core must not import: threads, files, sockets, the clock, chance, Orthanc."""


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
            if there and LAYERS[there] > LAYERS[here]:
                found.append(f"{module} imports {name}: {here} must not know of {there}")
        if top in ("ctypes", "orthanc") and here != "host":
            found.append(f"{module} imports {top}, which only host/ may")
        if here == "core" and top in IMPURE:
            found.append(f"{module} imports {top}: the core is pure")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.split(".")[-1] in ("Thread", "ThreadPoolExecutor", "Timer") and module != (
            "orthanc_transfers.transfer.workers"
        ):
            found.append(f"{module} starts a thread; only transfer/workers.py does")
        if here == "core" and called == "open":
            found.append(f"{module} opens a file: the core is pure")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_keeps_to_its_layer(path: Path) -> None:
    assert violations(name_of(path), path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_module_has_a_place_in_the_layers() -> None:
    places = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert places - {"__init__"} <= LAYERS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.planner", "from orthanc_transfers.transfer.ports import Clock"),
        ("core.planner", "from orthanc_transfers import transfer"),
        ("core.backoff", "def delay():\n    import time"),
        ("core.settings", "text = open('orthanc.json').read()"),
        ("transfer.push", "import orthanc_transfers.host.jobs"),
        ("transfer.push", "import orthanc"),
        ("transfer.push", "threading.Thread(target=run).start()"),
        ("rest.passive", "from ctypes import c_void_p"),
        ("host.jobs", "from orthanc_transfers import plugin"),
    ],
)
def test_a_breach_of_the_layers_is_noticed(module: str, source: str) -> None:
    assert violations(f"orthanc_transfers.{module}", source)


def test_every_module_has_its_place_in_the_design() -> None:
    design = (PACKAGE.parent / "docs" / "design.md").read_text()
    named = set(re.findall(r"\w+\.py\b", design))
    modules = {module.name for module in MODULES if module.name != "__init__.py"}
    assert modules - named == set()
    # And nothing is told of that is not there.
    tests = {path.name for path in (PACKAGE.parent / "tests").rglob("*.py")}
    assert named - modules - tests - {"__init__.py"} == set()
