"""The section "Transfers"."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.bandwidth_schedule import ScheduleRow
from orthanc_transfers.core.cluster_settings import ClusterSettings
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.settings import Settings, parse_settings, settings_to_json
from tests.core.any_json import any_json

EVERY_OPTION = {
    "Threads": 6,
    "BucketSize": 8192,
    "CacheSize": 128,
    "MaxPushTransactions": 8,
    "MaxHttpRetries": 3,
    "PeerConnectivityTimeout": 5,
    "PeerCommitTimeout": 1200,
    "CommitThreadsCount": 2,
    "StagingDirectory": "/var/lib/staging",
    "MaxStagingSize": 1000,
    "MaxManifestInstances": 5000,
    "PushIdleTimeout": 60,
    "MaxOutage": 30,
    "ReportRetention": 7,
    "FatalInstanceRetention": 3,
    "AcceptChangedIdentifiers": True,
    "BrowsePeers": False,
    "StrictCompression": True,
    "MaxBandwidth": 100,
    "MaxPeerBandwidth": 0.5,
    "BandwidthSchedule": [{"Days": "Mon-Fri", "From": "08:00", "To": "18:00", "LimitKBs": 1000}],
    "Rules": [{"Name": "night", "Trigger": "StableStudy", "Destinations": ["archive"]}],
    "MaxRuleJobs": 2,
    "AcceptMetadata": ["Labels", "report", "1050"],
    "OriginMetadata": 1090,
    "CongestionControl": "cubic",
    "Cluster": {
        "Enabled": True,
        "NodeName": "one",
        "Address": "http://10.0.0.5:8042",
        "SharedStaging": False,
        "AdoptAfter": 60,
    },
}
COUNTS = [
    "Threads",
    "BucketSize",
    "CacheSize",
    "MaxPushTransactions",
    "CommitThreadsCount",
    "MaxRuleJobs",
    "MaxManifestInstances",
    "PushIdleTimeout",
]
LIMITS = [
    "MaxHttpRetries",
    "PeerConnectivityTimeout",
    "PeerCommitTimeout",
    "MaxStagingSize",
    "MaxOutage",
    "ReportRetention",
    "FatalInstanceRetention",
    "MaxBandwidth",
    "MaxPeerBandwidth",
]
NUMBERS = COUNTS + LIMITS
FRACTIONS = ["MaxBandwidth", "MaxPeerBandwidth"]


def complaint(section: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(section)
    return str(caught.value)


def test_an_empty_section_means_the_defaults() -> None:
    assert parse_settings({}) == Settings()


def test_the_defaults_are_those_of_the_cpp_plugin_where_nothing_else_is_said() -> None:
    settings = Settings()
    assert settings.threads == 4
    assert settings.bucket_size == 4096 * 1024
    assert settings.cache_size == 512 * 1024 * 1024
    assert settings.max_push_transactions == 4
    assert settings.peer_connectivity_timeout == 2
    assert settings.peer_commit_timeout == 600


def test_every_option_arrives_in_the_unit_of_the_program() -> None:
    assert parse_settings(EVERY_OPTION) == Settings(
        threads=6,
        bucket_size=8192 * 1024,
        cache_size=128 * 1024 * 1024,
        max_push_transactions=8,
        max_http_retries=3,
        peer_connectivity_timeout=5,
        peer_commit_timeout=1200,
        commit_threads_count=2,
        staging_directory="/var/lib/staging",
        max_staging_size=1000 * 1024 * 1024,
        max_manifest_instances=5000,
        push_idle_timeout=60,
        max_outage=30,
        report_retention=7,
        fatal_instance_retention=3,
        accept_changed_identifiers=True,
        browse_peers=False,
        strict_compression=True,
        max_bandwidth=100_000_000,
        max_peer_bandwidth=500_000,
        bandwidth_schedule=(ScheduleRow("Mon-Fri", 480, 1080, 1000),),
        rules=({"Name": "night", "Trigger": "StableStudy", "Destinations": ["archive"]},),
        max_rule_jobs=2,
        accept_metadata=("Labels", "report", "1050"),
        origin_metadata=1090,
        congestion_control="cubic",
        cluster=ClusterSettings(True, "", "one", "http://10.0.0.5:8042", False, 60),
    )
    assert settings_to_json(parse_settings(EVERY_OPTION)) == EVERY_OPTION
    assert parse_settings(settings_to_json(Settings())) == Settings()
    assert len(EVERY_OPTION) == len(dataclasses.fields(Settings))


@pytest.mark.parametrize("name", COUNTS)
def test_zero_is_refused_where_nothing_would_work(name: str) -> None:
    assert f'"{name}" must be' in complaint({name: 0})


@pytest.mark.parametrize("name", LIMITS)
def test_zero_is_taken_where_it_means_none(name: str) -> None:
    parse_settings({name: 0})


def test_a_time_out_of_zero_is_that_of_all_other_requests() -> None:
    settings = parse_settings({"PeerConnectivityTimeout": 0, "PeerCommitTimeout": 0})
    assert settings.peer_connectivity_timeout is None
    assert settings.peer_commit_timeout is None


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, "4", None, True, [4], {}, 10**30, float("nan"), float("inf")])
def test_a_bad_number_is_refused_by_name(name: str, value: Any) -> None:
    assert f'"{name}" must be' in complaint({name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in FRACTIONS])
def test_a_fraction_is_refused_where_the_value_is_a_count(name: str) -> None:
    assert f'"{name}" must be' in complaint({name: 4.5})


@pytest.mark.parametrize("value", [5, None, "", "BBR", "a b", "x" * 16, "../x"])
def test_a_bad_congestion_control_is_refused(value: Any) -> None:
    assert '"CongestionControl" must be' in complaint({"CongestionControl": value})


@pytest.mark.parametrize("value", [5, None, ["/tmp"], "/a\0b"])
def test_a_bad_folder_is_refused(value: Any) -> None:
    assert '"StagingDirectory" must be' in complaint({"StagingDirectory": value})


def test_all_bad_options_are_named_at_once_with_their_values() -> None:
    text = complaint({"Threads": -3, "CacheSize": "big", "MaxHttpRetries": 2})
    assert '"Threads" must be a whole number from 1' in text
    assert "and is -3" in text
    assert '"CacheSize"' in text
    assert 'and is "big"' in text
    assert "MaxHttpRetries" not in text


def test_a_long_value_is_cut() -> None:
    assert len(complaint({"Threads": "x" * 10_000})) < 300


@pytest.mark.parametrize("section", [None, [], "Threads", 4])
def test_a_section_that_is_no_object_is_refused(section: Any) -> None:
    assert '"Transfers" must be an object' in complaint(section)


def test_what_is_not_known_is_refused_and_what_was_meant_is_said() -> None:
    said = complaint({"Thread": 5, "CacheSize": 1, "Xyz": 1})
    assert '"Thread" is not an option (did you mean "Threads"?)' in said
    assert '"Xyz" is not an option' in said


@given(st.dictionaries(st.sampled_from(sorted(EVERY_OPTION)), any_json()))
def test_any_json_gives_settings_or_a_complaint(section: dict[str, Any]) -> None:
    try:
        settings = parse_settings(section)
    except ConfigurationError:
        return
    json.dumps(dataclasses.asdict(settings), allow_nan=False)
