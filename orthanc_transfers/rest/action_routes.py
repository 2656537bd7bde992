"""``POST /transfers/actions``: steers transfers, one or many. See docs/status-api.md."""

from __future__ import annotations

from typing import Any

from orthanc_transfers.core.errors import BadRequest, NotFound, TransferError
from orthanc_transfers.core.json_fields import array_field, json_object, shown, string_field
from orthanc_transfers.core.transfer_query import MAX_IDS
from orthanc_transfers.ledger.actions import ACTIONS, PRIORITY
from orthanc_transfers.ledger.steering import Steering
from orthanc_transfers.rest.http import Request, Response, json_response

# Values in the JSON of a request.
_MAX_VALUES = 2 * MAX_IDS

_MAX_PRIORITY = 2**31 - 1


class ActionRoutes:
    """The route by which pages and scripts steer transfers."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    def act(self, request: Request) -> Response:
        """``POST /transfers/actions``: what cannot be done with one of the transfers stops no other."""
        body = json_object(request.json(_MAX_VALUES), "the body")
        action = string_field(body, "Action")
        if action not in ACTIONS:
            raise BadRequest(f'"Action" must be one of {", ".join(ACTIONS)}, and is {shown(action)}')
        identifiers = array_field(body, "IDs")
        if len(identifiers) > MAX_IDS or not all(isinstance(one, str) for one in identifiers):
            raise BadRequest(f'"IDs" must be an array of at most {MAX_IDS} identifiers of transfers')
        priority = body.get("Priority")
        if priority is not None and (type(priority) is not int or abs(priority) > _MAX_PRIORITY):
            raise BadRequest(f'"Priority" must be a whole number of 32 bits, and is {shown(priority)}')
        if action == PRIORITY and priority is None:
            raise BadRequest('"Priority" is missing')
        results = [self._result(action, one, priority) for one in dict.fromkeys(identifiers)]
        return json_response({"Results": results})

    def _result(self, action: str, identifier: str, priority: int | None) -> dict[str, Any]:
        try:
            job = self._steering.act(action, identifier, priority)
        except TransferError as error:
            unknown = {"Unknown": True} if isinstance(error, NotFound) else {}
            return {"ID": identifier, "Ok": False, "Error": str(error), **unknown}
        return {"ID": identifier, "Ok": True, **({} if job is None else {"Job": job})}
