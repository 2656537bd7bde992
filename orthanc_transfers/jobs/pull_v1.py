"""Pull, version 1: ``GET /transfers/chunks``."""

from __future__ import annotations

from collections.abc import Sequence

from orthanc_transfers.core.codec import Codec, Compression
from orthanc_transfers.core.model import Bucket, Manifest
from orthanc_transfers.core.planner import plan_pull
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.schedule import Plan

# Share of the bytes that gzip has to save at least, to be worth the time of the peer.
_WORTHWHILE = 0.03


class Fetcher1:
    """Implements ``Fetcher`` with buckets."""

    def __init__(self, context: RunContext, manifest: Manifest) -> None:
        self._client = context.peer
        self._manifest = manifest
        self._target = context.services.settings.bucket_size
        # The first response tells whether the data compresses: the peer has it, this side does not.
        wanted = context.order.compression
        self._trying = wanted not in (Compression.NONE, Compression.GZIP)
        self._codec = Codec.NONE if wanted is Compression.NONE else Codec.GZIP

    def plan(self, missing: RangeSet) -> Plan[Bucket]:
        buckets = plan_pull(self._manifest, self._target, missing)
        return Plan(iter(buckets), lambda: len(buckets))

    def count(self, present: RangeSet) -> int:
        return len(plan_pull(self._manifest, self._target, present))

    def ranges(self, bucket: Bucket) -> Sequence[Range]:
        return [self._manifest.range_of_chunk(chunk) for chunk in bucket.chunks]

    def fetch(self, bucket: Bucket) -> Fetched:
        fetched = self._client.fetch_bucket(bucket, self._codec)
        if self._trying:
            self._trying = False
            if fetched.wire > (1 - _WORTHWHILE) * bucket.size:
                self._codec = Codec.NONE
        return fetched
