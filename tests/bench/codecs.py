"""``make bench BENCH_ARGS=--codecs``: what each codec makes of real and made-up files, on one core."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.data import get_testdata_file

from orthanc_transfers.core.codec import Codec, Compression, choose, encode
from tests.bench.data import files

_BUCKET = 4 * 1024 * 1024
_SECONDS = 0.5

Encoder = Callable[[bytes], Sequence[bytes | bytearray | memoryview]]


def _auto(data: bytes) -> Sequence[bytes | bytearray | memoryview]:
    return encode([data], choose(Compression.AUTO, [data], tuple(Codec)))


ENCODERS: dict[str, Encoder] = {
    "zlib 6": lambda data: [zlib.compress(data, 6, 31)],
    "gzip (isal)": lambda data: encode([data], Codec.GZIP),
    "zstd": lambda data: encode([data], Codec.ZSTD),
    "split16+zstd": lambda data: encode([data], Codec.SPLIT16_ZSTD),
    "auto": _auto,
}


def buckets(cache: Path) -> dict[str, bytes]:
    """Name -> bytes as one bucket would carry them."""
    found = {"made-up CT": b"".join(file.read_bytes() for file in files(cache, "a", 0.01))[:_BUCKET]}
    for name in ("CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "examples_jpeg2k.dcm"):
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str)
        found[f"real: {name}"] = Path(path).read_bytes()
    radiograph, ultrasound = files(cache, "d", 0.01)[:2]
    found["real: radiograph, 16 bit"] = radiograph.read_bytes()[:_BUCKET]
    found["real: ultrasound, 8 bit"] = ultrasound.read_bytes()[:_BUCKET]
    return found


def main(cache: Path) -> None:
    """Print the table, as Markdown."""
    names = list(ENCODERS)
    print("| ratio, MB/s | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for what, data in buckets(cache).items():
        cells = []
        for name in names:
            size = sum(memoryview(piece).nbytes for piece in ENCODERS[name](data))
            cells.append(f"{len(data) / size:.2f}, {_speed(ENCODERS[name], data):.0f}")
        print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


def _speed(encoder: Encoder, data: bytes) -> float:
    """MB a second."""
    rounds, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < _SECONDS:
        encoder(data)
        rounds += 1
    return rounds * len(data) / elapsed / 1e6
