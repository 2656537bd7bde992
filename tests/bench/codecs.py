"""``make bench BENCH_ARGS=--codecs``: ratio and speed of each codec on real and synthetic files, on one core."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom

from orthanc_transfers.core.codec import Codec, Compression, choose, encode
from tests.bench.datasets import files, pydicom_file

Table = dict[str, dict[str, dict[str, float]]]
"""What was encoded -> how -> ``Ratio``, and ``Speed`` in MB a second."""

_BUCKET = 4 * 1024 * 1024
_SECONDS = 0.5

Pieces = Sequence[bytes | bytearray | memoryview]
Encoder = Callable[[bytes], Pieces]

_ENCODERS: dict[str, Encoder] = {
    "zlib 6": lambda data: [zlib.compress(data, 6, 31)],
    "gzip (isal)": lambda data: encode([data], Codec.GZIP),
    "zstd": lambda data: encode([data], Codec.ZSTD),
    "split16+zstd": lambda data: encode([data], Codec.SPLIT16_ZSTD),
    "delta16+zstd": lambda data: encode([data], Codec.DELTA16_ZSTD),
}


def samples(cache: Path) -> dict[str, bytes]:
    """What it is -> bytes, a bucket of them where there are as many."""
    made_up = b"".join(file.read_bytes() for file in files(cache, "a", 0.01))[:_BUCKET]
    radiograph, ultrasound = (file.read_bytes()[:_BUCKET] for file in files(cache, "d", 0.01)[:2])
    return {
        "made-up CT, data (a), 16 bit": made_up,
        "real CT, 16 bit, one file by itself": pydicom_file("CT_small.dcm").read_bytes(),
        "real MR, 16 bit, one small file by itself": pydicom_file("MR_small.dcm").read_bytes(),
        "real MR, 16 bit, a bucket of variants": _variants(pydicom_file("MR_small.dcm")),
        "real MR, 12 of 16 bit": pydicom_file("examples_overlay.dcm").read_bytes(),
        "real radiograph, data (d), 12 of 16 bit": radiograph,
        "real ultrasound, data (d), 8 bit": ultrasound,
        "real ultrasound, JPEG 2000": pydicom_file("examples_jpeg2k.dcm").read_bytes(),
        "real CT, JPEG 2000": pydicom_file("J2K_pixelrep_mismatch.dcm").read_bytes(),
        "real ultrasound, JPEG": pydicom_file("examples_ybr_color.dcm").read_bytes(),
    }


def _variants(path: Path) -> bytes:
    """A bucket of one small image of 64 x 64: turned and mirrored, with a noise of one grey level.

    As a series of them travels. Copies that are alike would be found by codecs that look back far enough.
    """
    file, dataset = path.read_bytes(), pydicom.dcmread(path)
    head, _, tail = file.partition(dataset.PixelData)
    image = dataset.pixel_array
    noise = np.random.default_rng(64)
    made = []
    for number in range(_BUCKET // len(file)):
        turned = np.rot90(image[:, ::-1] if number % 2 else image, number // 2 % 4)
        pixels = (turned + noise.integers(-1, 2, image.shape)).astype(image.dtype)
        made.append(head + pixels.tobytes() + tail)
    return b"".join(made)


def measure(cache: Path) -> Table:
    """Takes some seconds a sample."""
    return {what: _measure(data) for what, data in samples(cache).items()}


def _measure(data: bytes) -> dict[str, dict[str, float]]:
    cells = {}
    for name, encoder in _ENCODERS.items():
        cells[name] = {"Ratio": _ratio(encoder, data), "Speed": _bucket(data) / _seconds(encoder, data) / 1e6}
    chosen = choose(Compression.AUTO, [data], tuple(Codec))

    def auto(data: bytes) -> Pieces:
        return encode([data], chosen)

    # A trial is made once for each bucket, so a small file bears a part of it.
    trial = _once(lambda data: choose(Compression.AUTO, [data], tuple(Codec)), data)
    cells["auto"] = {
        "Ratio": _ratio(auto, data),
        "Speed": _bucket(data) / (_seconds(auto, data) + trial) / 1e6,
    }
    return cells


def _ratio(encoder: Encoder, data: bytes) -> float:
    return len(data) / sum(memoryview(piece).nbytes for piece in encoder(data))


def _bucket(data: bytes) -> int:
    """Bytes of a bucket that is full of this."""
    return max(1, _BUCKET // len(data)) * len(data)


def _seconds(encoder: Encoder, data: bytes) -> float:
    """For such a bucket, file by file."""
    return _once(encoder, data) * _bucket(data) / len(data)


def _once(work: Callable[[bytes], object], data: bytes) -> float:
    """Seconds of the processor for one call."""
    rounds, began = 0, time.process_time()
    while (elapsed := time.process_time() - began) < _SECONDS:
        work(data)
        rounds += 1
    return elapsed / rounds
