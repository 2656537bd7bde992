"""Context, log, moments and metrics in a real Orthanc."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.orthanc_server import OrthancServer

pytestmark = pytest.mark.orthanc


def test_the_context_found_in_memory_names_the_version_of_this_orthanc(host: OrthancServer) -> None:
    assert host.get("host/said")["version"] == host.get("system")["Version"]


def test_several_callbacks_learn_that_orthanc_started(host: OrthancServer) -> None:
    assert sorted(host.get("host/said")["moments"]) == ["started", "started, told twice"]


def test_the_end_of_orthanc_is_told_while_its_log_still_works(
    make_host: Callable[..., OrthancServer],
) -> None:
    host = make_host("ending").start()
    host.stop()
    assert "transfers: told to stop" in host.log


def test_metrics_appear_among_those_of_orthanc(host: OrthancServer) -> None:
    host.get("host/said")
    assert "orthanc_transfers_test_value 42" in host.get("tools/metrics-prometheus")


def test_no_other_transfers_plugin_is_seen_where_there_is_none(host: OrthancServer) -> None:
    assert host.get("host/said")["other"] is False


def test_the_cores_own_answers_can_be_asked_for(host: OrthancServer) -> None:
    assert "python" in host.get("host/said")["core plugins"]


def test_javascript_reaches_orthanc_explorer(host: OrthancServer) -> None:
    assert "/* an extension of the test */" in host.download("plugins/explorer.js").decode()
