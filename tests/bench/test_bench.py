"""The benchmark works: a few small files, two methods, loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.job_client import in_sum, own_seconds
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
    assert f"push auto: of the peer store's time | ≤ 0.25 | {ratio:.2f} |" in done.stdout


@pytest.mark.orthanc
def test_each_study_of_the_routing_data_is_a_job_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--folder", tmp_path),
            *("--data", "r,o", "--share", "0.1", "--runs", "1", "--sides", "peer store,push auto"),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(row["Data"], row["Side"]): row for row in json.loads((tmp_path / "runs.json").read_text())}
    assert rows["r", "push auto"]["content"]["Report"]["Stored"] == 20 * 5
    assert rows["o", "push auto"]["content"]["Report"]["Stored"] == 3
    used = sum(rows["r", "push auto"]["cpu"]) / sum(rows["r", "peer store"]["cpu"])
    assert f"push auto: of the peer store's CPU seconds | ≤ 0.8 | {used:.2f} |" in done.stdout
    milliseconds = 1000 * rows["o", "push auto"]["job"]
    assert f"push auto: a job, by its own times | ≤ 25 ms | {milliseconds:.2f} ms |" in done.stdout


@pytest.mark.orthanc
@pytest.mark.parametrize("https", ["nginx", "orthanc"])
def test_a_receiver_may_have_others_already_and_be_behind_https(tmp_path: Path, https: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.bench", "--folder", tmp_path, "--data", "b", "--share", "0.004"),
            *("--runs", "1", "--sides", "push auto", "--again", "--preloaded", "500", "--https", https),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["Side"]: row for row in json.loads((tmp_path / "runs.json").read_text())}
    assert {row["Profile"] for row in rows.values()} == {
        f"loopback, HTTPS by {https}, receiver with 500 others"
    }
    assert rows["push auto"]["content"]["Report"]["Stored"] == 20
    assert rows["push auto, nothing new"]["content"]["AlreadyStoredInstances"] == 20


def test_contents_of_several_jobs_are_added_up() -> None:
    one = {"Peer": "b", "TotalInstances": 5, "Report": {"Stored": 4, "AlreadyStored": 1}}
    other = {"Peer": "b", "TotalInstances": 2, "Report": {"Stored": 2}, "Phase": "Done"}
    assert in_sum([one, other]) == {
        "Peer": "b",
        "TotalInstances": 7,
        "Report": {"Stored": 6, "AlreadyStored": 1},
        "Phase": "Done",
    }


def test_a_job_says_how_long_it_lasted() -> None:
    job = {"CreationTime": "20261127T235959.990000", "CompletionTime": "20261128T000000.015000"}
    assert own_seconds(job) == pytest.approx(0.025)


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
