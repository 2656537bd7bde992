"""Makes of the plugin what it would be with the C++ one's codec: version 1, and gzip by zlib at level 6.

It stands for the work that the C++ plugin does with each bucket, and is not that plugin: no file is read and
hashed in advance, connections are kept, there are more of them where the link gains from it, four threads import.
"""

from __future__ import annotations

import zlib
from typing import Any

from orthanc_transfers.core import codec
from orthanc_transfers.net import capabilities


class Zlib:
    """What the codec uses of ``isal_zlib``, from ``zlib``."""

    error = zlib.error
    decompressobj = staticmethod(zlib.decompressobj)

    @staticmethod
    def compress(data: bytes, level: int, wbits: int) -> bytes:
        return zlib.compress(data, 6, wbits)


def install() -> None:
    """For the rest of the process. Raises ``AttributeError`` where the plugin has no such names any more."""
    _replace(codec, "isal_zlib", Zlib)
    _replace(capabilities, "_ask", lambda transport: None)


def _replace(module: Any, name: str, value: object) -> None:
    getattr(module, name)
    setattr(module, name, value)
