"""A script for Orthanc: the plugin as it would be with the C++ one's codec: version 1, and gzip by zlib at level 6.

It stands for the work that the C++ plugin does with each bucket, and is not that plugin: no file is read and
hashed in advance, connections are kept, there are more of them where the line gains from it, four threads import.
"""

# ruff: noqa: E402  (importable from here on only)

import runpy
import zlib
from pathlib import Path

# Makes everything importable, and registers.
runpy.run_path(str(Path(__file__).resolve().parents[2] / "orthanc_transfers" / "entry.py"))

from orthanc_transfers.core import codec
from orthanc_transfers.net import capabilities


class _Zlib:
    error = zlib.error
    decompressobj = staticmethod(zlib.decompressobj)

    @staticmethod
    def compress(data: bytes, level: int, wbits: int) -> bytes:
        return zlib.compress(data, 6, wbits)


codec.isal_zlib = _Zlib
capabilities._ask = lambda transport: None
