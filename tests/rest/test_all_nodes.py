"""Lists and actions of all nodes: whom each of them asks, and what it asks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from orthanc_transfers.core.errors import ForeignSite
from orthanc_transfers.net.relay import Relay, Relayed
from orthanc_transfers.receiver.ownership import Node
from orthanc_transfers.receiver.single_server import SingleServer
from orthanc_transfers.rest.all_nodes import AllNodes
from orthanc_transfers.rest.handing_on import HandingOn
from orthanc_transfers.rest.http import Request, Response
from orthanc_transfers.rest.own_site import own_site
from orthanc_transfers.runtime.cancellation import Cancellation

ACTION = Request(
    "POST",
    "/transfers/actions",
    headers={"content-type": "application/json", "host": "site.example", "origin": "http://site.example"},
)
STATUS = Request("GET", "/transfers/status", headers={})


class Neighbour(Relay):
    """The other node, which serves the requests of this one with ``handler``; hop by hop as over HTTP."""

    def __init__(self) -> None:
        super().__init__(1)
        self.handler: Any = None
        self.asked = 0

    def send(
        self,
        address: str,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        *arguments: Any,
        **options: Any,
    ) -> Relayed:
        self.asked += 1
        assert self.asked < 10
        came = {name: value for name, value in headers.items() if name != "host"} | {"host": "10.0.0.7:8042"}
        try:
            response = self.handler(Request(method, path, query=query, headers=came))
        except ForeignSite as error:
            return Relayed(error.status, b"", "", {})
        return Relayed(200, bytes(response.body), response.content_type, {})


def node(name: str, other: Neighbour, secret: bytes = b"secret") -> AllNodes:
    handing_on = HandingOn(SingleServer(), other, secret, Cancellation(), list, lambda: 1.8e9)
    return AllNodes(handing_on, name, lambda: [Node(7, "other", "http://10.0.0.7:8042", "")])


def listed(name: str) -> Response:
    page = {"Total": 1, "Active": 0, "SpeedBytes": 0, "Transfers": []}
    return Response(json.dumps({**page, "Of": name}).encode())


@pytest.mark.parametrize("secret", [b"secret", b"of tables that were made anew"])
def test_who_is_asked_by_another_node_asks_nobody_whatever_its_secret(secret: bytes) -> None:
    to_b, to_a = Neighbour(), Neighbour()
    a, b = node("a", to_b), node("b", to_a, secret)
    to_b.handler, to_a.handler = b.status(lambda _: listed("b")), a.status(lambda _: listed("a"))
    status = json.loads(bytes(to_a.handler(STATUS).body))
    assert (status["Total"], status["Missing"]) == (2, [])
    assert (to_b.asked, to_a.asked) == (1, 0)


def test_an_action_from_a_page_of_this_site_reaches_the_other_node() -> None:
    to_b, to_nobody = Neighbour(), Neighbour()
    there = own_site(lambda _: Response(json.dumps({"Results": [{"ID": "0", "Ok": True}]}).encode()))
    here = own_site(
        lambda _: Response(json.dumps({"Results": [{"ID": "0", "Ok": False, "Unknown": True}]}).encode())
    )
    to_b.handler = node("b", to_nobody).actions(there)
    answer = node("a", to_b).actions(here)(ACTION)
    assert json.loads(bytes(answer.body))["Results"] == [{"ID": "0", "Ok": True}]


def test_an_action_from_a_page_of_another_site_reaches_none() -> None:
    to_b = Neighbour()
    foreign = Request("POST", ACTION.path, headers={**ACTION.headers, "origin": "http://evil.example"})
    with pytest.raises(ForeignSite):
        node("a", to_b).actions(own_site(lambda _: Response(b"{}")))(foreign)
    assert not to_b.asked
