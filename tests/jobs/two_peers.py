"""Two Orthancs in memory: our jobs on one side, our routes on the other, and a link between them that can be cut.

Everything is real but Orthanc (a dictionary of files) and the network (a call of the route's handler).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.interfaces import (
    Job,
    StepOutcome,
    StopReason,
)
from orthanc_transfers.jobs.pull import new_pull
from orthanc_transfers.jobs.push import new_push
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.net.body_limits import BodyLimits
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.jobs.memory_link import InProcessPeers, Link
from tests.jobs.memory_server import Server
from tests.jobs.memory_store import STUDY


class BriefCancellation(Cancellation):
    """Lets retries wait a hundredth of their time, and notice a cancel as ever."""

    def wait(self, seconds: float) -> None:
        super().wait(seconds / 100)


radiographs = pytest.mark.parametrize(
    ("round_trip", "bucket_size", "compression", "whole"),
    [
        (0.001, 4096, "auto", True),
        (0.001, 4096, "gzip", True),
        (0.001, 4096, "none", True),
        (0.01, 4096, "none", False),
        (None, 4096, "none", False),
        # It is encoded bucket by bucket, by several threads.
        (0.001, 4096, "zstd", False),
        # Who sets a small one wants small requests.
        (0.001, 2048, "none", False),
    ],
)
"""Of two instances of 3 MB: whether they are one request."""


def services_of(server: Server, peers: InProcessPeers) -> Services:
    """What the jobs of a server work with."""
    return Services(
        store=server.store,
        peers=peers,
        reader=server.reader,
        registry=server.registry,
        reports=server.reports,
        ack_logs=server.ack_logs,
        settings=server.settings,
        clock=server.clock,
        capabilities=CapabilitiesCache(server.clock),
        body_limits=BodyLimits(server.clock),
        originator=server.originator,
        new_cancellation=BriefCancellation,
    )


def order(peer: str = "there", compression: str = "auto", **more: Any) -> TransferRequest:
    """What a user sends to ``/transfers/send`` for the whole study."""
    return TransferRequest.parse(
        {
            "Resources": [{"Level": "Study", "ID": STUDY}],
            "Peer": peer,
            "Compression": compression,
            "SenderTransferID": "sender-1",
            **more,
        }
    )


@dataclass
class PeerPair:
    """Two servers: ``here``, whose jobs are tested, and ``there``, its peer."""

    here: Server
    there: Server
    link: Link
    services: Services

    jobs: list[Job] = field(default_factory=list)

    def push(self, peer: str = "there", **more: Any) -> Job:
        """A push of the study, unless ``more`` says otherwise."""
        return self._keep(new_push(self.services, order(peer, **more)))

    def pull(self, peer: str = "there", **more: Any) -> Job:
        """A pull of the study, unless ``more`` says otherwise."""
        return self._keep(new_pull(self.services, order(peer, **more)))

    def restart(self, job: Job) -> Job:
        """Restart the server here, and reload a job there as Orthanc does."""
        saved = json.loads(json.dumps(job.serialized()))
        assert "Type" not in saved
        job.release()
        self.link.let_go()
        self.here.restart()
        self.services = services_of(self.here, InProcessPeers([self.here, self.there], self.link))
        return self._keep(reload(self.services, job.type, saved))

    def _keep(self, job: Job) -> Job:
        self.jobs.append(job)
        return job

    def close(self) -> None:
        for job in self.jobs:
            job.release()
        self.link.let_go()
        self.here.close()
        self.there.close()


def make_pair(root: Path, *, version: int = 2, **options: Any) -> PeerPair:
    """``version`` is what the peer speaks; the options are those of both configurations."""
    link = Link()
    here = Server(root, "here", **options)
    there = Server(root, "there", version=version, **options)
    return PeerPair(here, there, link, services_of(here, InProcessPeers([here, there], link)))


def finish(job: Job) -> StepOutcome:
    """Step a job to its end, as Orthanc does; tells it of the end."""
    for _ in range(600):
        before = job.progress()
        outcome = job.step()
        assert job.progress() >= before
        if outcome is not StepOutcome.CONTINUE:
            job.stop(StopReason[outcome.name])
            return outcome
    raise AssertionError(f"the job does not end: {job.content()}")


def step_until(job: Job, condition: Callable[[], bool]) -> None:
    """Step a job until something is the case."""
    for _ in range(600):
        if condition():
            return
        assert job.step() is StepOutcome.CONTINUE, job.content()
    raise AssertionError(f"it does not come to that: {job.content()}")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what a thread in the background does."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it does not come to that")
