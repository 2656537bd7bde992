"""The moments at which Orthanc has started and is about to stop."""

from __future__ import annotations

from collections.abc import Callable

from orthanc_transfers.host.sdk import ChangeType, Sdk


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
