"""Pull, version 2: ``POST /transfers/v2/chunks``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.planner import plan_ranges
from orthanc_transfers.core.protocol import CODEC_HEADER, XXH3_HEADER, Capabilities, ChunksRequest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.transfer.driving import Drive
from orthanc_transfers.transfer.fetching import Fetched, Garbled, most_bytes, unpack
from orthanc_transfers.transfer.messages import identify

CHUNKS = "/transfers/v2/chunks"


class Fetcher2:
    """Implements ``Fetcher`` with ranges of the area."""

    def __init__(self, drive: Drive, manifest: Manifest, capabilities: Capabilities) -> None:
        self._peer = drive.peer
        self._order = drive.order
        self._manifest = manifest
        # A range may be twice the target.
        self._target = max(1, min(drive.environment.settings.bucket_size, capabilities.max_body_size // 2))

    def plan(self, missing: RangeSet) -> Sequence[Range]:
        return plan_ranges(missing, self._target)

    def ranges(self, item: Range) -> Sequence[Range]:
        return [item]

    def fetch(self, item: Range) -> Fetched:
        wanted = ChunksRequest(self._manifest.chunks(item), tuple(Codec), self._order.compression)
        answer = self._peer.request(
            "POST",
            CHUNKS,
            body=[json.dumps(wanted.to_json(), separators=(",", ":")).encode()],
            headers={"content-type": "application/json", **identify(self._order)},
            limit=most_bytes(item.size),
        )
        if xxh3([answer.body]) != answer.headers.get(XXH3_HEADER):
            raise Garbled(f"peer {self._peer.peer} sent bytes with a wrong checksum", self._peer.peer)
        try:
            codec = Codec(answer.headers.get(CODEC_HEADER))
        except ValueError:
            raise Garbled(f"peer {self._peer.peer} sent an unknown codec", self._peer.peer) from None
        return unpack(self._peer.peer, answer, codec, item.size)
