"""A client that does what the C++ plugin does, and takes what that one takes: version 1 of the protocol to the letter.

Each request has a connection of its own and is made once: whatever is not exactly 200 is the end, as with
``MaxHttpRetries`` 0.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

BUCKET = 32 * 1024

_LONGEST_URL = 2000

Chunk = tuple[str, int, int]
"""Instance, offset and size."""


class CppClient:
    """Of the peer at ``url``; transfers have ``threads`` connections at a time. ``timeout``: of a request, s."""

    def __init__(self, url: str, threads: int = 4, timeout: float = 300.0) -> None:
        self._url = urlsplit(url)
        self._timeout = timeout
        self._threads = threads

    def push(self, files: Mapping[str, bytes], compression: str) -> str:
        """Files by their identifiers. Returns the transaction."""
        headers = {"sender-transfer-id": str(uuid.uuid4())}
        buckets = cut({one: len(files[one]) for one in sorted(files)})
        created = self._json(
            "POST",
            "/transfers/push",
            {
                "Compression": compression,
                "Instances": [
                    {"ID": one, "Size": str(len(files[one])), "MD5": hashlib.md5(files[one]).hexdigest()}
                    for one in sorted(files)
                ],
                "Buckets": [
                    [{"ID": one, "Offset": str(offset), "Size": str(size)} for one, offset, size in bucket]
                    for bucket in buckets
                ],
            },
            headers,
        )
        path = created["Path"]

        def put(index: int) -> None:
            data = b"".join(files[one][offset : offset + size] for one, offset, size in buckets[index])
            self._put(f"{path}/{index}", data if compression == "none" else _gzip(data), headers)

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(put, range(len(buckets))))
        assert self._json("POST", f"{path}/commit", None, headers) == {}
        return str(created["ID"])

    def pull(self, resources: Sequence[Mapping[str, str]], compression: str) -> dict[str, bytes]:
        """Files by their identifiers, checked."""
        listed = self._json("POST", "/transfers/lookup", list(resources), {"sender-transfer-id": "x"})
        sizes = {one["ID"]: int(one["Size"]) for one in listed["Instances"]}
        assert list(sizes) == sorted(sizes)
        assert listed["CountInstances"] == len(sizes)
        assert listed["TotalSize"] == str(sum(sizes.values()))
        files = {one: bytearray(size) for one, size in sizes.items()}

        def get(bucket: list[Chunk]) -> None:
            total = sum(size for _, _, size in bucket)
            names = ".".join(one for one, _, _ in bucket)
            data = self._request(
                "GET",
                f"/transfers/chunks/{names}?offset={bucket[0][1]}&size={total}&compression={compression}",
            )
            data = data if compression == "none" else _gunzip(data)
            assert len(data) == total
            for one, offset, size in bucket:
                files[one][offset : offset + size], data = data[:size], data[size:]

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(get, cut(sizes, _LONGEST_URL)))
        for one in listed["Instances"]:
            assert hashlib.md5(files[one["ID"]]).hexdigest() == one["MD5"]
        return {one: bytes(data) for one, data in files.items()}

    def _put(self, path: str, data: bytes, headers: Mapping[str, str]) -> None:
        assert json.loads(self._request("PUT", path, data, headers)) == {}

    def _json(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads(self._request(method, path, data, headers))

    def _request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        connection = HTTPConnection(self._url.hostname or "", self._url.port, timeout=self._timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == 200, f"{method} {path}: {answer.status} {data[:300]!r}"
            return data
        finally:
            connection.close()


def cut(sizes: Mapping[str, int], longest_url: int = 0) -> list[list[Chunk]]:
    """The buckets: large instances whole or split, in their order, then the small ones grouped."""
    return [*_large(sizes.items()), *_small(sizes.items(), longest_url)]


def _large(sizes: Iterable[tuple[str, int]]) -> Iterator[list[Chunk]]:
    for one, size in sizes:
        if size >= BUCKET:
            count = -(-size // (2 * BUCKET)) if size >= 2 * BUCKET else 1
            step = size // count
            for index in range(count):
                start = index * step
                yield [(one, start, step if index < count - 1 else size - start)]


def _small(sizes: Iterable[tuple[str, int]], longest_url: int) -> Iterator[list[Chunk]]:
    bucket: list[Chunk] = []
    for one, size in sizes:
        if 0 < size < BUCKET:
            bucket.append((one, 0, size))
            full = sum(part for _, _, part in bucket) >= BUCKET
            if full or (longest_url and (len(bucket) + 1) * (len(one) + 1) > longest_url - 100):
                yield bucket
                bucket = []
    if bucket:
        yield bucket


def _gzip(data: bytes) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def _gunzip(body: bytes) -> bytes:
    # The size is taken from the last four bytes, and there is one member.
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    data = decoder.decompress(body)
    assert decoder.eof
    assert not decoder.unused_data
    assert int.from_bytes(body[-4:], "little") == len(data)
    return data
