"""Pull, version 2: ``POST /transfers/v2/chunks``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from orthanc_transfers.core.codec import Codec, level_for, usable
from orthanc_transfers.core.errors import BodyRefused
from orthanc_transfers.core.messages_v2 import ChunksRequest
from orthanc_transfers.core.planner import RangePlan
from orthanc_transfers.core.ranges import Range, RangeSet, halves
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.schedule import Plan
from orthanc_transfers.receiver.incoming import IncomingTransfer


class Fetcher2:
    """Implements ``Fetcher`` with ranges of the area."""

    def __init__(
        self,
        context: RunContext,
        incoming: IncomingTransfer,
        executor: BucketExecutor,
        codecs: Collection[Codec],
    ) -> None:
        self._client = context.peer
        self._limit = context.body_limit()
        self._progress = context.progress
        self._incoming = incoming
        self._transcode = context.order.transcode
        self._originals = context.status.originals
        self._executor = executor
        self._compress = Codec.ZSTD in codecs

    def plan(self, missing: RangeSet) -> Plan[tuple[Range, ...]]:
        buckets = RangePlan(missing, self._executor.bucket_size)
        return Plan(buckets, lambda: buckets.total, buckets.extend)

    def count(self, present: RangeSet) -> int:
        return RangePlan(present, self._executor.bucket_size).total

    def ranges(self, bucket: tuple[Range, ...]) -> Sequence[Range]:
        return bucket

    def fetch(self, bucket: tuple[Range, ...]) -> Fetched:
        chunks = (chunk for item in bucket for chunk in self._incoming.manifest.chunks(item))
        originals = self._originals
        wanted = ChunksRequest(
            tuple(replace(one, id=originals[one.id]) if one.id in originals else one for one in chunks),
            usable(),
            self._executor.compression(),
            level_for(self._progress.speed()),
            self._transcode,
        )
        try:
            return self._client.fetch_chunks(wanted, compress=self._compress)
        except BodyRefused as error:
            # Thousands of tiny instances are named in one request.
            self._limit.refused(error)
        first, second = (self.fetch(tuple(half)) for half in halves(bucket))
        return replace(
            second,
            data=memoryview(b"".join((first.data, second.data))),
            wire=first.wire + second.wire,
            encoding=first.encoding + second.encoding,
        )
