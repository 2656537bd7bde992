"""Context, log, moments and metrics in a real Orthanc."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.host.native.sdk import Sdk
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc


def test_the_context_found_in_memory_names_the_version_of_this_orthanc(host: OrthancServer) -> None:
    assert host.get("host/said")["version"] == host.get("system")["Version"]


def test_the_version_is_compared_with_that_of_the_server_once_it_has_started(host: OrthancServer) -> None:
    # The script compares when it is told of the start; a difference would be an error in the log.
    wait_until(lambda: len(host.get("host/said")["moments"]) == 2, "the start is told")
    assert "the plugin context says" not in host.log


def test_a_context_of_another_version_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = object.__new__(Sdk)
    sdk.version = "1.10.1"
    monkeypatch.setattr(sdk, "rest_get", lambda uri: b'{"Version": "1.12.7"}')
    with pytest.raises(ConfigurationError, match=r"says Orthanc 1\.10\.1, the server 1\.12\.7"):
        sdk.check_version()


def test_several_callbacks_learn_that_orthanc_started(host: OrthancServer) -> None:
    wait_until(lambda: len(host.get("host/said")["moments"]) == 2, "it is told to both")
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


def test_the_responses_of_orthanc_itself_can_be_asked_for(host: OrthancServer) -> None:
    assert "python" in host.get("host/said")["core plugins"]
