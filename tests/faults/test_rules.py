"""The queue of the rules: the Orthanc that works it off is killed, or loses its power, at each of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.power_failure import PowerFailureDisk
from tests.support.rules import STABLE, has, history, queue, remove_rules, set_rule, states, study, wait_ended
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

DISK = 128 * 1024 * 1024

SLICES = 4


@dataclass
class Machine:
    """An Orthanc with rules, its storage on a disk of its own, and the peer that it sends to."""

    server: OrthancServer
    peer: OrthancServer
    disk: PowerFailureDisk | None

    def fail_power(self) -> None:
        """It stands still; what had not reached its disk is lost."""
        assert self.disk is not None
        self.disk.fail_power(self.server.kill)
        self.server.start()


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with ExitStack() as stack:
        a = make_shared_server("a", script=SCRIPT, environment=script_environment(), configuration=STABLE)
        b = make_shared_server("b")
        disk = None
        try:
            disk = PowerFailureDisk(a.storage, tmp_path_factory.mktemp("power") / "a.disk", DISK)
            stack.callback(disk.close)
        except OSError:
            pass  # kills need none
        stack.callback(a.kill)
        (a.folder / FOLDER).mkdir(parents=True)
        pair(a, b)
        start_together(a, b)
        # With its first rule, an Orthanc looks once for changes, at some moment: not while a test waits for that.
        with Failpoint(a, "Intake.catch_up after", "slow 0") as looked:
            set_rule(a)
            looked.wait_reached()
        remove_rules(a)
        yield Machine(a, b, disk)


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    yield shared
    remove_rules(shared.server)
    shared.server.clear()
    shared.peer.clear()


STEPS = {
    "told of a change": "Intake.catch_up before",
    "queued, not synced": "Queue.add after",
    "queued": "Intake.catch_up after",
    "about to be begun": "RunningJobs.new_transfer before",
    "begun, no job": "RunningJobs.submit before",
    "job submitted": "RunningJobs._submit after",
    "ended, not written": "Outcomes.record before",
    "ended, not synced": "Outcomes.record after",
}


@pytest.mark.parametrize("failpoint", STEPS.values(), ids=STEPS.keys())
def test_what_was_to_be_sent_is_sent_once_after_a_kill(machine: Machine, failpoint: str) -> None:
    a, b = machine.server, machine.peer
    set_rule(a)
    armed = Failpoint(a, failpoint, "kill 1")
    arrived = study(a, SLICES)
    armed.wait_killed()
    a.start()
    wait_ended(a, arrived)
    assert b.md5s() == a.md5s()
    assert (states(a, arrived), queue(a)) == (["Done"], [])


DELETIONS = {
    "sent, nothing deleted": ("Finishing.finish before", 1),
    "half is deleted": ("OrthancStore.remove after", SLICES // 2),
    "deleted, not written": ("Finishing.finish after", 1),
    "deleted and written": ("Finisher._finish after", 1),
}


@pytest.mark.parametrize(("failpoint", "nth"), DELETIONS.values(), ids=DELETIONS.keys())
def test_what_was_sent_is_deleted_after_a_kill(machine: Machine, failpoint: str, nth: int) -> None:
    a, b = machine.server, machine.peer
    set_rule(a, After={"Delete": True})
    armed = Failpoint(a, failpoint, f"kill {nth}")
    with Failpoint(a, "RunningJobs.submit before", "wait") as begun:
        arrived = study(a, SLICES)
        begun.wait_reached()
        before = a.md5s()
    armed.wait_killed()
    a.start()
    wait_ended(a, arrived)
    assert b.md5s() == before
    assert a.md5s() == {}


@pytest.mark.parametrize(("failpoint", "nth"), DELETIONS.values(), ids=DELETIONS.keys())
def test_what_was_sent_is_deleted_after_a_power_failure(machine: Machine, failpoint: str, nth: int) -> None:
    a, b = machine.server, machine.peer
    if machine.disk is None:
        pytest.skip("no disk that could lose its power")
    set_rule(a, After={"Delete": True})
    armed = Failpoint(a, failpoint, f"stop {nth}")
    # No job waits until its copy of the peer's report is on the disk: here it is not, unless the rule sees to it.
    with Failpoint(a, "Reports._sync_all before", "wait"):
        with Failpoint(a, "RunningJobs.submit before", "wait") as begun:
            arrived = study(a, SLICES)
            begun.wait_reached()
            before = a.md5s()
            machine.disk.sync()
        armed.wait_stopped()
        machine.fail_power()
    assert "deleted here" in wait_ended(a, arrived)["Said"]
    assert a.md5s() == {}
    assert b.md5s() == before


@pytest.mark.parametrize(
    "after", [{"SetMetadata": {"1030": "sent"}}, {"Delete": True}], ids=["mark", "delete"]
)
def test_what_has_changed_since_it_was_sent_is_left_alone_until_it_was_sent_too(
    machine: Machine, after: dict[str, Any]
) -> None:
    a, b = machine.server, machine.peer
    set_rule(a, After=after)
    first, second, third = small_instances(3)
    with Failpoint(a, "Finishing.finish before", "wait") as sent:
        arrived = a.upload_all([first, second])[0]["ParentStudy"]
        sent.wait_reached()
        added = a.upload(third)["ID"]
    wait_until(lambda: states(a, arrived) == ["Done", "Done"], "the difference is sent as well")
    _, earlier = (one for one in history(a) if one["Resource"]["ID"] == arrived)
    assert f"instance {added} was added after it was sent" in earlier["Said"]
    assert len(b.instances()) == 3
    if "Delete" in after:
        assert a.instances() == []
    else:
        assert a.download(f"studies/{arrived}/metadata/1030") == b"sent"


@pytest.mark.parametrize("failpoint", STEPS.values(), ids=STEPS.keys())
def test_what_was_to_be_sent_is_sent_after_a_power_failure(machine: Machine, failpoint: str) -> None:
    a, b = machine.server, machine.peer
    if machine.disk is None:
        pytest.skip("no disk that could lose its power")
    set_rule(a)
    armed = Failpoint(a, failpoint, "stop 1")
    arrived = study(a, SLICES)
    # Its files and Orthanc's index are older than the change, as after the usual minute.
    machine.disk.sync()
    armed.wait_stopped()
    machine.fail_power()
    wait_ended(a, arrived)
    assert b.md5s() == a.md5s()


def test_changes_that_were_missed_are_found(machine: Machine) -> None:
    a, b = machine.server, machine.peer
    set_rule(a)
    wait_ended(a, study(a))
    a.stop()
    script = a.configuration.pop("PythonScript")
    a.start()
    missed = study(a, SLICES)
    wait_until(
        lambda: any(one["ID"] == missed and one["ChangeType"] == "StableStudy" for one in changes(a)),
        "it is stable",
    )
    a.stop()
    a.configuration["PythonScript"] = script
    a.start()
    wait_ended(a, missed)
    assert has(b, [missed])
    assert states(a, missed) == ["Done"]


def test_a_study_that_was_not_stable_when_orthanc_was_killed_is_sent(machine: Machine) -> None:
    a, b = machine.server, machine.peer
    set_rule(a)
    arrived = study(a, SLICES)
    a.kill()
    a.start()
    wait_ended(a, arrived)
    assert b.md5s() == a.md5s()


def changes(server: OrthancServer) -> list[dict[str, str]]:
    found: list[dict[str, str]] = server.get("changes?limit=10000")["Changes"]
    return found
