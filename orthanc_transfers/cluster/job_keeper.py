"""Jobs of a server that does not come back go on at others.

Orthanc's jobs are a server's own. Each server keeps what it would save of its jobs in the database, too, and others
submit them as jobs of their own once it was away for ``AdoptAfter``. Should it come back, its jobs hand over.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from orthanc_transfers.cluster.database import Database
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.transfer_record import ENDED_STATES
from orthanc_transfers.interfaces import Job, JobQueue, QueuedJob
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.threads import Periodic

log = logging.getLogger(__name__)

_PERIOD = 5.0

# Jobs that a server adopts at once: the next ones are for whoever looks next.
_AT_ONCE = 8

# Of a push of version 1: its acknowledgements are on the disk of the server that is gone, so it starts over.
_OF_VERSION_1 = ("Transaction", "Cookie", "Plan", "Completed")


class JobKeeper:
    """The jobs of one server of a cluster. Thread-safe. ``reload`` makes a job of what was saved of another.

    ``steady``: seconds that this server must have been connected before it calls another one gone, for all
    have been away when the database was.
    """

    def __init__(
        self,
        database: Database,
        server: str,
        jobs: JobQueue,
        reload: Callable[[str, dict[str, Any]], Job],
        *,
        adopt_after: float,
        period: float = _PERIOD,
        steady: float = 2 * _PERIOD,
    ) -> None:
        self._database = database
        self._server = server
        self._jobs = jobs
        self._reload = reload
        self._adopt_after = adopt_after
        self._steady = steady
        self._lock = threading.Lock()
        self._written: dict[str, tuple[str, bool]] = {}
        self._since: float | None = None
        self._started = False
        self._woken = threading.Event()
        self._periodic = Periodic("transfers-jobs", lambda: period, self.look)

    def start(self) -> None:
        """Orthanc has started, and has reloaded its jobs."""
        self._started = True
        self._periodic.start()
        self.submitted()

    def submitted(self) -> None:
        """There is a new job: written at once, in the background."""
        if self._started and not self._woken.is_set():
            self._woken.set()
            threads.start("transfers-jobs", self.look)

    def close(self) -> None:
        """Write no more."""
        self._started = False
        self._periodic.close()

    def look(self) -> None:
        """Tell the database of this server's jobs, and take those of servers that are gone."""
        with self._lock:
            self._woken.clear()
            try:
                self._keep()
                now = time.monotonic()
                if self._since is None:
                    self._since = now
                if now - self._since >= self._steady:
                    self._adopt()
            except TransferError as error:
                self._since = None
                log.info("the jobs of this server are told to the cluster later: %s", error)

    def _keep(self) -> None:
        live = [queued for queued in self._jobs.jobs() if _is_live(queued)]
        states = {queued.identifier: _state(queued) for queued in live}
        changed = [one for one in live if self._written.get(one.identifier) != states[one.identifier]]
        moved = self._database.query(
            "SELECT moved, mover FROM orthanc_transfers.keep_jobs("
            "%s, %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[])",
            (
                self._server,
                list(states),
                [one.identifier for one in changed],
                [one.job.type for one in changed],
                [states[one.identifier][0] for one in changed],
                [states[one.identifier][1] for one in changed],
            ),
            patience=0.0,
        )
        self._written = states
        known = {queued.identifier: queued for queued in self._jobs.jobs()}
        for identifier, server in moved:
            if identifier in states:
                log.warning(
                    "job %s goes on at server %s of the cluster: this one was away too long",
                    identifier,
                    server,
                )
                known[identifier].job.hand_over()
                self._jobs.command(identifier, "cancel")
            self._database.query(
                "DELETE FROM orthanc_transfers.jobs WHERE identifier = %s AND submitted",
                (identifier,),
                patience=0.0,
            )

    def _adopt(self) -> None:
        rows = self._database.query(
            "SELECT taken, of_server, of_kind, state, was_paused FROM orthanc_transfers.adopt_jobs(%s, %s, %s)",
            (self._server, self._adopt_after, _AT_ONCE),
            patience=0.0,
        )
        for identifier, server, kind, state, paused in rows:
            self._submit(identifier, server, kind, json.loads(state), paused)
            self._database.query(
                "UPDATE orthanc_transfers.jobs SET submitted = true, saved = '' WHERE identifier = %s AND adopter = %s",
                (identifier, self._server),
                patience=0.0,
            )

    def _submit(self, identifier: str, server: str, kind: str, saved: dict[str, Any], paused: bool) -> None:
        if saved["Token"] in (queued.job.serialized().get("Token") for queued in self._jobs.jobs()):
            return  # submitted before, when the database could not be told
        try:
            new = self._jobs.submit(self._reload(kind, saved), int(saved["Priority"]))
        except TransferError as error:
            log.error("job %s of server %s, which is gone, cannot go on here: %s", identifier, server, error)
            return
        if paused:
            self._jobs.command(new, "pause")
        log.warning("job %s of server %s, which is gone, goes on here as job %s", identifier, server, new)


def _is_live(queued: QueuedJob) -> bool:
    record = queued.job.record()
    return record is not None and record.state not in ENDED_STATES


def _state(queued: QueuedJob) -> tuple[str, bool]:
    """What another server needs of a job, and whether a user has paused it; changes now and then only."""
    saved = queued.job.serialized()
    saved.pop("Progress", None)
    if "Plan" in saved:
        for key in _OF_VERSION_1:
            saved.pop(key, None)
    # One that waits for its peer is paused by us.
    return json.dumps(saved, sort_keys=True), queued.paused and not queued.parked
