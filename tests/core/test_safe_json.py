"""JSON of strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import BadFile
from orthanc_transfers.core.safe_json import MAX_NESTING, parse_json
from tests.core.any_json import any_json


@given(any_json(numbers=st.integers() | st.floats(allow_nan=False)))
def test_json_is_understood(value: Any) -> None:
    text = json.dumps(value).encode()
    assert parse_json(text) == value
    assert parse_json(memoryview(text)) == value


@pytest.mark.parametrize(
    "text", [b"", b" ", b"{", b"[1,]", b"{'a': 1}", b"\xff", b"nothing", b"1 2", b"9" * 5000, b"\0"]
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadFile, match="JSON"):
        parse_json(text)


@given(st.binary())
def test_garbage_is_refused_or_means_something(text: bytes) -> None:
    try:
        value = parse_json(text)
    except BadFile:
        return
    json.dumps(value)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_what_is_nested_deep_is_refused_before_the_parser_sees_it(bracket: bytes) -> None:
    closing = b"]" if bracket == b"[" else b"}"
    with pytest.raises(BadFile, match="nested"):
        parse_json(bracket * 1_000_000 + b"1" + closing * 1_000_000)


def test_what_is_nested_as_deep_as_allowed_is_understood() -> None:
    assert parse_json(b"[" * MAX_NESTING + b"]" * MAX_NESTING)


def test_brackets_within_text_do_not_count() -> None:
    text = json.dumps(["]]]]", "{[({", "a" * 1000]).encode()
    assert parse_json(text) == ["]]]]", "{[({", "a" * 1000]
