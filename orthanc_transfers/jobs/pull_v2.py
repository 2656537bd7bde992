"""Pull, version 2: ``POST /transfers/v2/chunks``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orthanc_transfers.core.codec import Codec, level_for
from orthanc_transfers.core.messages_v2 import ChunksRequest
from orthanc_transfers.core.planner import RangePlan
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.jobs.job import RunContext
from orthanc_transfers.net.peer_client import Fetched
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.schedule import Plan
from orthanc_transfers.receiver.incoming import IncomingTransfer


class Fetcher2:
    """Implements ``Fetcher`` with ranges of the area."""

    def __init__(
        self,
        drive: RunContext,
        reception: IncomingTransfer,
        carrier: BucketExecutor,
        codecs: Collection[Codec],
    ) -> None:
        self._client = drive.client
        self._progress = drive.progress
        self._reception = reception
        self._carrier = carrier
        self._compress = Codec.ZSTD in codecs

    def plan(self, missing: RangeSet) -> Plan[tuple[Range, ...]]:
        buckets = RangePlan(missing, self._carrier.bucket_size)
        return Plan(buckets, lambda: buckets.total, buckets.extend)

    def ranges(self, item: tuple[Range, ...]) -> Sequence[Range]:
        return item

    def fetch(self, item: tuple[Range, ...]) -> Fetched:
        wanted = ChunksRequest(
            tuple(chunk for one in item for chunk in self._reception.manifest.chunks(one)),
            tuple(Codec),
            self._carrier.encoding(),
            level_for(self._progress.speed()),
        )
        return self._client.fetch_chunks(wanted, compress=self._compress)
