"""Routes of the settings in force, some of which may be changed at run time: see docs/status-api.md."""

from __future__ import annotations

from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import json_object, shown
from orthanc_transfers.core.settings import Settings, settings_to_json
from orthanc_transfers.net.throttle import Throttle
from orthanc_transfers.rest.http import Request, Response, json_response

RUNTIME_CHANGEABLE = ("MaxBandwidth", "MaxPeerBandwidth", "BandwidthSchedule")
"""Options of the configuration whose place ``Bandwidth`` takes."""

# Values in the JSON of a change: enough for a limit of each peer and a full timetable.
_MAX_VALUES = 5000


class SettingsRoutes:
    """``GET`` and ``PUT /transfers/settings``."""

    def __init__(self, settings: Settings, throttle: Throttle) -> None:
        self._settings = settings
        self._throttle = throttle

    def get(self, request: Request) -> Response:
        """``GET /transfers/settings``."""
        return json_response(self._shown())

    def put(self, request: Request) -> Response:
        """``PUT /transfers/settings``: obeyed by transfers that run, and kept over restarts."""
        body = json_object(request.json(_MAX_VALUES), "the body")
        unknown = [key for key in body if key != "Bandwidth"]
        if unknown or not body:
            raise BadRequest(
                'only "Bandwidth" can be changed while Orthanc runs'
                + (f", not {shown(unknown[0])}: change it in the configuration" if unknown else "")
            )
        self._throttle.change(body["Bandwidth"])
        return json_response(self._shown())

    def _shown(self) -> dict[str, Any]:
        return {
            "Bandwidth": self._throttle.to_json(),
            "InForce": settings_to_json(self._settings),
            "RuntimeChangeable": list(RUNTIME_CHANGEABLE),
        }
