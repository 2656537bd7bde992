"""What most tests of the receiver start with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver.memory_receiver import Receiver, running_receiver


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver on an Orthanc in memory, its staging on disk."""
    with running_receiver(tmp_path / "staging") as receiver:
        yield receiver
