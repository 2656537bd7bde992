"""A server that stops waits for the responses under way."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.errors import Busy
from orthanc_transfers.rest.http import Request, Response
from orthanc_transfers.rest.under_way import UnderWay

REQUEST = Request("PUT", "/transfers/push/1/0")


def test_it_waits_until_a_response_is_written() -> None:
    under_way = UnderWay()
    told: list[str] = []
    response = under_way.wrap(lambda _: Response(b"ok", written=lambda: told.append("written")))(REQUEST)
    assert not under_way.settle(0.0)
    response.written()
    assert under_way.settle(0.0)
    assert told == ["written"]


def test_it_does_not_wait_for_what_comes_later() -> None:
    under_way = UnderWay()
    handler = under_way.wrap(lambda _: Response())
    first = handler(REQUEST)

    def come_and_go(_: float) -> None:
        handler(REQUEST)
        first.written()

    under_way._changed.wait = come_and_go  # type: ignore[method-assign,assignment]
    assert under_way.settle(60.0)


def test_a_refused_request_has_ended() -> None:
    under_way = UnderWay()

    def refuse(_: Request) -> Response:
        raise Busy("later")

    with pytest.raises(Busy):
        under_way.wrap(refuse)(REQUEST)
    assert under_way.settle(0.0)
