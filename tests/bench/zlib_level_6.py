"""The plugin as it would be with the C++ one's codec: version 1, and gzip by zlib at level 6.

A stand-in for the work that the C++ plugin does with each bucket, no more: it reads and hashes no file in advance,
keeps its connections, and imports with four threads, all of which the C++ plugin does not.
"""

# ruff: noqa: E402  (importable from here on only)

import runpy
import zlib
from pathlib import Path

# Makes everything importable, and registers.
runpy.run_path(str(Path(__file__).resolve().parents[2] / "orthanc_transfers" / "entry.py"))

from orthanc_transfers.core import codec
from orthanc_transfers.transfer import negotiation


class _Zlib:
    error = zlib.error
    decompressobj = staticmethod(zlib.decompressobj)

    @staticmethod
    def compress(data: bytes, level: int, wbits: int) -> bytes:
        return zlib.compress(data, 6, wbits)


codec.isal_zlib = _Zlib
negotiation._ask = lambda transport: None
