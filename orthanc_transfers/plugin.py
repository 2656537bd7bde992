"""Composition root: reads the configuration, builds all parts, registers them with Orthanc, stops them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orthanc_transfers._startup import described
from orthanc_transfers._version import __version__
from orthanc_transfers.clustering import Clustering
from orthanc_transfers.core.bandwidth_limits import BandwidthLimits
from orthanc_transfers.core.codec import Codec, rule_out
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.extras import Accepted
from orthanc_transfers.core.json_fields import MAX_NAME
from orthanc_transfers.core.orthanc_version import READ_ONLY, at_least
from orthanc_transfers.core.peers import parse_peers
from orthanc_transfers.core.settings import parse_settings
from orthanc_transfers.core.storage_limits import StorageLimits
from orthanc_transfers.core.transfer_record import TransferRecord
from orthanc_transfers.explorer import javascript, page_files
from orthanc_transfers.host import lifecycle, logs
from orthanc_transfers.host.capacity import OrthancCapacity
from orthanc_transfers.host.cpu import why_no_numpy
from orthanc_transfers.host.disks import HostDisks
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.extras_store import OrthancExtras
from orthanc_transfers.host.file_paths import native_path, path_option
from orthanc_transfers.host.job_durability import JobDurability
from orthanc_transfers.host.jobs import JobEngine
from orthanc_transfers.host.native.context import (
    find_context,
    other_transfers_plugin_configured,
    other_transfers_plugin_loaded,
)
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.peers import OrthancPeers, verification
from orthanc_transfers.host.router import Router
from orthanc_transfers.host.rule_facts import OrthancFacts
from orthanc_transfers.host.server_sockets import ServerSockets
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.host.store import OrthancStore
from orthanc_transfers.host.study_texts import OrthancTexts
from orthanc_transfers.host.user_numbers import UserNumbers
from orthanc_transfers.interfaces import Job
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.jobs.late_undo import LateUndos
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.submission import Submission
from orthanc_transfers.jobs.transcoded_files import TranscodedFiles
from orthanc_transfers.ledger.active import ActiveTransfers
from orthanc_transfers.ledger.ledger import Ledger
from orthanc_transfers.ledger.listing import Listing
from orthanc_transfers.ledger.steering import Steering
from orthanc_transfers.ledger.texts import Texts
from orthanc_transfers.net.body_limits import BodyLimits
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.net.throttle import Throttle
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.staging import HISTORY, RULES, SENT, SETTINGS, Staging
from orthanc_transfers.rest.action_routes import ActionRoutes
from orthanc_transfers.rest.connection_budget import DEFAULT_HTTP_THREADS, ConnectionBudget
from orthanc_transfers.rest.extras_routes import ExtrasRoutes
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
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.service import RuleService
from orthanc_transfers.rules.sources import Sources
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock

log = logging.getLogger(__name__)

SECTION = "Transfers"


def load() -> None:
    """Build the plugin and register it with Orthanc. Raises whatever keeps it from that."""
    sdk = Sdk(find_context())
    logs.install(sdk)
    obstacle = why_no_numpy()
    if obstacle:
        rule_out(Codec.DELTA16_ZSTD)
        log.warning("the codec %s is not offered: %s", Codec.DELTA16_ZSTD.value, obstacle)
    with contextlib.ExitStack() as stack:
        # A server on which the plugin cannot be loaded is no node of its cluster.
        Plugin(sdk, stack.callback).register()
        stack.pop_all()


class Plugin:
    """All parts, built from the configuration. Nothing is registered with Orthanc before ``register``.

    ``on_failure`` is given what is to be called if this, or ``register``, fails. Raises ``ConfigurationError``.
    """

    def __init__(self, sdk: Sdk, on_failure: Callable[[Callable[[], None]], object]) -> None:
        configuration = self._configuration = sdk.configuration()
        path = Path(sdk.configuration_path())
        # Relative paths in the configuration are relative to its folder, as everywhere in Orthanc.
        folder = path if path.is_dir() else path.parent
        if other_transfers_plugin_loaded() or other_transfers_plugin_configured(
            configuration.get("Plugins"), folder
        ):
            raise ConfigurationError(
                "the C++ transfers plugin is loaded as well: take one of the two out of the configuration"
            )
        settings = parse_settings(configuration.get(SECTION, {}))
        parse_peers(configuration.get("OrthancPeers", {}))
        storage = path_option(configuration, "StorageDirectory", folder, "OrthancStorage")
        staging_directory = (
            folder / native_path(settings.staging_directory)
            if settings.staging_directory
            else storage / "Transfers"
        )

        self._sdk = sdk
        self._closing = Cancellation()
        self._jobs: JobEngine | None = None
        self._rules: RuleService | None = None
        self._saved_tokens: set[str] = set()
        """Tokens of the jobs that Orthanc had saved."""

        clock = SystemClock()
        verify = verification(configuration, sdk.configuration_path())
        self._clustering = Clustering(settings, configuration, staging_directory, clock, verify)
        on_failure(self._clustering.close)

        # Orthanc as a store of DICOM files
        index = path_option(configuration, "IndexDirectory", folder, storage)
        durability = Durability(index, storage, files_synced=bool(configuration.get("SyncStorageArea", True)))
        storage_check = StorageCheck(storage, sdk.storage_is_elsewhere)
        store = self._clustering.store(OrthancStore(sdk, StorageArea(storage), durability, storage_check))
        self._instance_cache = InstanceCache(store, settings.cache_size)
        self._chunk_reader = ChunkReader(store, self._instance_cache)

        # Receiving
        home = self._clustering.home
        limits = StorageLimits.parse(configuration)
        self._extras = ExtrasPolicy(
            OrthancExtras(sdk, configuration, storage_check),
            Accepted.of(settings.accept_metadata),
            settings.origin_metadata,
        )
        reports = Reports(home / "reports", settings.report_retention, clock)
        staging = self._staging = Staging(
            home,
            max_size=settings.max_staging_size,
            clock=clock,
            disks=HostDisks(sdk, storage, index, limits),
            shared=self._clustering.areas,
        )
        self._registry = Registry(
            staging=staging,
            store=store,
            settings=settings,
            clock=clock,
            reports=reports,
            read_only=bool(configuration.get("ReadOnly")) and at_least(sdk.version, READ_ONLY),
            capacity=OrthancCapacity(sdk, limits),
            ownership=self._clustering.ownership,
            extras=self._extras,
        )
        self._push_metrics = PushMetrics()
        self._pushes = PushService(self._registry, settings, clock, self._push_metrics)
        self._clustering.reclaim(self._registry, self._pushes)

        # The ledger of all transfers
        self._texts = Texts(OrthancTexts(sdk), clock)
        self._ledger = Ledger(
            lambda: staging.home / HISTORY,
            self._registry,
            reports,
            self._texts,
            clock,
            settings.report_retention,
            shared=staging.shared,
        )

        # Limits on bandwidth
        self._throttle = Throttle(
            BandwidthLimits.configured(settings), clock, lambda: staging.home / SETTINGS
        )
        self._throttle.load()

        # Jobs
        originator = self._clustering.ownership.originator
        self._ack_logs = AckLogs(staging.home / SENT)
        self._job_durability = JobDurability(durability.sync_index)
        self._services = Services(
            store=store,
            peers=OrthancPeers(sdk, configuration, settings, self._throttle),
            limited=self._throttle.limited,
            reader=self._chunk_reader,
            registry=self._registry,
            reports=reports,
            ack_logs=self._ack_logs,
            settings=settings,
            clock=clock,
            capabilities=CapabilitiesCache(clock),
            body_limits=BodyLimits(clock),
            originator=originator,
            name=str(configuration.get("Name") or "")[:MAX_NAME] or None,
            ended=self._ended,
            begun_anew=self._ledger.begun_anew,
            extras=self._extras,
            transcode=sdk.transcode,
        )

        # Routes
        self._transcoded = TranscodedFiles(store, sdk.transcode, settings.cache_size // 4)
        sockets = ServerSockets(int(configuration.get("HttpPort", 8042)), settings.congestion_control)
        budget = ConnectionBudget(int(configuration.get("HttpThreadsCount", DEFAULT_HTTP_THREADS)), clock)
        self._peer_routes = PeerRoutes(
            store,
            self._chunk_reader,
            self._pushes,
            reports,
            originator,
            sockets.tune,
            self._closing,
            budget,
            WholePulls(self._chunk_reader, bucket_size=settings.bucket_size, max_at_once=budget.total),
            LateUndos(self._services, self._ledger.correct).refreshed,
            self._extras.announced,
            self._transcoded,
        )
        self._plugin_routes = PluginRoutes(sdk.rest_get, javascript())
        self._page_routes = PageRoutes(
            page_files(),
            self._services,
            peers_in_database=bool(configuration.get("OrthancPeersInDatabase", False)),
        )
        self._search_routes = SearchRoutes(self._services, sdk.rest_post)

    def register(self) -> None:
        """Register jobs, metrics, hooks and routes with Orthanc."""
        # The routes come last: should Orthanc refuse anything, no peer meets a plugin of which a part is missing.
        jobs = self._jobs = JobEngine(self._sdk, self._reload, self._job_submitted)
        self._clustering.keep_jobs(jobs, partial(reload, self._services))
        self._sdk.on_metrics(self._publish_metrics)
        listen = lifecycle.on_life(self._sdk, started=self._started, stopped=self._stopped)
        submission = Submission(self._services, jobs)
        sources = Sources(self._services.reports)
        self._registry.on_end(sources.received)
        rules = self._rules = RuleService(
            self._services,
            jobs,
            submission,
            LocalOrthanc(self._sdk.rest_get, self._sdk.rest_put, self._sdk.rest_post, self._sdk.rest_delete),
            OrthancFacts(self._sdk, sources.of, self._origin_names()),
            lambda: self._staging.home / RULES / "rules.sqlite",
            listen,
            int(self._configuration.get("StableAge", 60)),
            shared=self._staging.shared,
        )
        user_routes = UserRoutes(self._services, jobs, submission)
        clock = self._services.clock
        active = ActiveTransfers(jobs, self._registry, clock)
        status_routes = StatusRoutes(Listing(active, self._ledger, self._texts, clock), self._throttle)
        table = routes(
            user_routes,
            self._peer_routes,
            self._plugin_routes,
            status_routes,
            self._page_routes,
            self._search_routes,
            MeasureRoutes(self._services),
            SettingsRoutes(self._services.settings, self._throttle),
            ActionRoutes(Steering(jobs, self._services, self._ledger, active)),
            RuleRoutes(rules),
            ExtrasRoutes(self._extras, self._pushes, self._closing),
            TranscodingRoutes(self._transcoded, self._closing),
        )
        Router(self._sdk).register(self._clustering.spread(table, self._closing))
        log.warning("transfers accelerator %s is loaded", __version__)

    def _reload(self, kind: str, saved: dict[str, Any]) -> Job:
        job = reload(self._services, kind, saved)
        self._saved_tokens.add(job.token)
        return job

    def _job_submitted(self) -> None:
        self._job_durability.add()
        self._clustering.job_submitted()

    def _origin_names(self) -> list[str]:
        """What Orthanc may call the metadata of origins."""
        number = self._services.settings.origin_metadata
        name = UserNumbers.of(self._configuration).metadata_name(number) if number else ""
        return [one for one in (name, str(number)) if one] if number else []

    def _ended(self, record: TransferRecord) -> None:
        self._ledger.ended(record)
        if self._rules is not None:
            self._rules.ended(record)

    def _publish_metrics(self) -> None:
        values = _metrics(self._instance_cache, self._chunk_reader, self._push_metrics)
        if self._rules is not None:
            values.update(self._rules.metrics())
        lifecycle.publish_metrics(self._sdk, values)

    def _started(self) -> None:
        _each(
            "start",
            self._sdk.check_version,
            partial(self._registry.drop_lost_pulls, self._saved_tokens),
            partial(self._ack_logs.drop_lost, self._saved_tokens),
            self._ledger.start,
            self._pushes.recover,
            partial(self._clustering.start, self._staging, self._registry, self._pushes),
            self._start_jobs,
            self._start_rules,
        )

    def _start_jobs(self) -> None:
        if self._jobs is not None:
            self._jobs.started()

    def _start_rules(self) -> None:
        if self._rules is not None:
            self._rules.start()

    def _stop_rules(self) -> None:
        if self._rules is not None:
            self._rules.close()

    def _stopped(self) -> None:
        _each(
            "stop",
            self._closing.cancel,
            self._stop_rules,
            self._job_durability.close,
            self._release_jobs,
            partial(self._clustering.finish, self._pushes),
            self._pushes.close,
            self._clustering.close,
            self._ledger.close,
        )

    def _release_jobs(self) -> None:
        # Orthanc may stop before all of the plugin was registered.
        if self._jobs is not None:
            self._jobs.release_all()


def _each(when: str, *steps: Callable[[], None]) -> None:
    """Take all steps, whichever of them fails. Logs each failure in one line, with its reason."""
    for step in steps:
        try:
            step()
        except Exception as error:
            log.error("not all could be done at the %s of Orthanc: %s", when, described(error))
            log.info("where it failed", exc_info=error)


def _metrics(cache: InstanceCache, reader: ChunkReader, pushes: PushMetrics) -> dict[str, float]:
    """Present values, keyed by the names of the C++ plugin, which has them since its release 1.7."""
    return {
        "orthanc_transfers_used_cache_size": cache.used,
        "orthanc_transfers_cache_hit_count": cache.hits,
        "orthanc_transfers_cache_miss_count": cache.misses + reader.partial_reads,
        **pushes.values(),
    }
