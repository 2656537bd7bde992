"""The answer to a small pull: the list of its instances together with all their bytes."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, choose, content_type, encode
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.framing import frame_head
from orthanc_transfers.core.messages_v2 import CODEC_HEADER, ENCODING_HEADER, XXH3_HEADER, WholePull
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.rest.http import Response

log = logging.getLogger(__name__)


class WholePulls:
    """Answers of a bucket each at most (``bucket_size``), ``max_at_once`` of them at a time. Thread-safe.

    Each is in memory until it is written: what all of them may take is bounded by the two.
    """

    def __init__(self, reader: ChunkReader, *, bucket_size: int, max_at_once: int) -> None:
        self._reader = reader
        self._max_size = min(bucket_size, MAX_SIZE)
        self._free = threading.BoundedSemaphore(max(1, max_at_once))

    def answer(self, wanted: WholePull, manifest: Manifest, head: Any) -> Response | None:
        """``head``, JSON that lists the instances of ``manifest``, and their bytes.

        ``None`` if they are too many, or cannot be read, or too many such answers are under way: then the client
        fetches them in the usual way, and hears there what cannot be read.
        """
        if not 0 < manifest.size <= min(wanted.max_size, self._max_size):
            return None
        if not self._free.acquire(blocking=False):
            return None
        try:
            return self._encoded(wanted, manifest, head)
        except BaseException as error:
            self._free.release()
            if not isinstance(error, TransferError):
                raise
            log.info("a small pull gets no bytes with its list: %s", error)
            return None

    def _encoded(self, wanted: WholePull, manifest: Manifest, head: Any) -> Response:
        pieces = self._reader.read(manifest.chunks(manifest.area), manifest)
        began = time.monotonic()
        codec = choose(wanted.compression, pieces, wanted.codecs)
        encoded = encode(pieces, codec, wanted.level)
        seconds = time.monotonic() - began
        body = b"".join([frame_head(head, compress=Codec.ZSTD in wanted.codecs), *encoded])
        headers = {
            CODEC_HEADER: codec.value,
            XXH3_HEADER: xxh3([body]),
            ENCODING_HEADER: f"{seconds:.6f}",
        }
        return Response(body, content_type(Codec.NONE), headers, written=self._free.release)
