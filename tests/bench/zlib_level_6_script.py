"""A script for Orthanc: the plugin as it would be with the C++ one's codec, see ``zlib_level_6``."""

# ruff: noqa: E402  (importable from here on only)

import runpy
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

# Makes everything importable, and registers.
runpy.run_path(str(CHECKOUT / "orthanc_transfers" / "entry.py"))

from tests.bench import zlib_level_6

zlib_level_6.install()
