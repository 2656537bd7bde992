"""A server that stops waits for the responses under way."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.errors import Busy
from orthanc_transfers.rest import under_way as under_way_module
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


def test_it_does_not_wait_for_long_for_what_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_way_module, "QUIET", 0.0)
    under_way = UnderWay()
    handler = under_way.wrap(lambda _: Response())
    first = handler(REQUEST)

    def come_and_go(_: float) -> None:
        handler(REQUEST)
        first.written()

    under_way._changed.wait = come_and_go  # type: ignore[method-assign,assignment]
    assert under_way.settle(60.0)


def test_it_waits_a_moment_for_what_came_meanwhile() -> None:
    under_way = UnderWay()
    handler = under_way.wrap(lambda _: Response())
    first, later = handler(REQUEST), []

    def go_on(_: float) -> None:
        if not later:
            later.append(handler(REQUEST))
            first.written()
        else:
            later[0].written()

    under_way._changed.wait = go_on  # type: ignore[method-assign,assignment]
    assert under_way.settle(60.0)
    assert not under_way._open


def test_a_refused_request_has_ended() -> None:
    under_way = UnderWay()

    def refuse(_: Request) -> Response:
        raise Busy("later")

    with pytest.raises(Busy):
        under_way.wrap(refuse)(REQUEST)
    assert under_way.settle(0.0)
