"""``SSLContext`` for a peer from Orthanc's configuration: trusted CAs, client certificate; shared by its jobs."""

from __future__ import annotations

import os
import ssl
import threading
import time

import requests.utils

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import Peer
from orthanc_transfers.net.error_text import words
from orthanc_transfers.net.tls_sessions import ResumingContext

MAX_AGE = 60.0
"""Seconds after which certificates are read anew from the disk, where they may have been renewed."""


class SharedContexts:
    """The contexts for all peers, with their sessions: jobs at once and one after the other use the same.

    Else each would read all CAs, and shake hands in full. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[tuple[Peer, bool | str, ResumingContext]] = []

    def of(self, peer: Peer, verify: bool | str) -> ResumingContext:
        """As ``tls_context``."""
        with self._lock:
            limit = time.monotonic() - MAX_AGE
            self._known = [known for known in self._known if known[2].made > limit]
            for *way, context in self._known:
                if way == [peer, verify]:
                    return context
        context = tls_context(peer, verify)
        with self._lock:
            self._known.append((peer, verify, context))
        return context


def tls_context(peer: Peer, verify: bool | str) -> ResumingContext:
    """``verify`` as of ``RequestsTransport``. Raises ``ConfigurationError`` for a file that cannot be used."""
    # ``create_default_context`` refuses, since Python 3.13, certificates that Orthanc takes.
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    # As libcurl, which Orthanc uses: the certificate of a server may be configured instead of that of its CA.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif verify is True:
        _load_cas(context)
    else:
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(verify) else "cafile": verify})
        except OSError as error:
            raise ConfigurationError(
                f"HttpsCACertificates {verify!r} cannot be read: {words(error)}"
            ) from None
    if peer.pkcs11:
        raise ConfigurationError(f"peer {peer.name!r} needs PKCS#11, which only Orthanc's own client can do")
    if peer.certificate_file:
        context.resumes = False
        try:
            # Never ``None``: OpenSSL would ask for the password of an encrypted key at the terminal.
            context.load_cert_chain(
                peer.certificate_file, peer.certificate_key_file or None, peer.certificate_key_password or ""
            )
        except OSError as error:
            raise ConfigurationError(
                f"the client certificate {peer.certificate_file!r} of peer {peer.name!r}, or its key or the"
                f" password of the key, cannot be used: {words(error)}"
            ) from None
    return context


def _load_cas(context: ssl.SSLContext) -> None:
    """Load the system's CAs, as Orthanc does; where it has none, those of ``certifi``, which ``requests`` brings."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        context.load_default_certs()
    else:
        context.load_verify_locations(requests.utils.DEFAULT_CA_BUNDLE_PATH)
