"""Hooks into Orthanc's start and stop, and metrics for its ``GET /tools/metrics-prometheus``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import ChangeType


def on_started(sdk: Sdk, callback: Callable[[], None]) -> None:
    """Call back, in a thread of Orthanc, once the server is up.

    From then on the database and the REST API can be used.
    """
    _on(sdk, ChangeType.ORTHANC_STARTED, callback)


def on_stopped(sdk: Sdk, callback: Callable[[], None]) -> None:
    """Call back, in a thread of Orthanc, once the server stops, while the SDK can still be used."""
    _on(sdk, ChangeType.ORTHANC_STOPPED, callback)


def _on(sdk: Sdk, wanted: ChangeType, callback: Callable[[], None]) -> None:
    def changed(change: int) -> None:
        if change == wanted:
            callback()

    sdk.on_change(changed)


def publish_metrics(sdk: Sdk, values: Mapping[str, float]) -> None:
    """Hand Orthanc the present values, keyed by the metrics' full names. Costs next to nothing."""
    for name, value in values.items():
        sdk.set_metric(name, value)
