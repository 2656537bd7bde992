"""The documents tell of what is there: links, files, names, targets of make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *CHECKOUT.glob("docs/**/*.md"),
        *(CHECKOUT / "tests").rglob("*.md"),
    ]
)
DECISIONS = CHECKOUT / "docs" / "decisions"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))

ROOTS = (CHECKOUT, CHECKOUT / "orthanc_transfers", CHECKOUT / "tests")
"""Where the paths in the documents start."""

SUFFIXES = "py|md|json|js|sh|yml|toml|png|c"


def text_of(page: Path) -> str:
    """The page without its blocks of code, in which brackets are no links."""
    return re.sub(r"^```.*?^```|^    .*?$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    plain = (re.sub(r"\]\(.*?\)", "", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@each_page
def test_each_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    dead = []
    for link in links:
        if re.match("[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def named_paths(page: Path) -> Iterator[str]:
    """What stands in backticks and looks like a file or a folder of this project."""
    for words in re.findall(r"`([^`\n]+)`", text_of(page)):
        if re.fullmatch(rf"[\w.-]+(?:/[\w.-]+)*\.(?:{SUFFIXES})", words) or re.fullmatch(
            r"(?:orthanc_transfers|tests|docs|scripts|configs|docker|\.ci)/[\w./-]*", words
        ):
            yield words


@cache
def file_names() -> set[str]:
    return {path.name for folder in ("orthanc_transfers", "tests") for path in (CHECKOUT / folder).rglob("*")}


@each_page
def test_each_file_that_is_named_is_there(page: Path) -> None:
    missing = [
        name
        for name in named_paths(page)
        if not any((root / name).exists() for root in (*ROOTS, page.parent))
        # A bare name stands for a file in a folder that the text has named.
        and ("/" in name or name not in file_names())
    ]
    assert missing == []


@cache
def words_of_the_sources() -> set[str]:
    files = [
        path
        for folder in ("orthanc_transfers", "tests")
        for path in (CHECKOUT / folder).rglob("*")
        if path.suffix in (".py", ".js") and path != Path(__file__)
    ]
    return {word for path in files for word in re.findall(r"\w+", path.read_text())}


@pytest.mark.parametrize(
    "page",
    [CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "docs" / "design.md", *sorted(DECISIONS.glob("*.md"))],
    ids=lambda page: page.name,
)
def test_each_name_of_code_that_is_named_is_there(page: Path) -> None:
    names = {
        name
        for name in re.findall(r"`(_?[A-Za-z][\w.]*\w)(?:\(\))?`", text_of(page))
        if name not in named_paths(page)
    }
    missing = {name for name in names if not set(name.split(".")) <= words_of_the_sources()}
    assert missing == set()


@each_page
def test_each_target_of_make_that_is_named_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = set(re.findall(r"(?:`|^ +)make ([a-z][a-z-]*)", text, re.MULTILINE))
    assert named - targets == set()


@each_page
@pytest.mark.parametrize(
    ("variable", "program"),
    [
        ("BENCH_ARGS", "tests/bench/__main__.py"),
        ("TORTURE_ARGS", "tests/faults/torture/__main__.py"),
        ("DEMO_ARGS", "scripts/demo.py"),
    ],
)
def test_each_option_of_a_program_that_is_named_is_there(page: Path, variable: str, program: str) -> None:
    arguments = " ".join(re.findall(rf"{variable}=([^\"`\s]+|\"[^\"]*\")", page.read_text()))
    source = (CHECKOUT / program).read_text()
    named = set(re.findall(r"--[a-z-]+", arguments)) - {"--help"}
    assert {option for option in named if f'"{option}"' not in source} == set()


def test_the_readme_names_each_target_that_runs_tests() -> None:
    targets = set(re.findall(r"^(test[a-z-]*|torture|bench):.*##", (CHECKOUT / "Makefile").read_text(), re.M))
    readme = (CHECKOUT / "README.md").read_text()
    assert {target for target in targets if f"`make {target}`" not in readme} == set()


def test_the_design_says_of_each_module_over_300_lines_why_it_is_whole() -> None:
    package = CHECKOUT / "orthanc_transfers"
    long = {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 300
    }
    (section,) = re.findall(
        r"^### Modules over 300 lines\n(.*?)^## ",
        (CHECKOUT / "docs" / "design.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    rows = re.findall(r"^\| `([\w/]+\.py)`", section, re.MULTILINE)
    assert sorted(rows) == sorted(long)
    assert {name for name, lines in long.items() if lines > 400} == set()


def test_the_index_of_decisions_is_complete_and_they_are_numbered_without_gaps() -> None:
    pages = sorted(path.name for path in DECISIONS.glob("*.md") if path.name != "README.md")
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    rows = re.findall(r"^\| \[(\d{4})\]\((.*?)\) \| (.*) \|$", (DECISIONS / "README.md").read_text(), re.M)
    assert [row[1] for row in rows] == pages
    for number, name, title in rows:
        page = (DECISIONS / name).read_text()
        assert page.startswith(f"# {int(number)}. {title}\n")
        headings = re.findall("^## (.*)$", page, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "In the code"]


def test_the_patterns_of_tests_that_reliability_names_are_those_of_tests() -> None:
    page = (CHECKOUT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\|.*\| (.*) \|$", page, re.MULTILINE)
    for row in rows:
        path = re.search(r"`([\w/]+\.py)`", row)
        for pattern in re.findall(r"`\*(\w+)\*`", row):
            assert path is not None
            source = (CHECKOUT / "tests" / path[1]).read_text()
            assert re.search(rf"def test_\w*{pattern}", source), pattern


def test_each_page_of_measurements_has_the_marks_between_which_make_bench_writes() -> None:
    folder = CHECKOUT / "docs" / "measurements"
    for name, mark in (("transfers", "results"), ("links", "links"), ("codecs", "codecs")):
        page = (folder / f"{name}.md").read_text()
        assert page.index(f"<!-- {mark} -->\n") < page.index(f"<!-- end of {mark} -->\n")


@each_page
def test_each_row_of_a_table_has_as_many_cells_as_its_head(page: Path) -> None:
    columns = 0
    for line in text_of(page).splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        assert line.endswith("|"), line
        # A bar in backticks still parts cells, unless a backslash stands before it.
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        columns = columns or cells
        assert cells == columns, line
