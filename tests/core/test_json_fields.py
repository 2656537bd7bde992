"""What holds for all messages: read and written exactly as documented, and nothing else passes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import name_field
from orthanc_transfers.core.safe_json import parse_json
from tests.core.any_json import any_json
from tests.core.golden import GOLDEN, changed, parse, refused, with_size

# What may be left out.
OPTIONAL = {
    "Compression", "Priority", "SenderTransferID", "Originator", "CountInstances", "TotalSize", "TotalSizeMB",
    "Path", "Imported", "Total", "AlreadyStored", "AlreadyStoredSize", "Error", "Report", "Type", "Level",
    "More", "Growing", "Parts", "Whole", "Before", "MaxConnections", "Patients", "PatientsWanted", "Headers",
    "Measurable", "WholePulls", "Transcodes", "SenderName", "Transcode",
    "Extras", "WithLabels", "WithMetadata", "WithAttachments", "Overwrite",
}  # fmt: skip
FLAGS = {
    "Growing", "Parts", "Whole", "PatientsWanted", "Measurable", "WholePulls", "Transcodes", "AllowLossy",
}  # fmt: skip
# What must be there although it may be left out elsewhere.
REQUIRED = {
    ("lookup", "Originator"), ("push", "Compression"), ("pushed", "Path"), ("capabilities", "Originator"),
    ("transcoded?", "Transcode"), ("lookup, with patients", "Originator"), ("capabilities, limited", "Originator"),
}  # fmt: skip

each_message = pytest.mark.parametrize("name", GOLDEN)


@each_message
def test_a_message_is_understood(name: str) -> None:
    value, message = GOLDEN[name]
    assert parse(name, value) == message


@each_message
def test_a_message_is_written_exactly_so(name: str) -> None:
    value, message = GOLDEN[name]
    assert json.dumps(message.to_json()) == json.dumps(value)


@each_message
def test_keys_that_are_not_known_are_accepted(name: str) -> None:
    assert parse(name, changed(name, Synchronous=False, Something=[{}])) == GOLDEN[name][1]


@each_message
@pytest.mark.parametrize("value", [None, 1, 1.5, True, "text", [], [1], [{}]])
def test_what_is_no_object_is_no_message(name: str, value: Any) -> None:
    assert "must be a JSON object" in refused(name, value)


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, (value, _) in GOLDEN.items() for key in value]
)
def test_a_missing_key_is_named_if_it_is_required(name: str, key: str) -> None:
    value = changed(name)
    del value[key]
    if key in OPTIONAL and (name, key) not in REQUIRED:
        parse(name, value)
    else:
        assert f'"{key}"' in refused(name, value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name, (value, _) in GOLDEN.items()
        for key in value
        if key not in ("CountInstances", "TotalSize", "TotalSizeMB")
    ],
)
@pytest.mark.parametrize("wrong", [None, 1.5, True, {"a": None}, -1, 2**64, float("nan"), "\udc80", [None]])
def test_a_value_of_a_wrong_type_is_refused_by_the_name_of_its_key(name: str, key: str, wrong: Any) -> None:
    if key == "Priority" and wrong == -1:
        assert parse(name, changed(name, Priority=-1)).priority == -1
        return
    if (
        key
        in (
            "Growing",
            "Parts",
            "Whole",
            "PatientsWanted",
            "Measurable",
            "WholePulls",
            "Transcodes",
            "AllowLossy",
        )
        and wrong is True
    ):
        return
    assert f'"{key}"' in refused(name, changed(name, **{key: wrong}))


# --- sizes are decimal strings


@pytest.mark.parametrize("name", ["lookup", "push", "push2"])
@pytest.mark.parametrize(
    "size",
    [
        525016,
        0,
        None,
        True,
        1.0,
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "0x10",
        "1.0",
        "1e3",
        "١",
        "9" * 19,
        "1" * 99,
    ],
)
def test_a_size_that_is_not_a_string_of_digits_is_refused(name: str, size: Any) -> None:
    assert '"Size"' in refused(name, with_size(name, size))


@pytest.mark.parametrize("name", ["lookup", "push", "push2"])
def test_the_largest_size_is_understood(name: str) -> None:
    parse(name, with_size(name, str(2**63 - 1)))


# --- anything at all

JSON = any_json()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any]:
    """A golden message with something in it replaced, or taken out."""
    name = draw(st.sampled_from(sorted(GOLDEN)))
    value: Any = copy.deepcopy(GOLDEN[name][0])
    inside: Any = value
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            return name, value
        key = draw(st.sampled_from(keys))
        if isinstance(inside[key], dict | list) and draw(st.integers(0, 3)):
            inside = inside[key]
            continue
        if draw(st.booleans()):
            inside[key] = draw(JSON)
        else:
            del inside[key]
        return name, value


def understood_or_refused(name: str, value: Any) -> None:
    try:
        message = parse(name, value)
    except BadRequest:
        return
    written = json.dumps(message.to_json(), allow_nan=False)
    assert parse(name, parse_json(written.encode())) == message


@given(damaged())
def test_a_damaged_message_is_refused_or_means_something(case: tuple[str, Any]) -> None:
    understood_or_refused(*case)


@given(st.sampled_from(sorted(GOLDEN)), JSON)
def test_any_json_is_refused_or_means_something(name: str, value: Any) -> None:
    understood_or_refused(name, value)


@given(JSON)
def test_any_json_as_resources_is_refused_or_means_something(value: Any) -> None:
    understood_or_refused("send", {"Resources": value, "Peer": "hospital"})


@pytest.mark.parametrize(
    "value", [10**5000, [[[]]] * 100_000, "x" * 1_000_000], ids=["number", "array", "text"]
)
def test_a_complaint_does_not_repeat_what_is_huge(value: Any) -> None:
    assert len(refused("send", changed("send", Peer=value, Resources=value))) < 300
    assert len(refused("receiving", changed("receiving", Missing=[value]))) < 300
    assert len(refused("push", with_size("push", value))) < 300


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Köln <b>", "Köln <b>"),
        ("x" * 10_000, "x" * 64),
        ("two\nlines\x00\u202e", "twolines"),
        (" ", None),
    ],
)
def test_a_name_is_one_short_line(said: str, shown: str | None) -> None:
    assert name_field({"SenderName": said}, "SenderName") == shown
