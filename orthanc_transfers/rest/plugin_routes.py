"""Routes that list this plugin: ``/plugins`` for peers, and the script of Orthanc Explorer.

Orthanc itself knows shared libraries only, so its own responses about plugins are completed here.
"""

from __future__ import annotations

from collections.abc import Callable

from orthanc_transfers._version import __version__
from orthanc_transfers.core.paths import EXPLORER_SCRIPT, PLUGINS
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.rest.http import Request, Response, json_response

PLUGIN = "transfers"


class PluginRoutes:
    """The routes below ``/plugins``. ``orthanc_get`` is Orthanc's own response to a ``GET``."""

    def __init__(self, orthanc_get: Callable[[str], bytes], javascript: str) -> None:
        self._orthanc_get = orthanc_get
        self._javascript = javascript.encode()

    def list_plugins(self, request: Request) -> Response:
        """``GET /plugins``: an array of identifiers."""
        return json_response(sorted({*parse_json(self._orthanc_get(PLUGINS)), PLUGIN}))

    def describe(self, request: Request) -> Response:
        """``GET /plugins/transfers``: described like any other plugin."""
        return json_response(
            {
                "ID": PLUGIN,
                "Version": __version__,
                "Description": "Accelerates transfers of DICOM images between Orthanc servers",
                "ExtendsOrthancExplorer": True,
            }
        )

    def explorer(self, request: Request) -> Response:
        """``GET /plugins/explorer.js``: the scripts of all plugins.

        Orthanc keeps one script for each shared library, and that of the Python plugin may be a user's own.
        """
        return Response(
            self._orthanc_get(EXPLORER_SCRIPT) + b"\n" + self._javascript, "application/javascript"
        )
