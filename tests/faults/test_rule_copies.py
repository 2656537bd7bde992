"""Copies that rules send instead, and mirrors, through kills and outages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, pair
from tests.support.rules import STABLE, queue, set_rule, study
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture
def servers(make_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    """Peers of each other; only the first one runs."""
    a, b = make_server("a", configuration=STABLE), make_server("b")
    pair(a, b)
    a.start()
    return a, b


def test_a_copy_is_sent_once_and_deleted_although_its_orthanc_is_killed(
    servers: tuple[OrthancServer, OrthancServer],
) -> None:
    a, b = servers
    set_rule(a, "research", Anonymize={"Replace": {"PatientID": "R1"}})
    original = study(a, 3)
    wait_until(lambda: len(a.instances()) == 6, "the copy to be made")
    wait_until(
        lambda: any(job["Type"] == "PushTransfer" for job in a.get("jobs?expand")), "the job that sends it"
    )
    copies = set(a.get("studies")) - {original}
    a.kill()
    b.start()
    a.start()
    wait_until(lambda: b.get("studies"), "the copy to arrive", timeout=120)
    wait_until(lambda: a.get("studies") == [original] and not queue(a), "the copy to be deleted", timeout=120)
    # The very copy that was made before the kill: another one would be another study there.
    assert set(b.get("studies")) == copies
    assert len(b.instances()) == 3


def test_a_comparison_goes_on_after_a_kill_once_its_peer_is_there(
    servers: tuple[OrthancServer, OrthancServer],
) -> None:
    a, b = servers
    set_rule(a, "mirror", Trigger="Manual", Compare={"At": "00:00", "Days": "Mon"})
    studies = {study(a) for _ in range(3)}
    a.post("transfers/rules/mirror/compare", {})

    def said() -> str:
        (one,) = a.get("transfers/rules/mirror")["Comparisons"]
        return str(one["Said"] or "")

    wait_until(lambda: "cannot be reached" in said(), "the comparison to wait for its peer")
    a.kill()
    b.start()
    a.start()
    wait_until(lambda: set(b.get("studies")) == studies, "all to arrive", timeout=120)
    wait_until(lambda: not queue(a), "the queue to be empty", timeout=120)

    def ended() -> Any:
        (one,) = a.get("transfers/rules/mirror")["Comparisons"]
        return not one["Running"] and one

    one = wait_until(ended, "the end of the comparison")
    assert (one["Compared"], one["Queued"], one["Said"]) == (3, 3, None)
