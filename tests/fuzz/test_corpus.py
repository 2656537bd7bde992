"""Runs each file of the corpus, found by fuzzing or an example of a format, through its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz_decoders import TARGETS

CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_is_read_is_understood_or_refused(target: str) -> None:
    files = sorted((CORPUS / target).iterdir())
    assert files
    for file in files:
        TARGETS[target](file.read_bytes())
