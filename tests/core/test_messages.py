"""The messages: exactly as documented in, exactly as documented out, and nothing else gets through."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.codec import Codec, Compression
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.messages_v1 import (
    LookupResponse,
    PushCreated,
    PushCreation,
    TransferRequest,
    parse_resources,
)
from orthanc_transfers.core.messages_v2 import Capabilities, ChunksRequest, PushCreation2, PushStatus
from orthanc_transfers.core.model import Chunk, Instance, Level, Manifest, PushState, Resource
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.core.safe_json import parse_json

A = "0946fcb6-cf12ab43-bad958c1-bf057ad5-0fc6f54c"
B = "6e2c0ec2-5d99c8ca-c1c21cee-79a09605-68391d12"
MD5_A = "0cc175b9c0f1b6a831c399e269772661"
MD5_B = "92eb5ffee6ae2fec3ad71c777531578f"
UUID = "de305d54-75b4-431b-adb2-eb6b9e546014"
TOKEN = "0123456789abcdef0123456789abcdef"

INSTANCES = (Instance(A, 525016, MD5_A), Instance(B, 3_000_000_000, MD5_B))
INSTANCES_JSON = [
    {"ID": A, "Size": "525016", "MD5": MD5_A},
    {"ID": B, "Size": "3000000000", "MD5": MD5_B},
]

GOLDEN: dict[str, tuple[Any, Any]] = {
    "send": (
        {
            "Resources": [{"Level": "Study", "ID": A}, {"Level": "images", "ID": B, "Type": "extra"}],
            "Peer": "hospital",
            "Compression": "gzip",
            "Priority": -3,
            "SenderTransferID": UUID,
        },
        TransferRequest(
            resources=(Resource(Level.STUDY, A), Resource(Level.INSTANCE, B)),
            resources_json=[{"Level": "Study", "ID": A}, {"Level": "images", "ID": B, "Type": "extra"}],
            peer="hospital",
            compression=Compression.GZIP,
            priority=-3,
            sender_transfer_id=UUID,
        ),
    ),
    "pull": (
        {
            "Resources": [],
            "Peer": "hospital",
            "Compression": "none",
            "Priority": 0,
            "Originator": UUID,
        },
        TransferRequest(
            resources=(),
            resources_json=[],
            peer="hospital",
            compression=Compression.NONE,
            originator=UUID,
        ),
    ),
    "lookup": (
        {
            "Instances": INSTANCES_JSON,
            "Originator": UUID,
            "CountInstances": 2,
            "TotalSize": "3000525016",
            "TotalSizeMB": 2862,
        },
        LookupResponse(INSTANCES, UUID),
    ),
    "push": (
        {
            "Compression": "gzip",
            "Instances": INSTANCES_JSON,
            "Buckets": [
                [{"ID": B, "Offset": "2147483648", "Size": "852516352"}],
                [{"ID": A, "Offset": "0", "Size": "525016"}, {"ID": B, "Offset": "0", "Size": "7"}],
            ],
        },
        PushCreation(
            Compression.GZIP,
            Manifest(INSTANCES),
            ((Chunk(B, 2147483648, 852516352),), (Chunk(A, 0, 525016), Chunk(B, 0, 7))),
        ),
    ),
    "pushed": (
        {"ID": UUID, "Path": f"/transfers/push/{UUID}"},
        PushCreated(UUID, f"/transfers/push/{UUID}"),
    ),
    "capabilities": (
        {
            "Protocols": [1, 2],
            "Version": "1.8.0",
            "Originator": UUID,
            "Codecs": ["none", "gzip", "zstd", "split16+zstd", "delta16+zstd"],
            "MaxBodySize": 67108864,
            "Growing": True,
        },
        Capabilities((1, 2), "1.8.0", UUID, tuple(Codec), 67108864, growing=True),
    ),
    "push2, the beginning": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "More": 9872},
        PushCreation2(TOKEN, Manifest(INSTANCES), 9872),
    ),
    "push2": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON},
        PushCreation2(TOKEN, Manifest(INSTANCES)),
    ),
    "receiving": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "receiving",
            "Missing": [[0, 10], [3000000000, 3000525016]],
            "Imported": 0,
            "Total": 2,
            "AlreadyStored": 1,
            "AlreadyStoredSize": "525006",
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.RECEIVING,
            missing=(Range(0, 10), Range(3000000000, 3000525016)),
            total=2,
            already_stored=1,
            already_stored_size=525006,
        ),
    ),
    "committed": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "committed",
            "Missing": [],
            "Imported": 2,
            "Total": 2,
            "AlreadyStored": 0,
            "AlreadyStoredSize": "0",
            "Report": {"Stored": 1, "AlreadyStored": 1, "FilteredOut": 0},
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.COMMITTED,
            imported=2,
            total=2,
            report={"Stored": 1, "AlreadyStored": 1, "FilteredOut": 0},
        ),
    ),
    "failed": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "failed",
            "Missing": [],
            "Imported": 0,
            "Total": 2,
            "AlreadyStored": 0,
            "AlreadyStoredSize": "0",
            "Error": "instance 1 is not a DICOM file",
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.FAILED,
            total=2,
            error="instance 1 is not a DICOM file",
        ),
    ),
    "chunks": (
        {
            "Chunks": [[A, 0, 525016], [B, 0, 8]],
            "Codecs": ["none", "zstd"],
            "Compression": "auto",
            "Level": 1,
        },
        ChunksRequest((Chunk(A, 0, 525016), Chunk(B, 0, 8)), (Codec.NONE, Codec.ZSTD), Compression.AUTO),
    ),
}

# What may be left out.
OPTIONAL = {
    "Compression", "Priority", "SenderTransferID", "Originator", "CountInstances", "TotalSize", "TotalSizeMB",
    "Path", "Imported", "Total", "AlreadyStored", "AlreadyStoredSize", "Error", "Report", "Type", "Level",
    "More", "Growing",
}  # fmt: skip
# … but not here.
REQUIRED = {
    ("lookup", "Originator"), ("push", "Compression"), ("pushed", "Path"), ("capabilities", "Originator"),
}  # fmt: skip

each_message = pytest.mark.parametrize("name", GOLDEN)


def parse(name: str, value: Any) -> Any:
    return type(GOLDEN[name][1]).parse(value)


def refused(name: str, value: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(name, value)
    assert caught.value.status == 400
    return str(caught.value)


def changed(name: str, **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOLDEN[name][0]), **values}


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
    if key == "Growing" and wrong is True:
        return
    assert f'"{key}"' in refused(name, changed(name, **{key: wrong}))


# --- sizes are decimal strings


def with_size(name: str, size: Any) -> dict[str, Any]:
    return changed(name, Instances=[{"ID": A, "Size": size, "MD5": MD5_A}])


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


@pytest.mark.parametrize("key", ["Offset", "Size"])
@pytest.mark.parametrize("wrong", [0, "-1", "", "x", None])
def test_a_chunk_of_version_1_has_decimal_strings_too(key: str, wrong: Any) -> None:
    chunk = {"ID": A, "Offset": "0", "Size": "1", key: wrong}
    assert f'"{key}"' in refused("push", changed("push", Buckets=[[chunk]]))


@pytest.mark.parametrize("wrong", ["0", -1, 2**63, 1.0, True, None])
def test_numbers_of_version_2_are_integers(wrong: Any) -> None:
    assert '"Chunks"' in refused("chunks", changed("chunks", Chunks=[[A, wrong, 1]]))
    assert '"Chunks"' in refused("chunks", changed("chunks", Chunks=[[A, 0, wrong]]))
    assert '"Missing"' in refused("receiving", changed("receiving", Missing=[[0, wrong]]))
    assert '"MaxBodySize"' in refused("capabilities", changed("capabilities", MaxBodySize=wrong))


@pytest.mark.parametrize("wrong", [[], [0], [0, 1, 2], [5, 4], "01", {}, None])
def test_a_missing_range_has_a_start_and_a_stop(wrong: Any) -> None:
    assert '"Missing"' in refused("receiving", changed("receiving", Missing=[wrong]))


@pytest.mark.parametrize("wrong", [[], [A, 0], [A, 0, 1, 2], [1, 0, 1], "abc", {}, None])
def test_a_chunk_of_version_2_has_three_parts(wrong: Any) -> None:
    assert '"Chunks"' in refused("chunks", changed("chunks", Chunks=[wrong]))


# --- resources


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Patient", Level.PATIENT),
        ("PATIENTS", Level.PATIENT),
        ("study", Level.STUDY),
        ("Studies", Level.STUDY),
        ("sErIeS", Level.SERIES),
        ("Instance", Level.INSTANCE),
        ("instances", Level.INSTANCE),
        ("Image", Level.INSTANCE),
        ("IMAGES", Level.INSTANCE),
    ],
)
def test_levels_are_taken_in_all_spellings_of_orthanc(text: str, level: Level) -> None:
    assert parse_resources([{"Level": text, "ID": A}]) == (Resource(level, A),)


def test_levels_may_be_mixed_and_resources_named_twice() -> None:
    twice = [{"Level": "Study", "ID": A}, {"Level": "Series", "ID": B}, {"Level": "Study", "ID": A}]
    assert [resource.level for resource in parse_resources(twice)] == [Level.STUDY, Level.SERIES, Level.STUDY]


@pytest.mark.parametrize("level", ["", "Studys", "seriess", " Study", 1, None, ["Study"]])
def test_an_unknown_level_is_refused(level: Any) -> None:
    with pytest.raises(BadRequest, match='"Level"'):
        parse_resources([{"Level": level, "ID": A}])


@pytest.mark.parametrize(
    "value", [None, {}, "Study", 1, [None], [1], ["a"], [[]], [{}], [{"Level": "Study"}]]
)
def test_resources_are_an_array_of_objects(value: Any) -> None:
    with pytest.raises(BadRequest):
        parse_resources(value)


def test_resources_are_kept_as_they_were_written() -> None:
    written = [{"Type": "x", "ID": A, "Level": "STUDIES", "More": {"deep": [1.5, None, "é"]}}]
    assert parse("send", changed("send", Resources=written)).resources_json == written


@pytest.mark.parametrize("extra", [float("nan"), float("inf"), [[[{"a": float("-inf")}]]]])
def test_resources_that_orthanc_could_not_read_again_are_refused(extra: Any) -> None:
    written = [{"Level": "Study", "ID": A, "More": extra}]
    assert '"Resources"' in refused("send", changed("send", Resources=written))


def test_resources_nested_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    written = [{"Level": "Study", "ID": A, "More": deep}]
    assert '"Resources"' in refused("send", changed("send", Resources=written))


# --- send and pull


def test_without_compression_it_is_chosen_automatically() -> None:
    request = changed("send")
    del request["Compression"]
    assert parse("send", request).compression is Compression.AUTO


@pytest.mark.parametrize("compression", ["auto", "none", "gzip", "zstd"])
def test_every_compression_can_be_asked_for(compression: str) -> None:
    assert parse("send", changed("send", Compression=compression)).compression.value == compression


@pytest.mark.parametrize("compression", ["GZIP", "", "brotli", "split16+zstd"])
def test_an_unknown_compression_is_refused(compression: str) -> None:
    assert '"Compression"' in refused("send", changed("send", Compression=compression))


@pytest.mark.parametrize("priority", [None, 1.0, 0.5, "1", True, [], {}, 2**31, -(2**31) - 1])
def test_a_priority_is_an_integer_of_32_bits(priority: Any) -> None:
    assert '"Priority"' in refused("send", changed("send", Priority=priority))


@pytest.mark.parametrize("priority", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_a_priority_may_be_negative(priority: int) -> None:
    assert parse("send", changed("send", Priority=priority)).priority == priority


@pytest.mark.parametrize("identifier", ["a\r\nX-Evil: 1", "a\0", "é", "a\n"])
def test_an_identifier_that_no_header_can_carry_is_refused(identifier: str) -> None:
    assert '"SenderTransferID"' in refused("send", changed("send", SenderTransferID=identifier))


# --- version 1


@pytest.mark.parametrize("compression", ["auto", "zstd", "GZIP", ""])
def test_a_push_of_version_1_knows_none_and_gzip_only(compression: str) -> None:
    assert '"Compression"' in refused("push", changed("push", Compression=compression))


def test_of_an_instance_named_twice_the_last_counts() -> None:
    twice = [*INSTANCES_JSON, {"ID": A, "Size": "7", "MD5": MD5_B}]
    creation = parse("push", changed("push", Instances=twice))
    assert creation.manifest.instance(A) == Instance(A, 7, MD5_B)
    assert len(creation.manifest) == 2
    assert len(parse("lookup", changed("lookup", Instances=twice)).instances) == 2


def test_a_bucket_may_name_what_is_not_there_until_it_arrives() -> None:
    unknown = [[{"ID": "nobody", "Offset": "99", "Size": "1"}], []]
    creation = parse("push", changed("push", Instances=[], Buckets=unknown))
    assert creation.buckets == ((Chunk("nobody", 99, 1),), ())


def test_an_md5_in_capitals_is_the_same_md5() -> None:
    shouted = [{"ID": A, "Size": "1", "MD5": MD5_A.upper()}]
    assert parse("push", changed("push", Instances=shouted)).manifest.instance(A).md5 == MD5_A


def test_a_lookup_of_nothing_is_an_answer_too() -> None:
    assert LookupResponse((), UUID).to_json() == {
        "Instances": [],
        "Originator": UUID,
        "CountInstances": 0,
        "TotalSize": "0",
        "TotalSizeMB": 0,
    }


@pytest.mark.parametrize(("size", "megabytes"), [(524_287, 0), (524_288, 1), (1_572_863, 1), (1_572_864, 2)])
def test_megabytes_are_rounded_to_the_nearest(size: int, megabytes: int) -> None:
    assert LookupResponse((Instance(A, size, MD5_A),), UUID).to_json()["TotalSizeMB"] == megabytes


# --- version 2


@pytest.mark.parametrize(
    "token", ["", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), TOKEN[:-1] + "\n", "../" * 10 + "aa"]
)
def test_a_token_is_32_digits(token: str) -> None:
    assert '"Token"' in refused("push2", changed("push2", Token=token))


@pytest.mark.parametrize("name", ["capabilities", "chunks"])
def test_codecs_of_the_future_are_left_out(name: str) -> None:
    assert parse(name, changed(name, Codecs=["none", "zstd+magic", "zstd"])).codecs == (
        Codec.NONE,
        Codec.ZSTD,
    )


def test_protocols_of_the_future_are_kept() -> None:
    assert parse("capabilities", changed("capabilities", Protocols=[2, 3])).protocols == (2, 3)


def test_the_answer_to_a_creation_need_not_say_what_is_imported() -> None:
    documented = {
        "ID": UUID,
        "Path": f"/transfers/v2/push/{UUID}",
        "State": "receiving",
        "Missing": [],
        "AlreadyStored": 3,
        "AlreadyStoredSize": "17",
    }
    status = PushStatus.parse(documented)
    assert (status.already_stored, status.already_stored_size, status.imported) == (3, 17, 0)


def test_a_status_need_not_repeat_the_path() -> None:
    documented = {"ID": UUID, "State": "committing", "Missing": [], "Imported": 5, "Total": 9}
    status = PushStatus.parse(documented)
    assert status.path == f"/transfers/v2/push/{UUID}"
    assert (status.imported, status.total) == (5, 9)


@pytest.mark.parametrize("state", ["", "Receiving", "done"])
def test_an_unknown_state_is_refused(state: str) -> None:
    assert '"State"' in refused("receiving", changed("receiving", State=state))


# --- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any]:
    """A golden message with something in it replaced, or taken out."""
    name = draw(st.sampled_from(sorted(GOLDEN)))
    value: Any = copy.deepcopy(GOLDEN[name][0])
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return name, value
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
            place = place[key]
            continue
        if draw(st.booleans()):
            place[key] = draw(JSON)
        else:
            del place[key]
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
