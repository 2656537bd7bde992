"""The answer to a small pull: the list of its instances together with all their bytes."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

from orthanc_transfers.core.buffers import joined
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, Compression, choose, content_type, encode
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.framing import frame_head
from orthanc_transfers.core.messages_v2 import CODEC_HEADER, ENCODING_HEADER, XXH3_HEADER, WholePull
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE, NEAR_SIZE, USUAL_SIZE
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.rest.http import Response

log = logging.getLogger(__name__)


class WholePulls:
    """Answers of ``NEAR_SIZE`` at most, for which clients ask who are near, and others for a bucket. Thread-safe.

    Each is in memory until it is written: ``max_at_once`` of a bucket (``bucket_size``), or fewer larger ones.
    """

    def __init__(self, reader: ChunkReader, *, bucket_size: int, max_at_once: int) -> None:
        self._reader = reader
        self._bucket = min(bucket_size, MAX_SIZE)
        self._max_size = self._bucket if bucket_size < USUAL_SIZE else NEAR_SIZE
        self._lock = threading.Lock()
        self._free = max(1, max_at_once)
        """Buckets."""

    def answer(self, wanted: WholePull, manifest: Manifest, head: Any) -> Response | None:
        """``head``, JSON that lists the instances of ``manifest``, and their bytes.

        ``None`` if they are too many, or cannot be read, or too many such answers are under way: then the client
        fetches them in the usual way, and hears there what cannot be read.
        """
        if not 0 < manifest.size <= min(wanted.max_size, self._max_size):
            return None
        buckets = -(-manifest.size // self._bucket)
        if not self._take(buckets):
            return None
        try:
            response = self._encoded(wanted, manifest, head)
        except BaseException as error:
            self._give_back(buckets)
            if not isinstance(error, TransferError):
                raise
            log.info("a small pull gets no bytes with its list: %s", error)
            return None
        return replace(response, written=partial(self._give_back, buckets))

    def _take(self, buckets: int) -> bool:
        with self._lock:
            enough = buckets <= self._free
            self._free -= buckets if enough else 0
            return enough

    def _give_back(self, buckets: int) -> None:
        with self._lock:
            self._free += buckets

    def _encoded(self, wanted: WholePull, manifest: Manifest, head: Any) -> Response:
        framed = frame_head(head, compress=Codec.ZSTD in wanted.codecs)
        chunks, codec, seconds = manifest.chunks(manifest.area), Codec.NONE, 0.0
        if wanted.compression is Compression.NONE:
            body = joined(self._reader.read(chunks, manifest, before=framed))
        else:
            pieces = self._reader.read(chunks, manifest)
            began = time.monotonic()
            codec = choose(wanted.compression, pieces, wanted.codecs)
            encoded = encode(pieces, codec, wanted.level)
            seconds = time.monotonic() - began
            body = joined([framed, *encoded])
        headers = {
            CODEC_HEADER: codec.value,
            XXH3_HEADER: xxh3([body]),
            ENCODING_HEADER: f"{seconds:.6f}",
        }
        return Response(body, content_type(Codec.NONE), headers)
