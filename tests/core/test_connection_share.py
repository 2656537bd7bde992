"""Headers about the connections of a sender."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.connection_share import LEASE_HEADER, WAIT_HEADER, Sender, Share


@pytest.mark.parametrize("share", [Share(4, 4.0, 9), Share(0, 1.5, 0), Share(0, 4.0, 0, 0.3)])
def test_a_share_is_read_as_it_was_written(share: Share) -> None:
    assert Share.parse(share.headers()) == share


@pytest.mark.parametrize("lease", ["", "4", "x 1", "4 -1", "1e9 1", "4  1", "1234567 1"])
def test_what_is_no_share_is_none(lease: str) -> None:
    assert Share.parse({**Share(4, 4.0, 9).headers(), LEASE_HEADER: lease}) is None


def test_without_its_headers_there_is_no_share() -> None:
    assert Share.parse({}) is None
    assert Share.parse({"transfers-connections": "4"}) is None
    strange = Share.parse({**Share(4, 4.0, 9).headers(), WAIT_HEADER: "for ever"})
    assert strange == Share(4, 4.0, 9)


def test_a_sender_is_read_as_it_was_written() -> None:
    sender = Sender("0123abcd", 12)
    assert Sender.parse(str(sender)) == sender


@pytest.mark.parametrize("text", [None, "", "a", "a b", "a b 1", "a -1", "a 1\n", f"{'a' * 65} 1", "../x 1"])
def test_what_is_no_sender_is_none(text: str | None) -> None:
    assert Sender.parse(text) is None


def test_what_a_sender_claims_is_bounded() -> None:
    assert Sender.parse("a 999999") == Sender("a", 1000)
    assert Sender.parse("a 0") == Sender("a", 1)
