"""Parses the section ``Transfers`` of Orthanc's configuration into ``Settings``. Every bad value is named.

The first eight options are those of the C++ plugin, with its meaning; the defaults are its own except
where a comment says otherwise.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.bandwidth_schedule import Schedule, parse_schedule
from orthanc_transfers.core.cluster_settings import ClusterSettings, cluster_to_json, parse_cluster
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.webhook import hide_secrets

KB = 1024
MB = 1024 * 1024
MEGABIT = 1_000_000

# Values in the JSON of a creation: four for each instance and each of its chunks, and those of chunks of large ones.
_VALUES_OF_INSTANCE = 16
_MORE_VALUES = 1_000_000


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, in the units that the program uses."""

    threads: int = 4
    """HTTP workers of one transfer."""
    bucket_size: int = 4096 * KB
    """Bytes that a bucket should have."""
    cache_size: int = 512 * MB
    """Bytes of memory for DICOM files being sent, over all transfers."""
    max_push_transactions: int = 4
    """Pushes received at once."""
    max_http_retries: int = 5
    """Retries of one request after an error of the network. 0 in the C++ plugin."""
    peer_connectivity_timeout: int | None = 2
    """Seconds, for ``GET /transfers/peers``; ``None``: as for any other request (configured as 0)."""
    peer_commit_timeout: int | None = 600
    """Seconds that a sender waits for a creation or a commit of version 1; ``None`` as above."""
    commit_threads_count: int = 4
    """Threads that import at a commit. 1 in the C++ plugin."""

    # Our own.
    staging_directory: str = ""
    """Folder for what is being received; empty: ``Transfers`` below Orthanc's ``StorageDirectory``."""
    max_staging_size: int = 0
    """Bytes that all transfers being received may take on disk together; 0: as much as the disk has."""
    max_manifest_instances: int = 1_000_000
    """Maximum number of instances in one transfer."""
    push_idle_timeout: int = 3600
    """Seconds without a request after which a push being received is dropped."""
    max_outage: int = 600
    """Seconds that a job waits for an unreachable peer before it fails; 0: it does not wait."""
    report_retention: int = 30
    """Days that commit reports are kept."""
    fatal_instance_retention: int = 7
    """Days that instances are refused whose import ended Orthanc twice; 0: they are tried again."""
    accept_changed_identifiers: bool = False
    """Whether an instance that Orthanc stores with another identifier, which a script changed, is no failure."""
    strict_compression: bool = False
    """Whether ``Compression: "gzip"`` is gzip also between two of our own plugins, where it means ``auto``."""
    max_bandwidth: int = 0
    """Bits a second that all sending and fetching together may use; 0: no limit."""
    max_peer_bandwidth: int = 0
    """Bits a second that sending to or fetching from one peer may use; 0: no limit."""
    browse_peers: bool = True
    """Whether users here may search on peers, with the credentials that this Orthanc has there."""
    bandwidth_schedule: Schedule = ()
    """Limits of all sending and fetching together by day and hour, in place of ``max_bandwidth``."""
    rules: tuple[Mapping[str, Any], ...] = ()
    """What is sent by itself, as written: ``core/rule.py`` parses each, so that a bad one stops no other."""
    max_rule_jobs: int = 4
    """Jobs of rules in Orthanc's jobs engine at once."""
    accept_metadata: tuple[str, ...] = ()
    """What is taken from senders besides DICOM: ``Labels``, ``Metadata``, ``Attachments``, or single ones by name or
    number."""
    origin_metadata: int = 0
    """Number of the metadata of series that says where a transferred one came from; 0: none does."""
    congestion_control: str = "auto"
    """TCP congestion control of our own sockets: ``auto`` (BBR where the kernel has it), ``system``, or a name."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Whether this Orthanc is one of several on one PostgreSQL."""

    @property
    def max_values(self) -> int:
        """Maximum number of values in the JSON of a message that names instances: bounds its memory."""
        return _VALUES_OF_INSTANCE * self.max_manifest_instances + _MORE_VALUES


def parse_settings(section: Any) -> Settings:
    """The options of the section, those that are absent at their defaults.

    Raises ``ConfigurationError``, whose text names every unknown option, and every bad one with its value and
    what it should be.
    """
    if not isinstance(section, Mapping):
        raise ConfigurationError(f'"Transfers" must be an object of options, and is {_shown(section)}')
    values: dict[str, Any] = {}
    complaints = [f'"{name}" is not an option{_alike(name)}' for name in section if name not in _OPTIONS]
    for name, option in _OPTIONS.items():
        if name not in section:
            continue
        try:
            values[option.field] = option.parse(section[name])
        except ValueError as error:
            shown = "" if name in _SECRET else f", and is {_shown(section[name])}"
            complaints.append(f'"{name}" must be {error}{shown}')
    if complaints:
        raise ConfigurationError('in the section "Transfers", ' + "; ".join(complaints))
    return Settings(**values)


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """All options as they may be written in the configuration."""
    return {name: _written(name, getattr(settings, option.field)) for name, option in _OPTIONS.items()}


def _written(name: str, value: Any) -> Any:
    if name == "BandwidthSchedule":
        return [row.to_json() for row in value]
    if name == "Cluster":
        return cluster_to_json(value)
    if name == "Rules":
        return [hide_secrets(rule) for rule in value]
    if name == "AcceptMetadata":
        return list(value)
    if value is None:
        return 0  # a time-out
    unit = _UNITS.get(name, 1)
    if unit == 1:
        return value
    return value // unit if value % unit == 0 else value / unit


def _alike(name: str) -> str:
    """What a misspelt option may have meant."""
    alike = difflib.get_close_matches(name, _OPTIONS, 1)
    return f' (did you mean "{alike[0]}"?)' if alike else ""


@dataclass(frozen=True, slots=True)
class _Option:
    """``parse`` raises ``ValueError`` with what the value should be."""

    field: str
    parse: Callable[[Any], Any]


def _integer(lowest: int, highest: int, unit: int = 1) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return value * unit

    return parse


def _timeout(value: Any) -> int | None:
    # As Orthanc's client takes a time-out of 0.
    return _integer(0, _YEAR)(value) or None


def _bandwidth(value: Any) -> int:
    # Fractions, for there are links of less than 1 Mbit/s.
    if type(value) not in (int, float) or not (value == 0 or 0.001 <= value <= 1_000_000):
        raise ValueError("0 or a number of Mbit/s from 0.001 to 1000000")
    number: float = value
    return math.ceil(number * MEGABIT)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("the path of a folder")
    return value


def _rules(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(isinstance(rule, dict) for rule in value):
        raise ValueError("an array of rules, each an object")
    return tuple(value)


def _accepted(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(name, str) and re.fullmatch("[0-9A-Za-z_-]{1,128}", name) for name in value
    ):
        raise ValueError(
            'an array of "Labels", "Metadata", "Attachments", or names or numbers of single ones'
        )
    return tuple(value)


def _origin(value: Any) -> int:
    if type(value) is not int or not (value == 0 or 1024 <= value <= 65535):
        raise ValueError("0 or the number of a user-defined metadata, from 1024 to 65535")
    return value


def _congestion_control(value: Any) -> str:
    # The kernel takes names of up to 15 characters (TCP_CA_NAME_MAX of linux/tcp.h is 16, with the final 0).
    if not isinstance(value, str) or not re.fullmatch("[a-z0-9_-]{1,15}", value):
        raise ValueError('"auto", "system" or the name of an algorithm such as "bbr"')
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}…"


_UNITS = {
    "BucketSize": KB,
    "CacheSize": MB,
    "MaxStagingSize": MB,
    "MaxBandwidth": MEGABIT,
    "MaxPeerBandwidth": MEGABIT,
}

# Options of which nothing is repeated in an error.
_SECRET = frozenset({"Cluster"})

_MAX_THREADS = 256
_YEAR = 366 * 24 * 3600

_OPTIONS: dict[str, _Option] = {
    "Threads": _Option("threads", _integer(1, _MAX_THREADS)),
    # A chunk may be twice as large, and its size must stay below 2^31 for C++ peers.
    "BucketSize": _Option("bucket_size", _integer(1, 512 * 1024, KB)),
    "CacheSize": _Option("cache_size", _integer(1, 1024 * 1024, MB)),
    "MaxPushTransactions": _Option("max_push_transactions", _integer(1, 1_000_000)),
    "MaxHttpRetries": _Option("max_http_retries", _integer(0, 1_000_000)),
    "PeerConnectivityTimeout": _Option("peer_connectivity_timeout", _timeout),
    "PeerCommitTimeout": _Option("peer_commit_timeout", _timeout),
    "CommitThreadsCount": _Option("commit_threads_count", _integer(1, _MAX_THREADS)),
    "StagingDirectory": _Option("staging_directory", _path),
    "MaxStagingSize": _Option("max_staging_size", _integer(0, 2**40, MB)),
    "MaxManifestInstances": _Option("max_manifest_instances", _integer(1, 2**31 - 1)),
    "PushIdleTimeout": _Option("push_idle_timeout", _integer(1, _YEAR)),
    "MaxOutage": _Option("max_outage", _integer(0, _YEAR)),
    "ReportRetention": _Option("report_retention", _integer(0, 36_600)),
    "FatalInstanceRetention": _Option("fatal_instance_retention", _integer(0, 36_600)),
    "AcceptChangedIdentifiers": _Option("accept_changed_identifiers", _boolean),
    "StrictCompression": _Option("strict_compression", _boolean),
    "MaxBandwidth": _Option("max_bandwidth", _bandwidth),
    "MaxPeerBandwidth": _Option("max_peer_bandwidth", _bandwidth),
    "BrowsePeers": _Option("browse_peers", _boolean),
    "BandwidthSchedule": _Option("bandwidth_schedule", parse_schedule),
    "Rules": _Option("rules", _rules),
    "MaxRuleJobs": _Option("max_rule_jobs", _integer(1, 1000)),
    "AcceptMetadata": _Option("accept_metadata", _accepted),
    "OriginMetadata": _Option("origin_metadata", _origin),
    "CongestionControl": _Option("congestion_control", _congestion_control),
    "Cluster": _Option("cluster", parse_cluster),
}
