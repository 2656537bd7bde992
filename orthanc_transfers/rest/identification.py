"""How peers see that this Orthanc has a transfers plugin.

The core lists shared libraries only, so ``/plugins`` is answered here: the core's own list and ours.
"""

from __future__ import annotations

from collections.abc import Callable

from orthanc_transfers import __version__
from orthanc_transfers.rest.http import Request, Response, answer_json

PLUGIN = "transfers"


class Identification:
    """``GET /plugins`` and ``GET /plugins/transfers``. ``core_plugins`` answers the core's own list."""

    def __init__(self, core_plugins: Callable[[], list[str]]) -> None:
        self._core_plugins = core_plugins

    def list_plugins(self, request: Request) -> Response:
        """``GET /plugins``: an array of identifiers."""
        return answer_json(sorted({*self._core_plugins(), PLUGIN}))

    def describe(self, request: Request) -> Response:
        """``GET /plugins/transfers``: described like any other plugin."""
        return answer_json(
            {
                "ID": PLUGIN,
                "Version": __version__,
                "Description": "Accelerates transfers of DICOM images between Orthanc servers",
                "ExtendsOrthancExplorer": True,
            }
        )
