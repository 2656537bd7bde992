"""Routes of the rules: what is sent by itself. See docs/status-api.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest, TooLarge
from orthanc_transfers.core.json_fields import json_object, natural_number, shown
from orthanc_transfers.core.messages_v1 import parse_resources
from orthanc_transfers.core.rule_entry import ACTIVE, ENDED, Entry
from orthanc_transfers.core.rule_query import RuleQuery
from orthanc_transfers.ledger.shown import orthanc_time
from orthanc_transfers.rest.http import Request, Response, compact_json_response, json_response
from orthanc_transfers.rules.service import RuleService

# Values in the JSON of a rule, and of a run by hand.
_MAX_VALUES = 10_000

MAX_RESOURCES = 1000
"""Resources that a run by hand may name."""


class RuleRoutes:
    """The routes by which users see and change rules, and run them by hand."""

    def __init__(self, rules: RuleService) -> None:
        self._rules = rules

    def all(self, request: Request) -> Response:
        """``GET /transfers/rules``."""
        return compact_json_response(
            request,
            {
                "Rules": self._rules.listing(),
                "Obstacle": self._rules.obstacle,
                "UnreachablePeers": self._rules.held_peers(),
            },
        )

    def add(self, request: Request) -> Response:
        """``POST /transfers/rules``: one more."""
        return json_response(self._rules.put(request.json(_MAX_VALUES), new=True))

    def get(self, request: Request) -> Response:
        """``GET /transfers/rules/{name}``."""
        return json_response(self._rules.one(request.groups[0]))

    def put(self, request: Request) -> Response:
        """``PUT /transfers/rules/{name}``: changed, or added."""
        body = dict(json_object(request.json(_MAX_VALUES), "a rule"))
        if body.setdefault("Name", request.groups[0]) != request.groups[0]:
            raise BadRequest('"Name" must be that of the path: a rule keeps its name')
        return json_response(self._rules.put(body, new=False))

    def delete(self, request: Request) -> Response:
        """``DELETE /transfers/rules/{name}``."""
        self._rules.delete(request.groups[0])
        return Response(b"{}")

    def run(self, request: Request) -> Response:
        """``POST /transfers/rules/{name}/run``: by hand."""
        body = json_object(request.json(_MAX_VALUES), "the body")
        unknown = [key for key in body if key not in ("Resources", "DryRun")]
        if unknown:
            raise BadRequest(f"a run may have Resources and DryRun, and has {shown(unknown[0])}")
        dry = _dry(body)
        resources = parse_resources(body["Resources"]) if "Resources" in body else None
        if resources is not None and len(resources) > MAX_RESOURCES:
            raise TooLarge(f'"Resources" may name {MAX_RESOURCES} resources, and names {len(resources)}')
        return json_response(self._rules.run(request.groups[0], resources, dry=dry))

    def compare(self, request: Request) -> Response:
        """``POST /transfers/rules/{name}/compare``: a mirror with its destinations."""
        body = json_object(request.json(_MAX_VALUES), "the body")
        unknown = [key for key in body if key not in ("DryRun", "Since")]
        if unknown:
            raise BadRequest(f"a comparison may have DryRun and Since, and has {shown(unknown[0])}")
        since = natural_number(body.get("Since", 0), '"Since"')
        return compact_json_response(
            request, self._rules.compare(request.groups[0], dry=_dry(body), since=since)
        )

    def queue(self, request: Request) -> Response:
        """``GET /transfers/queue``: what waits and runs, the oldest first."""
        return self._page(request, RuleQuery.parse(request.query, ACTIVE))

    def history(self, request: Request) -> Response:
        """``GET /transfers/queue/history``: what has ended, the newest first."""
        return self._page(request, RuleQuery.parse(request.query, ENDED))

    def _page(self, request: Request, query: RuleQuery) -> Response:
        total, entries = self._rules.page(query.states, query.rule, query.limit, query.offset)
        return compact_json_response(request, {"Total": total, "Entries": [_entry(one) for one in entries]})


def _dry(body: Mapping[str, Any]) -> bool:
    dry = body.get("DryRun", False)
    if not isinstance(dry, bool):
        raise BadRequest(f'"DryRun" must be true or false, and is {shown(dry)}')
    return dry


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "ID": entry.id,
        "Rule": entry.rule,
        "Resource": {"Level": entry.resource.level.value, "ID": entry.resource.id},
        "Origin": entry.origin,
        "State": entry.state.value,
        "Destination": entry.destination or None,
        "Peer": entry.peer,
        "Job": entry.job,
        "Attempts": entry.attempts,
        "OutsideWindow": entry.held,
        "Queued": orthanc_time(entry.queued),
        "Ended": orthanc_time(entry.ended),
        "Said": entry.said,
    }
