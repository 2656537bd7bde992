"""Routes that show all transfers: see docs/status-api.md."""

from __future__ import annotations

from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.ledger.listing import Listing
from orthanc_transfers.rest.http import Request, Response, compact_json_response


class StatusRoutes:
    """The routes by which pages and scripts watch transfers."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def status(self, request: Request) -> Response:
        """``GET /transfers/status``."""
        page = self._listing.page(TransferQuery.parse(request.query))
        return compact_json_response(request, {**page, "Bandwidth": {"LimitKBs": 0, "Until": None}})
