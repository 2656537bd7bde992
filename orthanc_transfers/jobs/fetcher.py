"""Fetching the bytes of a pull, whichever version the peer speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from orthanc_transfers.core.ranges import Range
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.schedule import Planner

T = TypeVar("T")


class Fetcher(Planner[T], Protocol[T]):
    """How one version of the protocol fetches. Called by several threads."""

    def ranges(self, bucket: T) -> Sequence[Range]:
        """The ranges of the area that the bytes of a bucket fill, in their order."""

    def fetch(self, bucket: T) -> Fetched:
        """One request. Raises what ``PeerClient`` does."""
