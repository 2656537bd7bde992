"""Brings transfers to their ends, once nothing is in their way any more, and judges what they say."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import requests

from tests.faults.protocol_matrix import Transfer
from tests.faults.torture.round import Round, Violation, Wanted
from tests.faults.torture.world import World
from tests.support.orthanc_client import FINISHED, StatusError

PATIENCE = 120.0
"""Seconds within which all has to come to its end."""

CANCELED = 37
"""What Orthanc calls the error of such a job."""

_NOTHING_KEPT = ("nothing was kept", "what this transfer had brought was deleted")


def end(world: World, this: Round, wanted: Wanted) -> None:
    """Bring a transfer to its end. Raises ``Violation`` if it has none, or not the right one."""
    _end(world, this, wanted)
    world.tally.ends[wanted.state] += 1


def _end(world: World, this: Round, wanted: Wanted) -> None:
    transfer = wanted.transfer
    if transfer is None:
        return
    limit = time.monotonic() + PATIENCE
    # One that kills its Orthanc may be forgotten to have been resubmitted, over and over.
    again, confirmed = this.dice.random() < 0.5 and not wanted.refusal, False
    while True:
        world.revive()
        try:
            job = transfer.server.job(transfer.job)
        except requests.RequestException:
            if time.monotonic() > limit or not world.deaths_allowed():
                raise
            continue  # it has just died
        except StatusError as error:
            if error.status != 404:
                raise
            # Its server was killed before Orthanc had saved it.
            wanted.state = "lost"
            return
        wanted.state = job["State"]
        if wanted.ended_well:
            return
        if time.monotonic() > limit:
            raise Violation(f"a job does not end: {job}")
        # Others are parked by us, and go on by themselves.
        if wanted.state == "Paused" and wanted.paused:
            # An Orthanc that dies a moment later has not saved that it was resumed.
            wanted.paused = bool(world.deaths_allowed())
            _ask(world, transfer, "resume")
        elif wanted.state == "Failure":
            # An Orthanc that was killed goes on from what it had saved: a cancel, say, of a job resubmitted since.
            canceled = wanted.canceled and job["ErrorCode"] == CANCELED
            if canceled and not again:
                wanted.state = "Canceled"
                return
            if not canceled:
                said = _judge(world, this, wanted, job)
                if wanted.refusal and wanted.refusal in said and (wanted.attempts == 1 or confirmed):
                    wanted.state = "refused"
                    return
                # That may have been said by an attempt before the last, which was killed with what it had received:
                # a pull keeps that for another attempt.
                confirmed = True
            this.story.append(f"resubmit {transfer.job}: {job['Content'].get('Error')}")
            wanted.attempts += 1
            _ask(world, transfer, "resubmit")
        time.sleep(0.05)


def _ask(world: World, transfer: Transfer, command: str) -> None:
    try:
        transfer.server.post(f"jobs/{transfer.job}/{command}")
    except (requests.RequestException, StatusError):
        # It has just died, or has been started again since, and knows an earlier state of the job.
        if not world.deaths_allowed():
            raise


def watch(world: World, this: Round, wanted: Wanted, seconds: float = 3.0) -> None:
    """Judge what a transfer says if it fails within that time, while things are broken."""
    limit = time.monotonic() + seconds
    while wanted.transfer is not None and time.monotonic() < limit:
        world.revive()
        with contextlib.suppress(requests.RequestException, StatusError):
            job = wanted.transfer.server.job(wanted.transfer.job)
            if job["State"] == "Failure" and job["ErrorCode"] != CANCELED:
                _judge(world, this, wanted, job)
            if job["State"] in FINISHED:
                return
        time.sleep(0.05)


def _judge(world: World, this: Round, wanted: Wanted, job: dict[str, Any]) -> str:
    """Why it failed. Raises ``Violation`` if it does not say so in one sentence, or if that is not true."""
    said: str = job["Content"].get("Error") or ""
    if not said or "\n" in said or "internal error" in said or "Traceback" in said:
        raise Violation(f"a job does not say in one sentence why it failed: {job}")
    # After the death of its Orthanc, a job that had been resubmitted may be what it was before: what it says then is
    # of an attempt before the last.
    outdated = wanted.attempts > 1 and any(line.startswith("SIGKILL") for line in this.story)
    if any(claim in said for claim in _NOTHING_KEPT) and not this.shares(wanted) and not outdated:
        left = (wanted.instances - this.there.keys()) & set(world.matrix.b.instances())
        if left:
            raise Violation(f"a job says that nothing was kept, and {sorted(left)} are there: {said}")
    return said


def becomes_right(world: World, this: Round) -> None:
    """The receiver has what it must have. Raises ``Violation``."""
    # What was canceled may be on its way to being undone, or to being whole.
    limit = time.monotonic() + PATIENCE
    while True:
        world.revive()
        try:
            complaint = this.complaint(world.matrix.b.md5s())
        except (requests.RequestException, StatusError) as error:
            # It has just died, or something is just being undone.
            complaint = str(error)
        if complaint is None:
            return
        if time.monotonic() > limit:
            raise Violation(complaint)
        time.sleep(0.2)
