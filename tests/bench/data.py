"""What is sent: studies made once, kept in a folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.data import get_testdata_file

from tests.support import dicom_data

MB = 1024 * 1024


def _real(share: float) -> Iterator[bytes]:
    # A radiograph of 16 bits and an ultrasound of 8, not compressed, from the package deid-data.
    folder = _package("deid_data") / "data"
    yield from dicom_data.copies(folder / "animals" / "cat.dcm", max(1, round(10 * share)))
    yield from dicom_data.copies(folder / "ultrasounds" / "RGB_IMAGE.dcm", max(1, round(20 * share)))


def _jpeg_2000(share: float) -> Iterator[bytes]:
    file = get_testdata_file("examples_jpeg2k.dcm", download=False)
    assert isinstance(file, str)
    size = Path(file).stat().st_size
    yield from dicom_data.copies(Path(file), max(1, round(100 * MB * share / size)))


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {name} is missing: run `make bench`, which installs it")
    return Path(spec.origin).parent


DATA: dict[str, tuple[str, Callable[[float], Iterator[bytes]]]] = {
    "a": ("1000 CT slices, 512 x 512 x 16 bit", lambda share: dicom_data.ct_study(round(1000 * share))),
    "b": ("5000 small images, 64 x 64", lambda share: dicom_data.small_instances(round(5000 * share))),
    "c": ("one multi-frame of 600 MB", lambda share: iter([dicom_data.multi_frame(round(600 * MB * share))])),
    "d": ("real radiographs and ultrasound, uncompressed", _real),
    "e": ("JPEG 2000", _jpeg_2000),
}
"""Name -> what it is, and the files for a share of it (1: all)."""


def files(folder: Path, name: str, share: float) -> list[Path]:
    """The files of a data set, made if they are not there yet."""
    place = folder / f"{name}-{share:g}"
    done = place / "done"
    if not done.exists():
        place.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(DATA[name][1](share)):
            (place / f"{number:05}.dcm").write_bytes(data)
        done.touch()
    return sorted(place.glob("*.dcm"))
