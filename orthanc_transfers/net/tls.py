"""``SSLContext`` for a peer from Orthanc's configuration: trusted CAs, client certificate."""

from __future__ import annotations

import os
import ssl

import requests.utils

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import Peer
from orthanc_transfers.net.error_text import words
from orthanc_transfers.net.tls_sessions import ResumingContext


def tls_context(peer: Peer, verify: bool | str) -> ssl.SSLContext:
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
