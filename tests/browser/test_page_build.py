"""The built page in the repository is that of its sources, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.page_build import BUILT, build, npm


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.browser
@pytest.mark.skipif(
    npm() is None, reason="the page is not built anew: there is no npm here (scripts/setup.sh test)"
)
def test_the_built_page_is_that_of_its_sources(tmp_path: Path) -> None:
    build(tmp_path / "app")
    built, kept = files(tmp_path / "app"), files(BUILT)
    again = "run `npm ci && npm run build` in orthanc_transfers/explorer/app_src, and commit what changed"
    assert built.keys() == kept.keys(), again
    assert [name for name in built if built[name] != kept[name]] == [], again
