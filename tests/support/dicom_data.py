"""DICOM files for the tests, the demo and the benchmark: quick to make, and compressible like real ones."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.data
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian

CT_STORAGE = UID("1.2.840.10008.5.1.4.1.1.2")
MULTI_FRAME_STORAGE = UID("1.2.840.10008.5.1.4.1.1.7.3")  # multi-frame grayscale word secondary capture

Pixels = npt.NDArray[np.int16]

# Files of pydicom that Orthanc refuses: cut short, or explicit where they say implicit, on purpose.
_BROKEN = {"MR_truncated.dcm", "rtplan_truncated.dcm", "SC_rgb_jpeg.dcm"}

# What differs from slice to slice stands in a template by these, and is replaced by as many bytes.
_INSTANCE = "2.25." + "7" * 39
_NUMBER = "7777777"
_LOCATION = "777777.7"


def new_uid() -> str:
    """A UID of 44 characters, never the same (the form of a UUID in DICOM's part 5, B.2)."""
    return f"2.25.{random.SystemRandom().randrange(10**38, 2**128)}"


def ct_study(
    slices: int, *, size: int = 512, series: int = 1, name: str = "Phantom^CT", seed: int = 0
) -> Iterator[bytes]:
    """A study of CT-like images, ``size`` x ``size`` pixels of 16 bits: 525 KB each at 512.

    ``slices`` is the number in all, spread over ``series`` series. Each image is a smooth body with noise,
    which zlib shrinks to a half, and zstd on split bytes to 0.42, as they do real CT. The same ``seed``
    gives the same pixels; the identifiers are new each time.
    """
    study, frame_of_reference = new_uid(), new_uid()
    templates = [
        _header(_ct_image(name, study, new_uid(), frame_of_reference, number, size), size * size * 2)
        for number in range(1, series + 1)
    ]
    for index in range(slices):
        header = templates[index % series]
        for mark, value in (
            (_INSTANCE, new_uid()),
            (_NUMBER, f"{1 + index // series:<{len(_NUMBER)}}"),
            (_LOCATION, f"{index:<{len(_LOCATION)}}"),
        ):
            header = header.replace(mark.encode(), value.encode())
        yield header + _slice(size, seed, index)


def small_instances(
    count: int, *, size: int = 64, name: str = "Phantom^Small", seed: int = 0
) -> Iterator[bytes]:
    """One series of many small images, 9 KB each at 64 x 64 pixels."""
    return ct_study(count, size=size, name=name, seed=seed)


def multi_frame(size: int, *, name: str = "Phantom^Multi-frame", seed: int = 0) -> bytes:
    """One instance of about ``size`` bytes: frames of 512 x 512 pixels of 16 bits."""
    frames = max(1, size // (512 * 512 * 2))
    dataset = _image(MULTI_FRAME_STORAGE, name, new_uid(), new_uid(), 512)
    dataset.Modality = "OT"
    dataset.NumberOfFrames = frames
    dataset.InstanceNumber = 1
    header = _header(dataset, frames * 512 * 512 * 2).replace(_INSTANCE.encode(), new_uid().encode())
    return header + b"".join(_slice(512, seed, frame) for frame in range(frames))


def write_large(path: Path, frames: int, *, name: str = "Phantom^Large") -> None:
    """Write one instance of ``frames`` frames of 512 x 512 pixels of 16 bits (0.5 MiB each).

    4200 are more than 2^31 bytes. The frames are alike but for their number in the first pixels of each 64 KB, so
    that none can be taken for another, and all is written within seconds.
    """
    dataset = _image(MULTI_FRAME_STORAGE, name, new_uid(), new_uid(), 512)
    dataset.Modality = "OT"
    dataset.NumberOfFrames = frames
    dataset.InstanceNumber = 1
    header = _header(dataset, frames * 512 * 512 * 2).replace(_INSTANCE.encode(), new_uid().encode())
    frame = bytearray(_slice(512, 0, 0))
    with path.open("wb") as file:
        file.write(header)
        for number in range(frames):
            for offset in range(0, len(frame), 64 * 1024):
                frame[offset : offset + 4] = number.to_bytes(4, "little")
            file.write(frame)


def real_files() -> list[Path]:
    """Small real DICOM files, one per instance, of many syntaxes and modalities, that any Orthanc stores.

    They come with pydicom's package.
    """
    kept: dict[str, Path] = {}
    for path in _pydicom_files():
        kept.setdefault(_peek(path).SOPInstanceUID, path)
    return list(kept.values())


def compressed_files() -> list[Path]:
    """Files of pydicom's package whose pixels are compressed (JPEG, JPEG-LS, JPEG 2000, RLE).

    Some of them are the same instance in several transfer syntaxes.
    """
    return [path for path in _pydicom_files() if _peek(path).file_meta.TransferSyntaxUID.is_encapsulated]


def copies(path: Path, count: int) -> Iterator[bytes]:
    """One new series of ``count`` instances that are a file but for their identifiers."""
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    for index in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(new_uid())
        dataset.InstanceNumber = index + 1
        yield _written(dataset)


@cache
def _phantom(size: int) -> Pixels:
    """A slice through a body, in the stored values of a CT."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.zeros((size, size))
    # (centre x, centre y, half axis x, half axis y, value above air): body, lungs, spine, heart.
    for centre_x, centre_y, half_x, half_y, value in (
        (0, 0, 0.85, 0.65, 1040),
        (-0.4, -0.05, 0.28, 0.4, 180),
        (0.4, -0.05, 0.28, 0.4, 180),
        (0, 0.42, 0.12, 0.13, 1500),
        (0.08, -0.15, 0.2, 0.22, 1080),
    ):
        distance = ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2
        inside = 1 / (1 + np.exp(np.clip((distance - 1) * size / 12, -50, 50)))
        image = image * (1 - inside) + value * inside
    image += 30 * np.sin(4 * x + 2 * y) * (image > 500)
    return np.clip(image + 24, 0, 4095).astype(np.int16)


def _slice(size: int, seed: int, index: int) -> bytes:
    body = _phantom(size)
    # A scanner's noise is alike in neighbours, and little in air. It is drawn anew for each slice: a codec
    # with a large window would find what repeats.
    noise = np.random.default_rng((seed, index)).standard_normal((size, size), dtype=np.float32)
    noise = noise + (np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 2 + np.roll(noise, (1, 1), (0, 1)) / 4
    strength = np.where(body > 100, np.float32(12 / 1.25), np.float32(4 / 1.25))
    return (body + (noise * strength).astype(np.int16)).astype("<i2", copy=False).tobytes()


def _ct_image(name: str, study: str, series: str, frame: str, number: int, size: int) -> FileDataset:
    dataset = _image(CT_STORAGE, name, study, series, size)
    dataset.FrameOfReferenceUID = frame
    dataset.Modality = "CT"
    dataset.StudyDescription = "Made-up CT"
    dataset.SeriesDescription = f"Series {number}"
    dataset.SeriesNumber = number
    dataset.InstanceNumber = _NUMBER
    dataset.SliceLocation = _LOCATION
    dataset.ImagePositionPatient = ["-250", "-250", _LOCATION]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [500.0 / size, 500.0 / size]
    dataset.RescaleIntercept = -1024
    dataset.RescaleSlope = 1
    return dataset


def _image(storage: UID, name: str, study: str, series: str, size: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = UID(_INSTANCE)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = storage
    dataset.SOPInstanceUID = _INSTANCE
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.PatientName = name
    dataset.PatientID = name.upper().replace("^", "-")
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.StudyDate = "20260101"
    dataset.StudyTime = "120000"
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Rows = size
    dataset.Columns = size
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    return dataset


def _header(dataset: FileDataset, pixel_bytes: int) -> bytes:
    """The file up to its pixels, which are the last element, of explicit length (part 5, 7.1.2)."""
    return _written(dataset) + b"\xe0\x7f\x10\x00OW\x00\x00" + pixel_bytes.to_bytes(4, "little")


def _written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def _pydicom_files() -> tuple[Path, ...]:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return tuple(path for path in sorted(folder.glob("*.dcm")) if _is_whole(path))


def _is_whole(path: Path) -> bool:
    if path.name in _BROKEN:
        return False
    try:
        dataset = _peek(path)
    except InvalidDicomError:
        return False
    needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    return all(dataset.get(keyword) for keyword in needed)


def _peek(path: Path) -> FileDataset:
    with warnings.catch_warnings():
        # Odd files are what these are for.
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=True)
