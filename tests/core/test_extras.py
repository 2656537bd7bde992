"""Messages on labels, metadata and attachments: parsed strictly, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.extras import (
    MAX_ATTACHMENT,
    MAX_VALUE,
    Accepted,
    Extra,
    ExtrasMessage,
    ExtrasWanted,
    Kind,
)
from orthanc_transfers.core.model import Level, Resource

ID = "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000001"
WHERE = {"Level": "Study", "ID": ID}
LABEL = {"Kind": "Labels", **WHERE, "Name": "urgent_1-a"}
METADATA = {"Kind": "Metadata", **WHERE, "Name": "report", "Number": 1050, "Value": "ä\n"}
ATTACHMENT = {"Kind": "Attachments", **WHERE, "Number": 65535, "Size": "7", "MD5": "0" * 32}
ORIGIN = {"Kind": "Origin", "Level": "Series", "ID": ID, "Value": "{}"}
ITEMS = [LABEL, METADATA, ATTACHMENT, ORIGIN]


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_is_the_same_after_a_round_trip(item: dict[str, Any]) -> None:
    assert Extra.parse(item).to_json() == item


def test_a_message_is_the_same_after_a_round_trip() -> None:
    value = {"Items": ITEMS, "From": "A", "Overwrite": True, "Before": 3, "More": True}
    assert ExtrasMessage.parse(value).to_json() == value


@pytest.mark.parametrize(
    ("item", "changes", "status"),
    [
        (LABEL, {"Name": ""}, 400),
        (LABEL, {"Name": "a b"}, 400),
        (LABEL, {"Name": "../x"}, 400),
        (LABEL, {"Name": "x" * 65}, 400),
        (LABEL, {"ID": "../x"}, 400),
        (LABEL, {"Level": "Frame"}, 400),
        (LABEL, {"Kind": "Tags"}, 400),
        (METADATA, {"Number": 1023}, 400),
        (METADATA, {"Number": 65536}, 400),
        (METADATA, {"Number": "1050"}, 400),
        (METADATA, {"Name": "a/b"}, 400),
        (METADATA, {"Value": 3}, 400),
        (METADATA, {"Value": "\udc80"}, 400),
        (METADATA, {"Value": "x" * (MAX_VALUE + 1)}, 413),
        (ATTACHMENT, {"Size": 7}, 400),
        (ATTACHMENT, {"Size": "-7"}, 400),
        (ATTACHMENT, {"Size": str(MAX_ATTACHMENT + 1)}, 413),
        (ATTACHMENT, {"MD5": "0" * 31}, 400),
        (ORIGIN, {"Level": "Study"}, 400),
        (ORIGIN, {"Value": "x" * 300}, 413),
    ],
)
def test_a_bad_item_is_refused(item: dict[str, Any], changes: dict[str, Any], status: int) -> None:
    with pytest.raises(TransferError) as refusal:
        ExtrasMessage.parse({"Items": [{**item, **changes}]})
    assert refusal.value.status == status


@pytest.mark.parametrize("item", ITEMS)
def test_each_key_is_needed_but_a_name_of_what_has_a_number(item: dict[str, Any]) -> None:
    for key in item:
        less = {other: value for other, value in item.items() if other != key}
        if key == "Name" and "Number" in item:
            Extra.parse(less)
            continue
        with pytest.raises(TransferError, match=key):
            Extra.parse(less)


def test_a_receiver_takes_kinds_and_single_ones() -> None:
    accepted = Accepted.of(["Labels", "report", "65535"])
    assert [accepted.takes(Extra.parse(item)) for item in ITEMS] == [True, True, True, False]
    assert not accepted.takes(Extra(Resource(Level.STUDY, ID), Kind.METADATA, "other", 1051))
    assert Accepted.of(accepted.names()) == accepted


def test_labels_and_metadata_travel_unless_the_request_says_no_attachments_if_it_says_yes() -> None:
    everything = Accepted.of([kind.value for kind in Kind])
    usual = ExtrasWanted.parse({})
    assert usual.kinds(everything) == {Kind.LABEL, Kind.METADATA, Kind.ORIGIN}
    assert usual.kinds(Accepted()) == frozenset()
    chosen = ExtrasWanted.parse({"WithLabels": False, "WithAttachments": True, "Overwrite": True})
    assert chosen.kinds(everything) == {Kind.METADATA, Kind.ATTACHMENT, Kind.ORIGIN}
    assert ExtrasWanted.parse(chosen.to_json()) == chosen
