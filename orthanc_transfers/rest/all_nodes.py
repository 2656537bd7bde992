"""Lists and steers the transfers of all nodes of a cluster, whichever of them is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from orthanc_transfers.core.errors import PeerUnreachable
from orthanc_transfers.core.transfer_query import MAX_LIMIT, TransferQuery
from orthanc_transfers.receiver.ownership import Node
from orthanc_transfers.rest.handing_on import HANDED_ON, HandingOn
from orthanc_transfers.rest.http import Handler, Request, Response, compact_json_response, json_response
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

_TIMEOUT = 3.0
"""Seconds after which the list does without a node."""


class AllNodes:
    """Wraps handlers. ``name`` is this node's, ``others`` tells the other ones that are alive.

    What is marked as handed on is answered for this node alone, whoever has signed it: nodes whose secrets differ (the
    tables were made anew while one of them ran) would ask each other in circles, until all their threads wait.
    """

    def __init__(self, handing_on: HandingOn, name: str, others: Callable[[], Sequence[Node]]) -> None:
        self._handing_on = handing_on
        self._name = name
        self._others = others

    def status(self, handler: Handler) -> Handler:
        """``GET /transfers/status``: each transfer with the key ``Node``. ``Missing`` names who did not respond."""

        def handle(request: Request) -> Response:
            query = TransferQuery.parse(request.query)
            if HANDED_ON in request.headers:
                return handler(request)
            # Each node's first ones: which of them are on the page is known when all are.
            first = {
                **request.query,
                "offset": "0",
                "limit": str(min(MAX_LIMIT, query.offset + query.limit)),
            }
            pages, missing = self._ask(handler, replace(request, query=first))
            return compact_json_response(request, _merged(pages, query, missing))

        return handle

    def actions(self, handler: Handler) -> Handler:
        """``POST /transfers/actions``: on whichever node a transfer is."""

        def handle(request: Request) -> Response:
            if HANDED_ON in request.headers:
                return handler(request)
            pages, _ = self._ask(handler, request)
            rows: dict[str, dict[str, Any]] = {}
            for page in pages.values():
                for row in page["Results"]:
                    known = rows.get(row["ID"])
                    if known is None or known.get("Unknown"):
                        rows[row["ID"]] = row
            return json_response({"Results": list(rows.values())})

        return handle

    def _ask(self, handler: Handler, request: Request) -> tuple[dict[str, Any], list[str]]:
        """What this node and the others respond, by their names; and the names of those that do not."""
        alone = replace(request, headers=_without(request, "accept-encoding"))
        pages = {self._name: json.loads(bytes(handler(alone).body))}
        missing: list[str] = []
        # Whose page it comes from was looked at here; the other node has another address.
        to_others = replace(request, headers=_without(request, "origin"))

        def ask(node: Node) -> None:
            try:
                response = self._handing_on.send(node, to_others, _TIMEOUT)
                if response.status != 200:
                    raise PeerUnreachable(f"status {response.status}", node.name)
                pages[node.name] = json.loads(bytes(response.body))
            except (PeerUnreachable, ValueError):
                missing.append(node.name)

        others = self._others()
        threads.run_all("transfers-nodes", max(1, len(others)), others, ask, Cancellation())
        return pages, sorted(missing)


def _without(request: Request, left_out: str) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name != left_out}


def _merged(pages: dict[str, Any], query: TransferQuery, missing: list[str]) -> dict[str, Any]:
    rows = [{**row, "Node": name} for name, page in pages.items() for row in page["Transfers"]]
    # Active ones first, the newest first; then the ended ones, those that ended last first.
    rows.sort(key=lambda row: row["Ended"] or row["Created"] or "", reverse=True)
    rows.sort(key=lambda row: row["Ended"] is not None)
    own = next(iter(pages.values()))
    return {
        **own,
        "Total": sum(page["Total"] for page in pages.values()),
        "Active": sum(page["Active"] for page in pages.values()),
        "SpeedBytes": sum(page["SpeedBytes"] for page in pages.values()),
        "Transfers": rows[query.offset : query.offset + query.limit],
        "Missing": missing,
    }
