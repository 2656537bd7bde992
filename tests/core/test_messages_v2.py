"""Messages of version 2."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.messages_v2 import PushStatus
from tests.core.golden import TOKEN, UUID, A, changed, parse, refused


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


def test_the_response_to_a_creation_need_not_say_what_is_imported() -> None:
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
