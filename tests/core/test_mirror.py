"""What a mirror must send, and what it may delete."""

from __future__ import annotations

from orthanc_transfers.core.mirror import Record, after_sending, compare
from orthanc_transfers.core.model import Instance, Manifest


def manifest(*names: str, md5: str = "0") -> Manifest:
    return Manifest(Instance(name, 10, md5 * 32) for name in sorted(names))


NOTHING = manifest()
AB = manifest("a", "b")
SENT = Record(AB.fingerprint(), ours=True)


def test_equal_studies_need_nothing() -> None:
    found = compare("s", AB, AB, None)
    assert found.equal
    assert (found.instances, found.missing, found.different, found.deleted) == (2, 0, 0, ())


def test_what_is_missing_or_different_is_counted() -> None:
    found = compare("s", manifest("a", "b", "c"), manifest("a", md5="1"), None)
    assert not found.equal
    assert (found.missing, found.missing_size, found.different) == (2, 20, 1)
    assert found.to_json()["MissingSize"] == "20"


def test_only_what_this_server_sent_alone_may_be_deleted() -> None:
    assert compare("s", manifest("a"), AB, SENT).deleted == ("b",)
    assert compare("s", manifest("a"), AB, None).deleted == ()
    assert compare("s", manifest("a"), AB, Record(AB.fingerprint(), ours=False)).deleted == ()
    # Something came from elsewhere since, or was replaced.
    assert compare("s", manifest("a"), manifest("a", "b", "c"), SENT).deleted == ()
    assert compare("s", manifest("a"), manifest("a", "b", md5="1"), SENT).deleted == ()


def test_what_was_there_and_is_gone_was_deleted_there() -> None:
    assert compare("s", AB, NOTHING, SENT).gone
    assert compare("s", AB, NOTHING, Record(AB.fingerprint(), ours=False)).gone
    assert not compare("s", AB, manifest("a"), SENT).gone
    assert not compare("s", manifest("a", "b", "c"), NOTHING, SENT).gone
    assert not compare("s", AB, NOTHING, None).gone


def test_what_the_peer_had_before_is_not_ours() -> None:
    assert after_sending(AB, None, frozenset()).ours
    assert not after_sending(AB, None, frozenset("a")).ours
    grown = manifest("a", "b", "c")
    assert after_sending(grown, SENT, frozenset("ab")) == Record(grown.fingerprint(), ours=True)
    assert not after_sending(grown, SENT, frozenset("abc")).ours
    assert not after_sending(grown, Record(AB.fingerprint(), ours=False), frozenset("ab")).ours
    # Sent again, with nothing new.
    assert after_sending(AB, SENT, frozenset("ab")) == SENT
