"""A link with a long round trip, where a lost connection costs round trips and a slow start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import pair, start_together
from tests.support.wan_link import HOSTS, WanLink, wan_link, why_not

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

CONNECTIONS = 16
"""That a long link gets at most."""


@pytest.fixture
def link() -> Iterator[WanLink]:
    with wan_link("long", rtt=200, rate=20) as link:
        yield link


def opened() -> int:
    """Connections that were ever opened from here."""
    heads, figures = (
        text.split()
        for text in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if text.startswith("Tcp:")
    )
    return int(figures[heads.index("ActiveOpens")])


@pytest.mark.parametrize("way", ["push", "pull"])
def test_a_transfer_keeps_its_connections(link: WanLink, make_server: MakeServer, way: str) -> None:
    a, b = (
        make_server(
            name,
            host=HOSTS[name],
            launcher=link.inside(name),
            configuration={"RemoteAccessAllowed": True},
        )
        for name in ("a", "b")
    )
    pair(a, b)
    with link.entered("a"):
        start_together(a, b)
        source, ask = (a, a.send) if way == "push" else (b, a.pull)
        study = source.upload_all(ct_study(40))[0]["ParentStudy"]
        before = opened()
        job = a.wait_for_job(ask([resource("Study", study)], "b", Compression="none")["ID"])
        assert job["State"] == "Success", job
        assert job["Content"]["CompletedHttpQueries"] > 2 * CONNECTIONS
        # That of this test is among them. (If Orthanc could write its answers into the memory of the system at once,
        # it would close two or three times as many for silence.)
        assert opened() - before < 2 * CONNECTIONS
        assert len(b.instances() if way == "push" else a.instances()) == 40
