"""Fixtures of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.small_disk import SmallDisk


class MakeDisk(Protocol):
    """See ``SmallDisk``."""

    def __call__(self, path: Path, size: int, *, ext4: bool = False) -> SmallDisk: ...


@pytest.fixture(scope="module")
def make_disk() -> Iterator[MakeDisk]:
    """Makes small disks, which go with the tests of a file; skips where mounting is not permitted."""
    made: list[SmallDisk] = []

    def make(path: Path, size: int, *, ext4: bool = False) -> SmallDisk:
        try:
            made.append(SmallDisk(path, size, ext4=ext4))
        except OSError as error:
            pytest.skip(str(error))
        return made[-1]

    yield make
    for disk in made:
        disk.close()
