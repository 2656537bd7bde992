"""Puts a server into its cluster: the parts that only a node of one has, and what stands for them in any other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock, InstanceStore, Job, JobQueue
from orthanc_transfers.net.relay import Relay
from orthanc_transfers.receiver.adoption import Successor
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.single_server import SingleServer
from orthanc_transfers.receiver.staging import Staging
from orthanc_transfers.rest.all_nodes import AllNodes
from orthanc_transfers.rest.connection_budget import DEFAULT_HTTP_THREADS
from orthanc_transfers.rest.handing_on import LAST, HandingOn
from orthanc_transfers.rest.http import Handler, RouteTable
from orthanc_transfers.rest.under_way import UnderWay
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.cancellation import Cancellation

if TYPE_CHECKING:
    from orthanc_transfers.cluster.cluster import Cluster
    from orthanc_transfers.cluster.job_keeper import JobKeeper
    from orthanc_transfers.cluster.ownership import PostgresOwnership

log = logging.getLogger(__name__)

_NUMBER = "node"
"""File with the number of this server's last start."""

_OF_PULLS = (paths.LOOKUP, paths.CHUNKS_V1, paths.CHUNKS_V2)
_OF_PUSHES = (paths.PUSH_V1, paths.PUSH_V2)
"""Beginnings of the routes to which any node responds: of pulls for itself, of pushes for the one that has it."""

_LAST = LAST + 2.0
"""Seconds that requests may hold up the stop of a node: less than what supervisors wait before they kill it."""

_VISIBLE = 60.0
"""Seconds until a folder is seen that another node has made: NFS remembers for so long that it was not there."""

CONNECTIONS = 16
"""Kept to each other node."""

_OF_CPP_PEERS = 6
"""Requests at once of one push of a C++ peer (``Threads``, 4 to 6; ours keep to half of a node's threads)."""


class Clustering:
    """Joins the cluster that the settings name, if they do. ``configuration`` is Orthanc's.

    ``directory`` is the ``StagingDirectory``, ``verify`` as of ``RequestsTransport``. Raises ``ConfigurationError``.
    """

    def __init__(
        self,
        settings: Settings,
        configuration: Mapping[str, Any],
        directory: Path,
        clock: Clock,
        verify: bool | str,
    ) -> None:
        self._directory = directory
        self._shared = settings.cluster.shared_staging
        self._adopt_after = settings.cluster.adopt_after
        self._keeper: JobKeeper | None = None
        self._cluster = _join(settings, configuration, clock) if settings.cluster.enabled else None
        if self._cluster is not None:
            _warn_of_circles(int(configuration.get("HttpThreadsCount", DEFAULT_HTTP_THREADS)), settings)
        self.ownership: Ownership = SingleServer() if self._cluster is None else self._cluster.ownership
        self._successor: Successor | None = None
        self._under_way = UnderWay()
        self._left_by: float | None = None
        """When requests must have ended that hold up the stop, by the monotonic clock."""
        self._ca_certificates = verify if isinstance(verify, str) else ""

    @property
    def home(self) -> Path:
        """The folder of what is this server's own, over all its starts."""
        if self._cluster is None or not self._shared:
            return self._directory
        return self._directory / self._cluster.ownership.node.name

    @property
    def areas(self) -> Callable[[], Path] | None:
        """Tells the folder of this node's areas on the shared storage; ``None``: it is ``home``."""
        if self._cluster is None or not self._shared:
            return None
        ownership = self._cluster.ownership
        return lambda: self._directory / ownership.node.staging

    def store(self, store: InstanceStore) -> InstanceStore:
        """Orthanc as a store of DICOM files, whose index may be away for a while."""
        return store if self._cluster is None else self._cluster.waiting_store(store)

    def reclaim(self, registry: Registry, pushes: PushService) -> None:
        """Go on with what an earlier start of this server had, but for what others have taken over meanwhile.

        To be called before anything is resumed. Raises ``ConfigurationError``.
        """
        if self._cluster is None:
            return
        ownership, file = self._cluster.ownership, self.home / _NUMBER
        if self._shared:
            _must_be_shared(self._directory, ownership)
        try:
            earlier = file.read_text()
        except FileNotFoundError:
            earlier = ""
        if earlier.isdecimal():
            mine = ownership.reclaim(int(earlier))
            pushes.abandon(registry.keep_only(mine))
        files.replace(file, str(ownership.node.number).encode(), synced=True)

    def keep_jobs(self, jobs: JobQueue, reload: Callable[[str, dict[str, Any]], Job]) -> None:
        """Let other nodes go on with the jobs of this one, should it not come back; and the other way round."""
        if self._cluster is not None:
            self._keeper = self._cluster.keep_jobs(jobs, reload, self._adopt_after)

    def job_submitted(self) -> None:
        """There is a new job. Never blocks."""
        if self._keeper is not None:
            self._keeper.submitted()

    def start(self, staging: Staging, registry: Registry, pushes: PushService) -> None:
        """Take over from nodes that die, from now on. To be called once Orthanc has started."""
        if self._cluster is not None:
            successor = Successor(staging, registry, pushes, self._directory if self._shared else None)
            self._successor = successor
            self._cluster.ownership.on_adoption(successor.adopt, successor.let_go)
            self._cluster.ownership.start()
        if self._keeper is not None:
            self._keeper.start()

    def spread(self, table: RouteTable, closing: Cancellation) -> RouteTable:
        """The routes, of which those that name a transfer find it at whatever node it is.

        ``closing``: this server stops; what it cannot respond to any more, another node does.
        """
        if self._cluster is None:
            return table
        ownership = self._cluster.ownership
        relay = Relay(CONNECTIONS, self._ca_certificates)
        handing_on = HandingOn(
            ownership, relay, self._cluster.secret, closing, ownership.known_others, ownership.time
        )
        nodes = AllNodes(handing_on, ownership.node.name, ownership.others)
        wrappers: dict[str, Callable[[Handler], Handler]] = {
            paths.STATUS: nodes.status,
            paths.ACTIONS: nodes.actions,
        }
        spread = []
        for route in table:
            wrap = wrappers.get(route.pattern)
            if wrap is None and route.pattern.startswith(_OF_PUSHES):
                wrap = handing_on.wrap
            elif wrap is None and route.pattern.startswith(_OF_PULLS):
                wrap = partial(handing_on.wrap, of_owner=False)
            if wrap is None:
                spread.append(route)
                continue
            methods = {name: wrap(handler) for name, handler in route.methods.items()}
            # What only asks may be repeated by anybody, and may wait for long.
            waited = {
                name: handler if name == "GET" else self._under_way.wrap(handler)
                for name, handler in methods.items()
            }
            spread.append(replace(route, methods=waited))
        return tuple(spread)

    def finish(self, pushes: PushService) -> None:
        """To be called just before ``pushes`` are closed: let commits end that no other node could finish.

        Those are of version 1, whose senders cannot start over once it has begun, with bytes on this node's own disk.
        """
        self._left_by = time.monotonic() + _LAST
        if self._successor is not None:
            self._successor.stop()
        if self._cluster is not None and not self._shared:
            pushes.end_commits()

    def close(self) -> None:
        """Leave the cluster, once nothing is written any more; requests under way get the responses of other nodes."""
        if self._keeper is not None:
            self._keeper.close()
        if self._cluster is not None:
            self._cluster.close()
            left = _LAST if self._left_by is None else self._left_by - time.monotonic()
            self._under_way.settle(max(0.0, left))


def _must_be_shared(directory: Path, ownership: PostgresOwnership) -> None:
    """Raises ``ConfigurationError`` unless the folders of the nodes that run are below this ``StagingDirectory``.

    Else what one of them leaves behind when it dies could be half there for good: no other one would find it.
    """
    until, waits = time.monotonic() + _VISIBLE, False
    while unseen := [
        one for one in ownership.others() if one.staging and not (directory / one.staging).exists()
    ]:
        told = (
            f"the folder {unseen[0].staging} of node {unseen[0].name}, which runs, is not in StagingDirectory"
        )
        if time.monotonic() > until:
            raise ConfigurationError(
                f"{told} {directory}: mount the storage of the other nodes there, or set SharedStaging of Cluster to"
                " false on all of them"
            )
        if not waits:
            log.info("%s %s: waiting for it for up to %d s", told, directory, _VISIBLE)
        waits = True
        time.sleep(1.0)


def _warn_of_circles(threads: int, settings: Settings) -> None:
    """Nodes wait for each other, and for nothing else, once all threads of two of them have handed requests on."""
    needed = settings.max_push_transactions * _OF_CPP_PEERS // 2 + 1
    if threads < needed:
        log.warning(
            "HttpThreadsCount is %d: with %d pushes at once (MaxPushTransactions) the nodes of a cluster may wait for"
            " each other's responses until all give up, set it to %d or more",
            threads,
            settings.max_push_transactions,
            needed,
        )


def _join(settings: Settings, configuration: Mapping[str, Any], clock: Clock) -> Cluster:
    try:
        from orthanc_transfers.cluster.cluster import join
    except ImportError as error:
        raise ConfigurationError(
            f"a cluster needs psycopg, which cannot be imported ({error}): pip install 'orthanc-transfers[cluster]'"
        ) from error
    return join(settings, configuration, clock, shared_staging=settings.cluster.shared_staging)
