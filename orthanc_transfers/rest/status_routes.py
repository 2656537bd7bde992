"""Routes that show all transfers: see docs/status-api.md."""

from __future__ import annotations

from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.ledger.listing import Listing
from orthanc_transfers.ledger.shown import orthanc_time
from orthanc_transfers.net.throttle import Throttle
from orthanc_transfers.rest.http import Request, Response, compact_json_response


class StatusRoutes:
    """The routes by which pages and scripts watch transfers."""

    def __init__(self, listing: Listing, throttle: Throttle) -> None:
        self._listing = listing
        self._throttle = throttle

    def status(self, request: Request) -> Response:
        """``GET /transfers/status``."""
        page = self._listing.page(TransferQuery.parse(request.query))
        limit, until = self._throttle.now()
        return compact_json_response(
            request, {**page, "Bandwidth": {"LimitKBs": limit, "Until": orthanc_time(until)}}
        )
