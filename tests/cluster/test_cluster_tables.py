"""The benchmark of the tables, with few of everything: what it says of requests is what docs/measurements tells."""

from __future__ import annotations

import re

import pytest

from tests.bench.cluster_tables import measure
from tests.support.orthanc_server import CHECKOUT
from tests.support.postgresql import postgresql_is_installed

PAGE = CHECKOUT / "docs" / "measurements" / "cluster.md"


@pytest.mark.skipif(not postgresql_is_installed(), reason="PostgreSQL is not installed")
def test_the_requests_of_a_transfer_and_of_a_bucket_are_those_of_the_page() -> None:
    results = measure(past=200, transfers=3, durable=False)
    page = dict(re.findall(r"^\| (requests of .*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE))
    assert len(page) == 3
    assert {name: results.values[name] for name in page} == page
    shared, own = (
        float(results.values[f"requests of one transfer, {name}"])
        for name in ("shared staging", "staging of its own")
    )
    assert max(shared, own) <= 6
    assert results.values["requests of one bucket at the owner, or handed on"] == "0"
