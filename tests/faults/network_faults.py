"""What a network, a proxy or a broken peer may do to one request: the faults for ``fault_proxy``."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.fault_proxy import Exchange, Fault, response


def _cut_in_request(size: int) -> Callable[[Exchange], None]:
    def do(exchange: Exchange) -> None:
        exchange.forward_only(size)
        exchange.reset()

    return do


def _cut_in_answer(size: int) -> Callable[[Exchange], None]:
    def do(exchange: Exchange) -> None:
        exchange.reply(exchange.ask().encode()[:size])
        exchange.reset()

    return do


def _lose_answer(exchange: Exchange) -> None:
    exchange.ask()
    exchange.reset()


def _close_instead(exchange: Exchange) -> None:
    exchange.ask()
    exchange.close()


def _delay(seconds: float) -> Callable[[Exchange], None]:
    def do(exchange: Exchange) -> None:
        exchange.rest(seconds)
        exchange.reply(exchange.ask().encode())

    return do


def _answer_late(seconds: float) -> Callable[[Exchange], None]:
    def do(exchange: Exchange) -> None:
        answer = exchange.ask().encode()
        exchange.rest(seconds)
        exchange.reply(answer)

    return do


def _swallow(exchange: Exchange) -> None:
    exchange.rest()


def _swallow_answer(exchange: Exchange) -> None:
    exchange.ask()
    exchange.rest()


def _flipped(body: bytes) -> bytes:
    # A digit becomes another digit, a bracket no bracket: JSON may stay JSON, or not.
    spot = len(body) // 2
    return body[:spot] + bytes([body[spot] ^ 1]) + body[spot + 1 :] if body else body


def _corrupt_request(exchange: Exchange) -> None:
    exchange.request.body = _flipped(exchange.request.body)
    exchange.reply(exchange.ask().encode())


def _corrupt_answer(exchange: Exchange) -> None:
    answer = exchange.ask()
    answer.body = _flipped(answer.body)
    exchange.reply(answer.encode())


def _break_off(exchange: Exchange) -> None:
    answer = exchange.ask()
    raw = answer.encode()
    exchange.reply(raw[: len(raw) - (len(answer.body) + 1) // 2])
    exchange.close()


def _shorten(exchange: Exchange) -> None:
    answer = exchange.ask()
    answer.body = answer.body[: len(answer.body) // 2]
    exchange.reply(answer.encode())


def _answer_twice(exchange: Exchange) -> None:
    exchange.reply(exchange.ask().encode() * 2)


def _ask_twice(exchange: Exchange) -> None:
    exchange.ask()
    exchange.reply(exchange.ask().encode())


def _trickle(exchange: Exchange) -> None:
    raw = exchange.ask().encode()
    step = len(raw) // 16 + 1
    for start in range(0, len(raw), step):
        exchange.reply(raw[start : start + step])
        exchange.rest(0.03)


def _say(
    status: str, *headers: tuple[str, str], body: bytes = b"", kind: str = "text/html"
) -> Callable[[Exchange], None]:
    def do(exchange: Exchange) -> None:
        exchange.reply(response(status, body, kind, *headers))

    return do


_PAGE = b"<!DOCTYPE html><html><body><h1>Please sign in to use this network</h1></body></html>"

RESETS = (
    Fault("reset before the request arrived", _cut_in_request(0)),
    Fault("reset in the head of the request", _cut_in_request(40)),
    Fault("reset in the body of the request", _cut_in_request(600)),
    Fault("answer lost by a reset", _lose_answer),
    Fault("answer lost by a close", _close_instead),
    Fault("reset in the head of the answer", _cut_in_answer(20)),
    Fault("reset in the body of the answer", _cut_in_answer(300)),
)
SLOW = (
    Fault("request delayed", _delay(0.5)),
    Fault("answer delayed", _answer_late(0.5)),
    Fault("answer trickles", _trickle),
)
SILENT = (
    Fault("request swallowed", _swallow),
    Fault("answer swallowed", _swallow_answer),
)
WRONG = (
    Fault("request corrupted", _corrupt_request),
    Fault("answer corrupted", _corrupt_answer),
    Fault("answer broken off", _break_off),
    Fault("answer shortened", _shorten),
    Fault("answer given twice", _answer_twice),
    Fault("request made twice", _ask_twice),
)
STRANGE = (
    Fault("502", _say("502 Bad Gateway", body=_PAGE)),
    Fault("503", _say("503 Service Unavailable", body=_PAGE)),
    Fault("503 with Retry-After", _say("503 Service Unavailable", ("Retry-After", "1"), body=_PAGE)),
    Fault("HTML instead of JSON", _say("200 OK", body=_PAGE)),
    Fault("200 with an empty body", _say("200 OK", kind="application/json")),
)
FAULTS = RESETS + SLOW + SILENT + WRONG + STRANGE


def named(name: str) -> Fault:
    """One of ``FAULTS``."""
    return next(fault for fault in FAULTS if fault.name == name)
