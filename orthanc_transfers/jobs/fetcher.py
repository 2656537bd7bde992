"""Fetching the bytes of a pull, whichever version the peer speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.net.peer_client import Fetched
from orthanc_transfers.pipeline.schedule import Plan

T = TypeVar("T")


class Fetcher(Protocol[T]):
    """How one version of the protocol fetches. Called by several threads."""

    def plan(self, missing: RangeSet) -> Plan[T]:
        """Items that bring just those bytes of the area, one request each."""

    def ranges(self, item: T) -> Sequence[Range]:
        """Where the bytes of an item belong, in their order."""

    def fetch(self, item: T) -> Fetched:
        """One request. Raises what ``PeerClient`` does."""
