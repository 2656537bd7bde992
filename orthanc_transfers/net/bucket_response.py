"""Responses that carry bytes of instances: checked and decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, decode
from orthanc_transfers.core.errors import BadFile, BadRequest, PeerInvalidResponse, TooLarge, WrongSize
from orthanc_transfers.core.framing import split_head
from orthanc_transfers.core.messages_v1 import LookupResponse
from orthanc_transfers.core.messages_v2 import CODEC_HEADER, ENCODING_HEADER, XXH3_HEADER, parse_seconds
from orthanc_transfers.core.safe_json import MAX_VALUES
from orthanc_transfers.interfaces import PeerResponse


@dataclass(frozen=True, slots=True)
class Fetched:
    """The decoded bytes of one bucket, and how they travelled."""

    data: memoryview
    wire: int
    """Bytes on the network."""
    codec: Codec
    encoding: float = 0.0
    """Seconds that the peer took to encode them; 0 if it does not say."""


def max_encoded(size: int) -> int:
    """The most bytes that ``size`` bytes may have in any codec: what does not compress grows a little."""
    return size + size // 64 + 4096


def decoded(peer: str, body: Buffer, codec: Codec, size: int) -> Fetched:
    """The ``size`` bytes that a body of that codec holds. Raises ``PeerInvalidResponse``."""
    try:
        return Fetched(decode(body, codec, size), memoryview(body).nbytes, codec)
    except (BadFile, WrongSize) as error:
        raise PeerInvalidResponse(
            f"peer {peer} sent other bytes than were asked for: {error}", peer
        ) from error


def fetched(peer: str, response: PeerResponse, size: int) -> Fetched:
    """The ``size`` bytes of a response of version 2. Raises ``PeerInvalidResponse``."""
    codec, encoding = _described(peer, response)
    return replace(decoded(peer, response.body, codec, size), encoding=encoding)


def with_list(peer: str, response: PeerResponse, max_size: int) -> tuple[LookupResponse, Fetched]:
    """The list of instances and all their bytes, at most ``max_size``. Raises ``PeerInvalidResponse``."""
    codec, encoding = _described(peer, response)
    try:
        head, body = split_head(response.body, MAX_VALUES)
        listed = LookupResponse.parse(head)
        size = sum(instance.size for instance in listed.instances)
        if size > max_size or listed.more:
            raise BadRequest("it has more instances, or larger ones, than were asked for")
    except (BadRequest, TooLarge) as error:
        raise PeerInvalidResponse(
            f"peer {peer} sent an invalid list of instances with their bytes: {error}", peer
        ) from error
    return listed, replace(decoded(peer, body, codec, size), encoding=encoding)


def _described(peer: str, response: PeerResponse) -> tuple[Codec, float]:
    """The codec of a response and the seconds of its encoding, once its checksum is right."""
    if xxh3([response.body]) != response.headers.get(XXH3_HEADER):
        raise PeerInvalidResponse(f"peer {peer} sent bytes with a wrong checksum", peer)
    try:
        codec = Codec(response.headers.get(CODEC_HEADER))
    except ValueError:
        raise PeerInvalidResponse(f"peer {peer} sent an unknown codec", peer) from None
    return codec, parse_seconds(response.headers.get(ENCODING_HEADER))
