"""Hooks into Orthanc's start and stop, and metrics for its ``GET /tools/metrics-prometheus``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import ChangeType


def on_life(sdk: Sdk, *, started: Callable[[], None], stopped: Callable[[], None]) -> None:
    """Call back, in a thread of Orthanc, once the server is up, and once it stops.

    Between the two the database and the REST API can be used; the SDK in both callbacks.
    """
    sdk.on_change({ChangeType.ORTHANC_STARTED: started, ChangeType.ORTHANC_STOPPED: stopped})


def publish_metrics(sdk: Sdk, values: Mapping[str, float]) -> None:
    """Hand Orthanc the present values, keyed by the metrics' full names. Costs next to nothing."""
    for name, value in values.items():
        sdk.set_metric(name, value)
