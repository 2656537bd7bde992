"""Fixtures of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.small_disk import SmallDisk

MakeDisk = Callable[[Path, int], SmallDisk]


@pytest.fixture(scope="module")
def make_disk() -> Iterator[MakeDisk]:
    """Makes small disks, which go with the tests of a file; skips where mounting is not permitted."""
    made: list[SmallDisk] = []

    def make(path: Path, size: int) -> SmallDisk:
        try:
            made.append(SmallDisk(path, size))
        except OSError as error:
            pytest.skip(str(error))
        return made[-1]

    yield make
    for disk in made:
        disk.close()
