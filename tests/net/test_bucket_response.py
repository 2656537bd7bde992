"""Lists of instances that come with their bytes: what is not exactly that is refused before it takes memory."""

from __future__ import annotations

from typing import Any

import pytest
import zstandard

from orthanc_transfers.core.checksum import md5, xxh3
from orthanc_transfers.core.codec import Codec, encode
from orthanc_transfers.core.errors import PeerInvalidResponse
from orthanc_transfers.core.framing import frame_head
from orthanc_transfers.interfaces import PeerResponse
from orthanc_transfers.net.bucket_response import with_list

FILES = [b"one" * 400, b"and another" * 100]
SIZE = sum(map(len, FILES))
ID = "0946fcb6-cf12ab43-bad958c1-bf057ad5-0fc6f54"


def listing(**more: Any) -> dict[str, Any]:
    rows = [
        {"ID": f"{ID}{index}", "Size": str(len(data)), "MD5": md5(data)} for index, data in enumerate(FILES)
    ]
    return {"Instances": rows, "Originator": "x", **more}


def response(body: bytes, codec: str = "none", **headers: str) -> PeerResponse:
    return PeerResponse(body, {"transfers-codec": codec, "transfers-xxh3": xxh3([body]), **headers})


def framed(head: Any, codec: Codec = Codec.NONE, *, compress: bool = False) -> bytes:
    return b"".join([frame_head(head, compress=compress), *map(bytes, encode(FILES, codec))])


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("codec", list(Codec))
def test_the_list_and_the_bytes_are_taken_apart(codec: Codec, compress: bool) -> None:
    body = framed(listing(), codec, compress=compress)
    sent = response(body, codec.value, **{"transfers-encoding-seconds": "0.25"})
    listed, fetched = with_list("far", sent, SIZE)
    assert [one.size for one in listed.instances] == [len(data) for data in FILES]
    assert bytes(fetched.data) == b"".join(FILES)
    assert (fetched.codec, fetched.encoding) == (codec, 0.25)
    assert 0 < fetched.wire <= len(body)


def bomb() -> bytes:
    rows = [{"ID": f"{ID}0", "Size": str(SIZE), "MD5": "0" * 32}]
    return frame_head({"Instances": rows, "Originator": "x"}, compress=False) + zstandard.compress(
        bytes(64 * 1024 * 1024)
    )


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(response(framed(listing())[:-1]), id="a byte less"),
        pytest.param(response(framed(listing()) + b"x"), id="a byte more"),
        pytest.param(response(framed(listing(More=3))), id="not all"),
        pytest.param(response(framed({"Instances": []})), id="no originator"),
        pytest.param(response(framed(listing(Instances=[]))), id="bytes of nothing"),
        pytest.param(response(b""), id="empty"),
        pytest.param(response(b"\xff\xff\xff\xff{}"), id="a head beyond the end"),
        pytest.param(response(framed(listing()), "of tomorrow"), id="another codec"),
        pytest.param(response(framed(listing()), "zstd"), id="not of its codec"),
        pytest.param(response(bomb(), "zstd"), id="a bomb"),
        pytest.param(
            PeerResponse(framed(listing()), {"transfers-codec": "none", "transfers-xxh3": "0" * 16}),
            id="damaged",
        ),
        pytest.param(PeerResponse(framed(listing()), {"transfers-codec": "none"}), id="no checksum"),
        pytest.param(response(b"\0\x98\x96\x80" + b"[" * 10_000_000), id="deep"),
    ],
)
def test_anything_else_is_an_invalid_response(sent: PeerResponse) -> None:
    with pytest.raises(PeerInvalidResponse, match="peer far sent"):
        with_list("far", sent, SIZE)


def test_more_bytes_than_were_asked_for_are_not_even_decoded() -> None:
    with pytest.raises(PeerInvalidResponse, match="larger ones, than were asked for"):
        with_list("far", response(framed(listing())), SIZE - 1)
