"""Transfers into a cluster and out of it, one after another in each of several threads, whatever becomes of nodes."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import requests

from tests.faults.torture.round import Round, Violation, Wanted
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import FINISHED, StatusError, resource
from tests.support.orthanc_server import OrthancServer

PATIENCE = 300.0
"""Seconds that a transfer may take, whatever happens."""

CANCELED = 37
"""What Orthanc calls the error of such a job."""

INTO = ("push-1", "push-2", "push-2", "node-pull-2")
OUT = ("pull-1", "pull-2", "node-push-2")
"""Ways into the cluster and out of it, by who has the job (``node``: one of its own) and version of the protocol."""

_SHAPES = ((1, 32), (1, 32), (2, 64), (6, 128), (12, 192), (20, 256), (40, 512))
"""Instances of a study, and pixels of a side: 3 KB to 21 MB."""

_LANES = (INTO, INTO, INTO, INTO, OUT, OUT)

# What a client meets of a node that was killed, or is being started.
_AWAY = (requests.RequestException, StatusError)


class Load:
    """Threads that transfer until told to end, then look how the last ones end.

    ``source`` sends, ``target`` fetches, ``nodes`` do the same for the cluster. What goes in is noted in ``into``,
    what comes out in ``out``, whose ``sent`` are the studies that may be fetched. ``rough``: nodes are killed, so that
    jobs of theirs may be lost. ``fragile``: a push of version 1 may fail, if it says why and goes through when
    resubmitted.
    """

    def __init__(
        self,
        source: OrthancServer,
        target: OrthancServer,
        nodes: list[OrthancServer],
        into: Round,
        out: Round,
        studies: dict[str, frozenset[str]],
        *,
        rough: bool,
        fragile: bool,
    ) -> None:
        self._source, self._target, self._nodes = source, target, nodes
        self._into, self._out, self._studies = into, out, studies
        self._rough, self._fragile = rough, fragile
        self._sent: list[tuple[str, frozenset[str]]] = []
        self._over = threading.Event()
        self.violation: BaseException | None = None
        """The first that was met."""
        self._threads = [
            threading.Thread(target=self._run, args=(ways, random.Random(into.dice.random())), daemon=True)
            for ways in _LANES
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Begin nothing new, and wait until all has ended. Raises what a thread met."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.violation is not None:
            raise self.violation

    def _run(self, ways: tuple[str, ...], dice: random.Random) -> None:
        try:
            while not self._over.is_set():
                self._transfer(dice.choice(ways), dice)
        except BaseException as violation:
            self.violation = self.violation or violation
            self._over.set()

    def _transfer(self, variant: str, dice: random.Random) -> None:
        into = variant in INTO
        study, instances = self._study(dice) if into else dice.choice(sorted(self._studies.items()))
        compression = dice.choice(("auto", "none", "gzip" if variant.endswith("1") else "zstd"))
        wanted = Wanted(variant, [resource("Study", study)], instances, compression)
        (self._into if into else self._out).wanted.append(wanted)
        server = dice.choice(self._nodes) if "node" in variant else (self._source if into else self._target)
        self._start(server, wanted)
        if self._rough and wanted.job and server is self._source and dice.random() < 0.1:
            time.sleep(dice.random())
            self._cancel(server, wanted)
        self._end(server, wanted)

    def _study(self, dice: random.Random) -> tuple[str, frozenset[str]]:
        """A new one, or one that is being sent already, or was before."""
        if self._sent and dice.random() < 0.2:
            return dice.choice(self._sent)
        count, size = dice.choice(_SHAPES)
        name = f"Phantom^{dice.randrange(20)}"
        stored = self._source.upload_all(ct_study(count, size=size, name=name, seed=dice.randrange(100)))
        study = (stored[0]["ParentStudy"], frozenset(one["ID"] for one in stored))
        self._sent.append(study)
        return study

    def _start(self, server: OrthancServer, wanted: Wanted) -> None:
        order = server.pull if "pull" in wanted.variant else server.send
        peer = {"push-1": "c1", "pull-1": "c1", "node-pull-2": "a", "node-push-2": "b"}.get(
            wanted.variant, "c2"
        )
        wanted.attempts = 1
        try:
            wanted.job = order(wanted.resources, peer, Compression=wanted.compression)["ID"]
        except _AWAY:
            if server not in self._nodes:
                raise
            # There may be a job or not. Who drives it meets the same of a node that is not there.
            wanted.state = "refused by a node that was away"
            self._over.wait(0.3)

    def _cancel(self, server: OrthancServer, wanted: Wanted) -> None:
        wanted.canceled = True
        try:
            server.post(f"jobs/{wanted.job}/cancel", {})
        except StatusError:
            wanted.canceled = False  # it has ended

    def _end(self, server: OrthancServer, wanted: Wanted) -> None:
        if not wanted.job:
            return
        known = self._ended(server, wanted)
        while known is not None and known["State"] == "Failure":
            if wanted.canceled and known["ErrorCode"] == CANCELED:
                wanted.state = "Canceled"
                return
            error = str(known["Content"].get("Error", ""))
            self._into.story.append(f"job {wanted.job} ({wanted.variant}) failed: {error}")
            if not self._fragile or wanted.variant != "push-1" or wanted.attempts > 2:
                raise Violation(f"{wanted} failed: {error}")
            if not error or "\n" in error or "internal error" in error:
                raise Violation(f"{wanted} does not say in one sentence why it failed: {error!r}")
            server.post(f"jobs/{wanted.job}/resubmit", {})
            wanted.attempts += 1
            known = self._ended(server, wanted)
        if known is None:
            wanted.state = "lost"
            if not self._rough:
                raise Violation(f"{wanted}: its node does not know it any more")
        else:
            wanted.transaction = known["Content"].get("Transaction", "")
            wanted.state = "Success"

    def _ended(self, server: OrthancServer, wanted: Wanted) -> dict[str, Any] | None:
        """The job once it has ended; ``None`` if its server has forgotten it."""
        limit = time.monotonic() + PATIENCE
        known: dict[str, Any] = {}
        while time.monotonic() < limit:
            server.check_alive(f"the job was {known}")
            try:
                known = server.job(wanted.job)
            except StatusError as error:
                if error.status == 404 and server in self._nodes:
                    return None
                raise
            except requests.RequestException:
                if server not in self._nodes:
                    raise
            if known.get("State") in FINISHED:
                return known
            time.sleep(0.1)
        raise Violation(f"{wanted} does not end: {known}")
