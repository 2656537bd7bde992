"""One Orthanc with the plugin, in memory: our routes, called without a network."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import (
    UnknownResource,
)
from orthanc_transfers.core.settings import Settings, parse_settings
from orthanc_transfers.interfaces import (
    PeerResponse,
)
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.jobs.transcoded_files import TranscodedFiles
from orthanc_transfers.jobs.transcoding import Transcode
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.staging import SENT, Staging
from orthanc_transfers.rest.action_routes import ActionRoutes
from orthanc_transfers.rest.connection_budget import ConnectionBudget
from orthanc_transfers.rest.extras_routes import ExtrasRoutes
from orthanc_transfers.rest.http import Request
from orthanc_transfers.rest.measure_routes import MeasureRoutes
from orthanc_transfers.rest.page_routes import PageRoutes
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.plugin_routes import PluginRoutes
from orthanc_transfers.rest.routes import routes
from orthanc_transfers.rest.rule_routes import RuleRoutes
from orthanc_transfers.rest.search_routes import SearchRoutes
from orthanc_transfers.rest.settings_routes import SettingsRoutes
from orthanc_transfers.rest.status_routes import StatusRoutes
from orthanc_transfers.rest.transcoding_routes import TranscodingRoutes
from orthanc_transfers.rest.user_routes import UserRoutes
from orthanc_transfers.rest.whole_pull import WholePulls
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock
from tests.jobs.memory_store import MemoryStore

KB = 1024


def settings(**options: Any) -> Settings:
    """Small buckets, so that a few files make several."""
    return parse_settings({"Threads": 3, "BucketSize": 4, "MaxOutage": 30, **options})


class Server:
    """One Orthanc with the plugin. ``version`` 1: without the routes of version 2."""

    def __init__(self, root: Path, name: str, *, version: int = 2, **options: Any) -> None:
        self.root, self.name, self.version = root / name, name, version
        self.settings = settings(**options)
        self.clock = SystemClock()
        self.http_threads = 50
        self.store = MemoryStore()
        self.transcode: Transcode | None = None
        """In place of Orthanc's transcoder, from the next ``start`` on: for peers that pull."""
        self.start()

    def start(self, *, max_size: int = 0) -> None:
        """``max_size``: the most bytes that may be staged."""
        self.originator = f"originator-of-{self.name}"
        self.reader = ChunkReader(self.store, InstanceCache(self.store, 64 * 1024 * KB))
        self.reports = Reports(self.root / "reports", 30, self.clock)
        staging = Staging(self.root, max_size=max_size, clock=self.clock)
        self.ack_logs = AckLogs(staging.root / SENT)
        self.registry = Registry(
            staging, store=self.store, settings=self.settings, clock=self.clock, reports=self.reports
        )
        self.metrics = PushMetrics()
        self.pushes = PushService(self.registry, self.settings, self.clock, self.metrics)
        self.pushes.recover()
        budget = ConnectionBudget(self.http_threads, self.clock)
        transcoded = None if self.transcode is None else TranscodedFiles(self.store, self.transcode, 10_000)
        peer_routes = PeerRoutes(
            self.store,
            self.reader,
            self.pushes,
            self.reports,
            self.originator,
            lambda: None,
            Cancellation(),
            budget,
            WholePulls(self.reader, bucket_size=self.settings.bucket_size, max_at_once=budget.total),
            transcoded=transcoded,
        )
        # What peers do not call is not called here.
        self.routes = routes(
            object.__new__(UserRoutes),
            peer_routes,
            object.__new__(PluginRoutes),
            object.__new__(StatusRoutes),
            object.__new__(PageRoutes),
            object.__new__(SearchRoutes),
            object.__new__(MeasureRoutes),
            object.__new__(SettingsRoutes),
            object.__new__(ActionRoutes),
            object.__new__(RuleRoutes),
            object.__new__(ExtrasRoutes),
            object.__new__(TranscodingRoutes)
            if transcoded is None
            else TranscodingRoutes(transcoded, Cancellation()),
        )

    def close(self) -> None:
        self.pushes.close()

    def restart(self) -> None:
        """Stop and start, as Orthanc does: what is on disk stays."""
        self.close()
        self.start()

    def unfinished(self) -> int:
        """Number of incoming transfers that have not ended."""
        return sum(one.state.value in ("receiving", "committing") for one in self.registry.all())

    def serve(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> PeerResponse:
        """One request, as Orthanc would hand it to the plugin. Raises ``TransferError``."""
        path, _, query = target.partition("?")
        path = "/" + path.lstrip("/")
        if self.version == 1 and re.match("/transfers/(v2|capabilities)", path):
            raise UnknownResource(f"Unknown resource: {path}")
        for route in self.routes:
            match = re.fullmatch(route.pattern, path)
            if match and method in route.methods:
                request = Request(
                    method,
                    path,
                    match.groups(),
                    dict(urllib.parse.parse_qsl(query)),
                    dict(headers),
                    memoryview(body),
                )
                response = route.methods[method](request)
                response.written()
                return PeerResponse(
                    bytes(response.body), {"content-type": response.content_type, **response.headers}
                )
        raise UnknownResource(f"Unknown resource: {path}")
