"""What each error answers, and whether trying again may help."""

from __future__ import annotations

import inspect

import pytest

from orthanc_transfers.core import errors
from orthanc_transfers.core.errors import Busy, HostError, PeerError, PeerStatus, TransferError

CLASSES = [
    found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, TransferError)
]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("BadRequest", 400),
        ("BadFile", 400),
        ("UnknownResource", 404),
        ("UnknownPeer", 404),
        ("UnknownTransaction", 404),
        ("ReadOnly", 403),
        ("Conflict", 409),
        ("TooLarge", 413),
        ("WrongSize", 500),
        ("Corrupted", 500),
        ("ImportRefused", 500),
        ("PeerUnreachable", 500),
        ("Busy", 503),
        ("NoSpace", 507),
    ],
)
def test_an_error_knows_its_status(name: str, status: int) -> None:
    assert getattr(errors, name).status == status


@pytest.mark.parametrize(
    ("name", "code"), [("WrongSize", 9), ("Corrupted", 20), ("NotFound", 17), ("BadFile", 15)]
)
def test_an_error_knows_the_code_that_orthanc_has_for_it(name: str, code: int) -> None:
    assert getattr(errors, name).code == code


def test_only_what_may_pass_is_tried_again() -> None:
    retryable = {found.__name__ for found in CLASSES if found.retryable is True}
    assert retryable == {"Corrupted", "Busy", "PeerUnreachable", "PeerInvalidResponse"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 201, 302])
def test_a_status_that_will_not_change_is_not_tried_again(status: int) -> None:
    assert not PeerStatus("no", "hospital", status).retryable


@pytest.mark.parametrize(
    ("status", "outage"), [(502, True), (503, True), (504, True), (500, False), (404, False)]
)
def test_a_server_that_is_unreachable_behind_its_proxy_is_waited_for(status: int, outage: bool) -> None:
    assert PeerStatus("no", "hospital", status).outage is outage


def test_errors_carry_what_one_needs_to_act() -> None:
    assert Busy("full", retry_after=9).retry_after == 9
    assert HostError("no", 2038).code == 2038
    assert PeerError("no", "hospital").peer == "hospital"
    refused = PeerStatus("no", "hospital", 503, headers={"a": "b"}, body=b"said", retry_after=3)
    assert (refused.peer, refused.peer_status, refused.retry_after) == ("hospital", 503, 3)
    assert (refused.headers, refused.body) == ({"a": "b"}, b"said")


def test_an_error_reads_as_its_sentence() -> None:
    assert str(PeerStatus("the peer says no", "hospital", 500)) == "the peer says no"
