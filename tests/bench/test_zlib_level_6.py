"""The stand-in for the C++ plugin encodes by zlib at level 6, and asks no peer for its version."""

from __future__ import annotations

import subprocess
import sys

from tests.support.orthanc_server import CHECKOUT

# In a process of its own: what is replaced stays replaced.
PROGRAM = """
import zlib
from orthanc_transfers.core.codec import Codec, encode
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.runtime.clock import SystemClock
from tests.bench import zlib_level_6

class NeverAsked:
    def __getattr__(self, name):
        return "text: a call of it fails"

data = bytes(range(256)) * 1000
assert b"".join(encode([data], Codec.GZIP)) != zlib.compress(data, 6, 31)
zlib_level_6.install()
assert b"".join(encode([data], Codec.GZIP)) == zlib.compress(data, 6, 31)
assert CapabilitiesCache(SystemClock()).capabilities(NeverAsked()) is None
"""


def test_it_encodes_by_zlib_at_level_6_and_speaks_version_1_without_asking() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
