"""Values for ``GET /tools/metrics-prometheus``."""

from __future__ import annotations

from collections.abc import Mapping

from orthanc_transfers.host.sdk import Sdk


def publish(sdk: Sdk, values: Mapping[str, float]) -> None:
    """Give Orthanc the present values, by the metrics' full names. Costs next to nothing."""
    for name, value in values.items():
        sdk.set_metric(name, value)
