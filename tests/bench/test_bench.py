"""The benchmark works: a few small files, two methods, loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import report
from tests.support.orthanc_server import CHECKOUT

PAGES = CHECKOUT / "docs" / "measurements"


@pytest.mark.orthanc
def test_each_side_is_measured_and_compared_with_the_peer_store(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--folder", tmp_path),
            *("--data", "b", "--share", "0.004", "--runs", "1"),
            *("--sides", "import inside,peer store,push auto", "--again"),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["Side"]: row for row in json.loads((tmp_path / "runs.json").read_text())}
    assert list(rows) == [
        *("import inside", "peer store", "push auto", "push auto, nothing new", "push auto, 1 % new")
    ]
    assert rows["push auto"]["content"]["TotalInstances"] == 20
    assert rows["push auto"]["content"]["Report"]["Stored"] == 20
    assert rows["push auto, nothing new"]["content"]["AlreadyStoredInstances"] == 20
    assert rows["push auto, 1 % new"]["content"]["AlreadyStoredInstances"] == 19
    ratio = rows["push auto"]["wall"] / rows["peer store"]["wall"]
    assert f"push auto: of the peer store's time | ≤ 0.3 | {ratio:.2f} |" in done.stdout


@pytest.mark.parametrize(
    ("page", "mark"), [("transfers", "results"), ("links", "links"), ("codecs", "codecs")]
)
def test_a_page_has_the_marks_between_which_its_tables_are_written(
    page: str, mark: str, tmp_path: Path
) -> None:
    copy = tmp_path / "page.md"
    copy.write_text((PAGES / f"{page}.md").read_text())
    report.write(copy, mark, ["a table"])
    assert f"<!-- {mark} -->\n\na table\n\n<!-- end of {mark} -->" in copy.read_text()
