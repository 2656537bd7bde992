"""Pull, version 2: ``POST /transfers/v2/chunks``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, level_for
from orthanc_transfers.core.messages_v2 import (
    CODEC_HEADER,
    ENCODING_HEADER,
    XXH3_HEADER,
    ChunksRequest,
    parse_seconds,
)
from orthanc_transfers.core.planner import RangePlan
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.jobs.fetcher import Fetched, Garbled, most_bytes, unpack
from orthanc_transfers.jobs.job import RunContext
from orthanc_transfers.net.peer_client import identify, post
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.schedule import Plan
from orthanc_transfers.receiver.incoming import IncomingTransfer

CHUNKS = "/transfers/v2/chunks"


class Fetcher2:
    """Implements ``Fetcher`` with ranges of the area."""

    def __init__(
        self,
        drive: RunContext,
        reception: IncomingTransfer,
        carrier: BucketExecutor,
        codecs: Collection[Codec],
    ) -> None:
        self._peer = drive.peer
        self._order = drive.order
        self._progress = drive.progress
        self._reception = reception
        self._carrier = carrier
        self._small = Codec.ZSTD in codecs

    def plan(self, missing: RangeSet) -> Plan[tuple[Range, ...]]:
        buckets = RangePlan(missing, self._carrier.bucket_size)
        return Plan(buckets, lambda: buckets.total, buckets.extend)

    def ranges(self, item: tuple[Range, ...]) -> Sequence[Range]:
        return item

    def fetch(self, item: tuple[Range, ...]) -> Fetched:
        size = sum(one.size for one in item)
        wanted = ChunksRequest(
            tuple(chunk for one in item for chunk in self._reception.manifest.chunks(one)),
            tuple(Codec),
            self._carrier.encoding(),
            level_for(self._progress.speed()),
        )
        headers = identify(self._order)
        answer = post(
            self._peer,
            CHUNKS,
            wanted.to_json(),
            headers,
            limit=most_bytes(size),
            small=self._small,
            repeatable=True,
        )
        if xxh3([answer.body]) != answer.headers.get(XXH3_HEADER):
            raise Garbled(f"peer {self._peer.name} sent bytes with a wrong checksum", self._peer.name)
        try:
            codec = Codec(answer.headers.get(CODEC_HEADER))
        except ValueError:
            raise Garbled(f"peer {self._peer.name} sent an unknown codec", self._peer.name) from None
        encoding = parse_seconds(answer.headers.get(ENCODING_HEADER))
        return replace(unpack(self._peer.name, answer, codec, size), encoding=encoding)
