"""Fixtures for all folders of tests: servers that end with their test and show their log when it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.orthanc_server import OrthancServer, pair, start_together

MakeServer = Callable[..., OrthancServer]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers (not started), each in a folder of its own; they end with the test."""
    yield from _servers(tmp_path)


@pytest.fixture(scope="module")
def make_shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """As ``make_server``, for servers that all tests of a file share."""
    yield from _servers(tmp_path_factory.mktemp("orthanc"))


def _servers(folder: Path) -> Iterator[MakeServer]:
    made: list[OrthancServer] = []

    def make(name: str, **options: Any) -> OrthancServer:
        server = OrthancServer(name, folder / name, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def two_servers(make_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    """Two empty Orthancs with the plugin, ``a`` and ``b``, started, each a peer of the other."""
    a, b = make_server("a"), make_server("b")
    pair(a, b)
    start_together(a, b)
    return a, b


MARKERS = {
    "make_server": "orthanc",
    "make_shared_server": "orthanc",
    "chromium": "browser",
    "make_disk": "faults",
}
"""The marker that a test needs which uses a fixture, be it through others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises ``UsageError`` if a test lacks a marker: ``make test-fast`` would start servers."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            marker = MARKERS.get(fixture)
            if marker is not None and item.get_closest_marker(marker) is None:
                raise pytest.UsageError(f"{item.nodeid} uses {fixture}: mark it with pytest.mark.{marker}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the Orthancs of that moment logged last."""
    report = yield
    if report.failed:
        for server in OrthancServer.started:
            ended = f", which crashed: {server.crashed}" if server.crashed else ""
            report.sections.append((f"log of Orthanc {server.name}{ended}", server.log_tail()))
    return report
