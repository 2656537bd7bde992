"""Messages of version 1, and of the user's API."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.messages_v1 import (
    LookupResponse,
    parse_resources,
)
from orthanc_transfers.core.model import Chunk, Instance, Level, Resource
from tests.core.golden import INSTANCES_JSON, MD5_A, MD5_B, UUID, A, B, changed, parse, refused

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


def test_a_lookup_of_nothing_is_a_response_too() -> None:
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


@pytest.mark.parametrize("key", ["Offset", "Size"])
@pytest.mark.parametrize("wrong", [0, "-1", "", "x", None])
def test_a_chunk_of_version_1_has_decimal_strings_too(key: str, wrong: Any) -> None:
    chunk = {"ID": A, "Offset": "0", "Size": "1", key: wrong}
    assert f'"{key}"' in refused("push", changed("push", Buckets=[[chunk]]))
