"""Fetching the bytes of a pull, whichever version the peer speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from orthanc_transfers.core.codec import Codec, decode
from orthanc_transfers.core.errors import BadFile, PeerAnswer, WrongSize
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.interfaces import PeerResponse
from orthanc_transfers.pipeline.schedule import Plan

T = TypeVar("T")


class Garbled(PeerAnswer):
    """The bytes of an answer are not those asked for."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of one item, how many of them the network carried, the codec, and the seconds it took."""

    data: memoryview
    wire: int
    codec: Codec
    encoding: float = 0.0


class Fetcher(Protocol[T]):
    """How one version of the protocol fetches. Called by several threads."""

    def plan(self, missing: RangeSet) -> Plan[T]:
        """Items that bring just those bytes of the area, one request each."""

    def ranges(self, item: T) -> Sequence[Range]:
        """Where the bytes of an item belong, in their order."""

    def fetch(self, item: T) -> Fetched:
        """One request. Raises ``Garbled``, and what ``PeerTransport.send`` does."""


def most_bytes(size: int) -> int:
    """The most bytes that ``size`` bytes may have in any codec: what does not compress grows a little."""
    return size + size // 64 + 4096


def unpack(peer: str, answer: PeerResponse, codec: Codec, size: int) -> Fetched:
    """The bytes of an answer. Raises ``Garbled`` unless they are ``size`` bytes in that codec."""
    wire = memoryview(answer.body).nbytes
    try:
        return Fetched(decode(answer.body, codec, size), wire, codec)
    except (BadFile, WrongSize) as error:
        raise Garbled(f"peer {peer} sent other bytes than were asked for: {error}", peer) from error
