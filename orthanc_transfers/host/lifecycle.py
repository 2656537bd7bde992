"""Hooks into Orthanc's start and stop, and metrics for its ``GET /tools/metrics-prometheus``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import ChangeType

_TRIGGERS = {
    "NewInstance": ChangeType.NEW_INSTANCE,
    "StablePatient": ChangeType.STABLE_PATIENT,
    "StableSeries": ChangeType.STABLE_SERIES,
    "StableStudy": ChangeType.STABLE_STUDY,
}

Listen = Callable[[Collection[str], Callable[[], None]], None]
"""Sets the callback of those changes of resources, by their names in Orthanc, and of no others."""


def on_life(sdk: Sdk, *, started: Callable[[], None], stopped: Callable[[], None]) -> Listen:
    """Call back, in a thread of Orthanc, once the server is up, and once it stops.

    Between the two the database and the REST API can be used; the SDK in both callbacks. Returns how to listen for
    changes of resources, at any time.
    """
    callbacks: dict[int, Callable[[], None]] = {
        ChangeType.ORTHANC_STARTED: started,
        ChangeType.ORTHANC_STOPPED: stopped,
    }

    def listen(names: Collection[str], callback: Callable[[], None]) -> None:
        # Single operations of a dict: another thread may be told of a change just now.
        for name, change in _TRIGGERS.items():
            if name in names:
                callbacks[change] = callback
            else:
                callbacks.pop(change, None)

    sdk.on_change(callbacks)
    return listen


def publish_metrics(sdk: Sdk, values: Mapping[str, float]) -> None:
    """Hand Orthanc the present values, keyed by the metrics' full names. Costs next to nothing."""
    for name, value in values.items():
        sdk.set_metric(name, value)
