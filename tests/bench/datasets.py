"""The data sets: DICOM files made once and kept in a folder."""

from __future__ import annotations

import enum
import importlib.util
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from tests.support import dicom_data

MB = 1024 * 1024


def pydicom_file(name: str) -> Path:
    """One of the real files that come with pydicom."""
    file = get_testdata_file(name, download=False)
    assert isinstance(file, str), f"pydicom ships no {name}"
    return Path(file)


def _real(share: float) -> Iterator[bytes]:
    # A radiograph of 16 bits and an ultrasound of 8. Copies of the small CT and MR of pydicom would repeat within
    # the window of zstd, though not within that of gzip: see ``codecs`` for those.
    folder = _package("deid_data") / "data"
    yield from dicom_data.copies(folder / "animals" / "cat.dcm", max(1, round(10 * share)))
    yield from dicom_data.copies(folder / "ultrasounds" / "RGB_IMAGE.dcm", max(1, round(20 * share)))


def _jpeg_2000(share: float) -> Iterator[bytes]:
    from PIL import Image

    # Made here, for copies of a real file repeat within a bucket, which codecs find. Real ones: see ``codecs``.
    for file in dicom_data.ct_study(max(1, round(640 * share))):
        dataset = pydicom.dcmread(io.BytesIO(file))
        stream = io.BytesIO()
        pixels = np.clip(dataset.pixel_array, 0, None).astype(np.uint16)
        Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=True)
        dataset.PixelRepresentation = 0
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        written = io.BytesIO()
        dataset.save_as(written, enforce_file_format=True)
        yield written.getvalue()


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is missing: run `make bench`, which installs it")
    return Path(spec.origin).parent


def _studies(count: int, slices: int, size: int) -> Iterator[bytes]:
    """Studies of as many patients."""
    for number in range(max(1, count)):
        yield from dicom_data.ct_study(slices, size=size, name=f"Phantom^{number}", seed=number)


class Jobs(enum.Enum):
    """How the studies of a data set are transferred."""

    TOGETHER = "one job"
    AT_ONCE = "a job for each study, all posted at once"
    IN_TURN = "a job for each study, one after another"


@dataclass(frozen=True)
class DataSet:
    """``make`` gives the files for a share of it (1: all)."""

    text: str
    make: Callable[[float], Iterator[bytes]]
    jobs: Jobs = Jobs.TOGETHER

    def __str__(self) -> str:
        return self.text if self.jobs is Jobs.TOGETHER else f"{self.text}, {self.jobs.value}"


DATA = {
    "a": DataSet(
        "1000 CT slices, 512 x 512 x 16 bit", lambda share: dicom_data.ct_study(round(1000 * share))
    ),
    "b": DataSet("5000 small images, 64 x 64", lambda share: dicom_data.small_instances(round(5000 * share))),
    "c": DataSet(
        "one multi-frame of 600 MB", lambda share: iter([dicom_data.multi_frame(round(600 * MB * share))])
    ),
    "d": DataSet("real radiographs and ultrasound, 200 MB uncompressed", _real),
    "e": DataSet("640 CT slices in JPEG 2000, lossless, 100 MB", _jpeg_2000),
    "r": DataSet(
        "routing: 200 studies of 5 images of 33 KB",
        lambda share: _studies(round(200 * share), 5, 128),
        Jobs.AT_ONCE,
    ),
    "x": DataSet(
        "radiographs: 30 studies of 2 images of 8.4 MB",
        lambda share: _studies(round(30 * share), 2, 2048),
        Jobs.AT_ONCE,
    ),
    "o": DataSet("30 images of 33 KB", lambda share: _studies(round(30 * share), 1, 128), Jobs.IN_TURN),
}
"""By name."""


def files(folder: Path, name: str, share: float) -> list[Path]:
    """The files of a data set, made if they are not there yet."""
    made = folder / f"{name}-{share:g}"
    done = made / "done"
    if not done.exists():
        made.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(DATA[name].make(share)):
            (made / f"{number:05}.dcm").write_bytes(data)
        done.touch()
    return sorted(made.glob("*.dcm"))
