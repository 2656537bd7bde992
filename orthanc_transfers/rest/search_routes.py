"""``POST /transfers/find``: studies and series of this Orthanc or of a peer, and how much of them is here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import (
    BadRequest,
    Canceled,
    Forbidden,
    PeerInvalidResponse,
    PeerUnreachable,
    TooLarge,
)
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.core.study_search import Found, Search, series_of
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rest.http import Request, Response, compact_json_response
from orthanc_transfers.runtime.deadline import Deadline

# Bytes of one answer of a peer: the identifiers of 300,000 instances.
_MAX_ANSWER = 16 * 1024 * 1024

# Values in it: as many, and those around them.
_MAX_VALUES = 1_000_000

# Values in the JSON of a request: far more than a search has.
_MAX_REQUEST_VALUES = 100

# Seconds for each wait on the network, and for a search in all.
_TIMEOUT = 15.0
_MAX_DURATION = 40.0

_Ask = Callable[[Mapping[str, Any]], Any]
"""Sends the body of ``POST /tools/find``, and returns the answer."""


class SearchRoutes:
    """``orthanc_post`` is Orthanc's own response to a ``POST`` of a path and a body."""

    def __init__(self, services: Services, orthanc_post: Callable[[str, Buffer], bytes]) -> None:
        self._services = services
        self._orthanc_post = orthanc_post

    def find(self, request: Request) -> Response:
        """``POST /transfers/find``."""
        search = Search.parse(request.json(_MAX_REQUEST_VALUES))
        if search.peer is None:
            found, series = _find(search, self._ask_orthanc)
            here = series
        else:
            found, series = self._find_there(search, search.peer)
            here = _series(search, found, self._ask_orthanc)
        stored = frozenset[str]().union(*(one.instances for one in here))
        below: dict[str, list[Found]] = defaultdict(list)
        for one in series:
            below[one.parent if search.level == "Study" else one.id].append(one)
        shown = found[: search.limit]
        answer = {
            "Peer": search.peer,
            "Level": search.level,
            "More": len(found) > len(shown),
            "Results": [one.to_json(search.level, below[one.id], stored) for one in shown],
        }
        return compact_json_response(request, answer)

    def _find_there(self, search: Search, peer: str) -> tuple[list[Found], list[Found]]:
        if not self._services.settings.browse_peers:
            raise Forbidden(
                "peers are not searched from here: set BrowsePeers to true in the section Transfers to allow it"
            )
        transport = self._services.peers.connect(peer, 1)

        def ask(find: Mapping[str, Any]) -> Any:
            asked = PeerRequest(
                "POST",
                paths.TOOLS_FIND,
                body=[json.dumps(find).encode()],
                headers={"content-type": "application/json"},
                timeout=_TIMEOUT,
                limit=_MAX_ANSWER,
                repeatable=True,
            )
            return parse_json(transport.send(asked).body, _MAX_VALUES)

        try:
            with Deadline("search", _MAX_DURATION, transport.abort):
                return _find(search, ask)
        except Canceled:
            raise PeerUnreachable(
                f"peer {peer} has not answered the search within {_MAX_DURATION:g} seconds: search for less",
                peer,
            ) from None
        except (BadRequest, TooLarge) as error:
            raise PeerInvalidResponse(
                f"peer {peer} sent an invalid response to POST {paths.TOOLS_FIND}: {error}", peer
            ) from error
        finally:
            transport.close()

    def _ask_orthanc(self, find: Mapping[str, Any]) -> Any:
        return parse_json(self._orthanc_post(paths.TOOLS_FIND, json.dumps(find).encode()))


def _find(search: Search, ask: _Ask) -> tuple[list[Found], list[Found]]:
    """What is found, of which a peer may send any number, and the series of it."""
    found = Found.parse_all(ask(search.to_find()), search.level)[: search.limit + 1]
    return found, found if search.level == "Series" else _series(search, found, ask)


def _series(search: Search, found: list[Found], ask: _Ask) -> list[Found]:
    studies = found[: search.limit]
    if not studies:
        return []
    wanted = series_of(studies) if search.level == "Study" else search.to_find()
    return Found.parse_all(ask(wanted), "Series")
