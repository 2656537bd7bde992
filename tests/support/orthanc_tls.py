"""Orthanc's own TLS (``SslEnabled``), where that of Debian's packages ends Orthanc with a segmentation fault.

Their HTTP server (civetweb 1.15, in Debian 12, 13 and testing) opens ``libssl.so`` and looks for
``SSL_get_peer_certificate``, which OpenSSL 3 has as a macro only, for ``SSL_get1_peer_certificate``. Not found, it is
called at address 0 by the first connection: in any Orthanc there, also without plugins.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

_SOURCE = """
extern void *SSL_get1_peer_certificate(const void *ssl);
void *SSL_get_peer_certificate(const void *ssl) { return SSL_get1_peer_certificate(ssl); }
"""
_OPTIONS = ("-shared", "-fPIC", "-Os", "-ffreestanding", "-nostdlib", "-Wl,--no-as-needed")


def environment(folder: Path) -> dict[str, str]:
    """What such an Orthanc is started with: a ``libssl.so`` of its own, with the function that is missed."""
    place = folder / "openssl"
    if not place.exists():
        place.mkdir()
        (place / "missing.c").write_text(_SOURCE)
        architecture = sysconfig.get_config_var("MULTIARCH")
        openssl = f"/usr/lib/{architecture}/libssl.so.3"
        compiler = (sys.executable, "-m", "ziglang", "cc", "-target", architecture)
        subprocess.run([*compiler, *_OPTIONS, "-o", "libssl.so", "missing.c", openssl], cwd=place, check=True)
    return {"LD_LIBRARY_PATH": str(place)}
