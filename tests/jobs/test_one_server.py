"""A load balancer that sends each request to the next Orthanc: the job names that, not what the others lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import PeerMismatch, PeerUnreachable
from orthanc_transfers.interfaces import PeerResponse, StepOutcome
from orthanc_transfers.jobs.one_server import check_one_server
from tests.jobs.memory_server import Server
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, finish, make_pair


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PeerPair]:
    """A study of ten files here; ``there`` is one of two servers, each of which gets every other request."""
    made = make_pair(tmp_path, version=request.param)
    other = Server(tmp_path, "other", version=request.param)
    made.here.store.put(*(file(number) for number in range(10)))
    numbers = count()
    serve = [made.there.serve, other.serve]

    def in_turn(method: str, target: str, body: bytes, headers: dict[str, str]) -> PeerResponse:
        return serve[next(numbers) % 2](method, target, body, headers)

    made.there.serve = in_turn  # type: ignore[method-assign,assignment]
    yield made
    other.close()
    made.close()


def test_a_push_says_that_it_reaches_different_servers(pair: PeerPair) -> None:
    job = pair.push()
    assert finish(job) is StepOutcome.FAILURE
    assert job.failure() == (
        "requests to peer there reach different Orthancs, and one does not know what another was told: let its load"
        " balancer send all that have the same header sender-transfer-id to the same Orthanc (sticky sessions)"
    )


class Peer:
    """Responds with these originators in turn, or raises."""

    name = "far"

    def __init__(self, *responses: str | Exception) -> None:
        self._responses = iter(responses)

    def originator(self) -> str:
        response = next(self._responses)
        if isinstance(response, Exception):
            raise response
        return response


def check(*responses: str | Exception) -> Callable[[], None]:
    return lambda: check_one_server(Peer(*responses))  # type: ignore[arg-type]


@pytest.mark.parametrize("responses", ["aba", "abca", "aaab" + "a", "abcdea", "aabbba"])
def test_who_comes_back_was_not_restarted(responses: str) -> None:
    with pytest.raises(PeerMismatch):
        check(*responses)()


@pytest.mark.parametrize("responses", ["aaaaaaaaaa", "aaaabbbbbb", "abbbbbbbbb", "abbbbbcccc"])
def test_a_peer_that_was_restarted_is_one_server(responses: str) -> None:
    check(*responses)()


def test_what_cannot_be_asked_says_nothing() -> None:
    check("a", "b", PeerUnreachable("connection refused", "far"))()
