"""How peers and Orthanc Explorer see that this Orthanc has a transfers plugin.

The core knows shared libraries only, so what it says of plugins is answered here: its own answer and ours.
"""

from __future__ import annotations

from collections.abc import Callable

from orthanc_transfers._version import __version__
from orthanc_transfers.core.paths import EXPLORER_SCRIPT, PLUGINS
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.rest.http import Request, Response, answer_json

PLUGIN = "transfers"


class PluginRoutes:
    """The routes below ``/plugins``. ``core`` answers a ``GET`` as the core does; ``javascript`` is the button."""

    def __init__(self, core: Callable[[str], bytes], javascript: str) -> None:
        self._core = core
        self._javascript = javascript.encode()

    def list_plugins(self, request: Request) -> Response:
        """``GET /plugins``: an array of identifiers."""
        return answer_json(sorted({*parse_json(self._core(PLUGINS)), PLUGIN}))

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

    def explorer(self, request: Request) -> Response:
        """``GET /plugins/explorer.js``: the scripts of all plugins.

        Orthanc keeps one script for each shared library, and that of the Python plugin may be a user's own.
        """
        return Response(self._core(EXPLORER_SCRIPT) + b"\n" + self._javascript, "application/javascript")
