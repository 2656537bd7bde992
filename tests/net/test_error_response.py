"""Words for a response that is no 200: what it says, who says it, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orthanc_transfers.core.errors import PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import PeerRequest
from tests.contract.fake_transport import Reply
from tests.net.peers import Connect

NGINX = b"<html>\r\n<head><title>405 Not Allowed</title></head>\r\n</html>"


def words(serve: Any, connect: Connect, reply: Reply, method: str = "PUT") -> str:
    """Of the error that a request to ``/transfers/x`` ends with."""
    server = serve(lambda asked: reply)
    with pytest.raises(PeerStatus) as raised:
        connect(server.url).send(PeerRequest(method, "/transfers/x"))
    assert raised.value.peer_status == reply.status
    return str(raised.value)


@pytest.mark.parametrize("status", [400, 408])
def test_a_request_that_did_not_arrive_whole_got_no_response(
    serve: Any, connect: Connect, status: int
) -> None:
    transport = connect(serve(lambda asked: Reply(b"", status)).url)
    with pytest.raises(PeerUnreachable, match=f"did not receive all of POST /transfers/x in time .{status}."):
        transport.send(PeerRequest("POST", "/transfers/x", (b"part",)))
    # There is nothing of it that could be missing.
    with pytest.raises(PeerStatus, match=f"with {status}"):
        transport.send(PeerRequest("GET", "/transfers/x"))


def test_a_request_that_orthanc_calls_bad_is(serve: Any, connect: Connect) -> None:
    body = json.dumps({"HttpStatus": 400, "Message": "Bad request", "OrthancStatus": 8}).encode()
    transport = connect(serve(lambda asked: Reply(body, 400)).url)
    with pytest.raises(PeerStatus, match="with 400: Bad request"):
        transport.send(PeerRequest("POST", "/transfers/x", (b"whole",)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_where_to(serve: Any, connect: Connect, status: int) -> None:
    reply = Reply(b"<html>", status, {"Location": "https://me:secret@far.org/transfers/x"})
    assert words(serve, connect, reply) == (
        f"peer 'far' redirects PUT /transfers/x to 'https://far.org/transfers/x' ({status}), which is not followed:"
        " correct the Url of this peer"
    )


def test_an_endless_redirect_is_cut(serve: Any, connect: Connect) -> None:
    said = words(serve, connect, Reply(b"", 301, {"Location": "x" * 5000}))
    assert "x" * 200 + "…'" in said
    assert len(said) < 400


def test_a_redirect_to_nowhere_is_an_error_like_others(serve: Any, connect: Connect) -> None:
    assert "with 301: Moved Permanently" in words(serve, connect, Reply(b"", 301))


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("body", [NGINX, b"Forbidden", b"{}", b"[1]"])
def test_what_something_in_front_of_orthanc_forbids_is_said_to_be_its_doing(
    serve: Any, connect: Connect, status: int, body: bytes
) -> None:
    said = words(serve, connect, Reply(body, status, {"Server": "nginx/1.22.1"}))
    assert f"peer 'far' answered PUT /transfers/x with {status}: " in said
    # The server of the test says who it is as well; the last one counts.
    assert (
        "; that is not Orthanc, but 'nginx/1.22.1' in front of it: allow PUT below /transfers/ there" in said
    )
    assert ("check the user and the password of this peer" in said) == (status == 403)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_without_a_word_may_be_about_the_login(serve: Any, connect: Connect, status: int) -> None:
    said = words(serve, connect, Reply(b"", status, {"Server": "nginx/1.22.1"}))
    assert said.endswith("; check the user and the password of this peer")
    assert "in front" not in said


def test_orthancs_own_reason_is_all_there_is_to_say(serve: Any, connect: Connect) -> None:
    body = {
        "HttpStatus": 403,
        "Message": "Forbidden",
        "Details": "this Orthanc is read-only",
        "OrthancStatus": 1,
    }
    assert words(serve, connect, Reply(json.dumps(body).encode(), 403)) == (
        "peer 'far' answered PUT /transfers/x with 403: Forbidden: this Orthanc is read-only"
    )


def test_a_method_that_orthanc_does_not_know_is_not_called_forbidden(serve: Any, connect: Connect) -> None:
    said = words(serve, connect, Reply(b"", 405, {"Allow": "GET", "Server": "nginx/1.22.1"}))
    assert said.endswith("with 405: Method Not Allowed")
