"""Composition root: reads the configuration, builds everything, wires it, stops it."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

from orthanc_transfers import __version__
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import parse_peers
from orthanc_transfers.core.settings import parse_settings
from orthanc_transfers.explorer import javascript
from orthanc_transfers.host import lifecycle, logs, metrics
from orthanc_transfers.host.context import (
    find_context,
    other_transfers_plugin_configured,
    other_transfers_plugin_loaded,
)
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.jobs import JobEngine
from orthanc_transfers.host.peers import OrthancPeers
from orthanc_transfers.host.router import Router
from orthanc_transfers.host.sdk import Sdk
from orthanc_transfers.host.served import ServedConnections
from orthanc_transfers.host.store import OrthancStore
from orthanc_transfers.host.stored_files import StoredFiles
from orthanc_transfers.host.submitted import SubmittedJobs
from orthanc_transfers.rest.active import Active
from orthanc_transfers.rest.identification import Identification
from orthanc_transfers.rest.passive import Passive
from orthanc_transfers.rest.routes import routes
from orthanc_transfers.transfer.cancellation import Cancellation
from orthanc_transfers.transfer.clock import SystemClock
from orthanc_transfers.transfer.counters import PushCounters
from orthanc_transfers.transfer.environment import Environment
from orthanc_transfers.transfer.job import reload
from orthanc_transfers.transfer.negotiation import Negotiation
from orthanc_transfers.transfer.ports import Job
from orthanc_transfers.transfer.reception import Receptions
from orthanc_transfers.transfer.reports import Reports
from orthanc_transfers.transfer.sent import FOLDER as SENT
from orthanc_transfers.transfer.sent import SentRecords
from orthanc_transfers.transfer.source import Source
from orthanc_transfers.transfer.staging import Staging
from orthanc_transfers.transfer.transactions import Transactions

log = logging.getLogger(__name__)

SECTION = "Transfers"


def load() -> None:
    """Build the plugin and register it with Orthanc; or say in the log, in one sentence, why not."""
    try:
        sdk = Sdk(find_context())
    except ConfigurationError as error:
        logs.say_without_sdk(f"the transfers plugin is not loaded: {error}")
        return
    logs.install(sdk)
    try:
        plugin = Plugin(sdk)
    except (ConfigurationError, OSError) as error:
        log.error("the transfers plugin is not loaded: %s", error)
    except Exception:
        # Raising would end Orthanc: a server without transfers is better than none.
        log.exception("the transfers plugin is not loaded")
    else:
        plugin.register()


class Plugin:
    """Everything, built from the configuration. Nothing is registered with Orthanc before ``register``.

    Raises ``ConfigurationError``.
    """

    def __init__(self, sdk: Sdk) -> None:
        configuration = sdk.configuration()
        path = Path(sdk.configuration_path())
        # As Orthanc takes the paths of its configuration: relative to the folder where that lies.
        folder = path if path.is_dir() else path.parent
        if other_transfers_plugin_loaded() or other_transfers_plugin_configured(
            configuration.get("Plugins"), folder
        ):
            raise ConfigurationError(
                "the C++ transfers plugin is loaded as well: take one of the two out of the configuration"
            )
        settings = parse_settings(configuration.get(SECTION, {}))
        parse_peers(configuration.get("OrthancPeers", {}))
        storage = folder / str(configuration.get("StorageDirectory", "OrthancStorage"))
        staging_directory = (
            folder / settings.staging_directory if settings.staging_directory else storage / "Transfers"
        )

        self._sdk = sdk
        self._clock = SystemClock()
        self._counters = PushCounters()
        durability = Durability(
            folder / str(configuration.get("IndexDirectory", storage)),
            storage,
            files_synced=bool(configuration.get("SyncStorageArea", True)),
        )
        self._store = OrthancStore(sdk, StoredFiles(storage), durability)
        self._submitted = SubmittedJobs(durability.force_index)
        self._source = Source(self._store, settings.cache_size)
        self._reports = Reports(staging_directory / "reports", settings.report_retention, self._clock)
        staging = Staging(staging_directory, max_size=settings.max_staging_size, clock=self._clock)
        self._sent = SentRecords(staging.root / SENT)
        self._receptions = Receptions(
            staging=staging, store=self._store, settings=settings, clock=self._clock, reports=self._reports
        )
        self._transactions = Transactions(self._receptions, settings, self._clock, self._counters)
        originator = str(uuid.uuid4())
        self._environment = Environment(
            store=self._store,
            peers=OrthancPeers(sdk, configuration, settings),
            source=self._source,
            receptions=self._receptions,
            reports=self._reports,
            sent=self._sent,
            settings=settings,
            clock=self._clock,
            negotiation=Negotiation(self._clock),
            originator=originator,
        )
        served = ServedConnections(int(configuration.get("HttpPort", 8042)), settings.congestion_control)
        self._closing = Cancellation()
        self._reloaded: set[str] = set()
        """Tokens of the jobs that Orthanc had saved."""
        self._passive = Passive(
            self._store,
            self._source,
            self._transactions,
            self._reports,
            originator,
            served.tune,
            self._closing,
        )

    def register(self) -> None:
        """Make routes, jobs and the button known to Orthanc."""
        self._jobs = JobEngine(self._sdk, self._reload, self._submitted.add)
        identification = Identification(self._sdk.rest_get, javascript())
        Router(self._sdk).register(
            routes(Active(self._environment, self._jobs), self._passive, identification)
        )
        self._sdk.on_metrics(self._publish_metrics)
        lifecycle.on_started(self._sdk, self._started)
        lifecycle.on_stopped(self._sdk, self._stopped)
        log.warning("transfers accelerator %s is loaded", __version__)

    def _reload(self, kind: str, saved: dict[str, Any]) -> Job:
        job = reload(self._environment, kind, saved)
        self._reloaded.add(job.token)
        return job

    def _publish_metrics(self) -> None:
        metrics.publish(self._sdk, _metrics(self._source, self._counters))

    def _started(self) -> None:
        try:
            self._sdk.check_version()
        except ConfigurationError as error:
            log.error("%s", error)
        self._receptions.drop_lost_pulls(self._reloaded)
        self._sent.drop_lost(self._reloaded)
        self._transactions.recover()

    def _stopped(self) -> None:
        self._closing.cancel()
        self._submitted.close()
        self._jobs.release_all()
        self._transactions.close()


def _metrics(source: Source, counters: PushCounters) -> dict[str, float]:
    """By the names of the C++ plugin, where they appeared in its release 1.7."""
    return {
        "orthanc_transfers_used_cache_size": source.used,
        "orthanc_transfers_cache_hit_count": source.hits,
        "orthanc_transfers_cache_miss_count": source.misses,
        **counters.values(),
    }
