"""TLS sessions that the next connection to the same server resumes."""

from __future__ import annotations

import socket
import ssl
import time


class ResumingContext(ssl.SSLContext):
    """Resumes the last session with a server: no certificate is sent or verified once more.

    Python's sessions belong to one context, so to one peer with its configuration. Thread-safe: each use is a single
    operation of a dict.
    """

    resumes = True
    """Not where a client certificate is shown: a server that gave its sessions no name, as OpenSSL wants it
    (``SSL_CTX_set_session_id_context``), refuses a resumed one then, and the connection with it."""

    def __init__(self, *_: object) -> None:
        self.made = time.monotonic()
        self._sessions: dict[str | bytes | None, ssl.SSLSession] = {}

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """See ``SSLContext``."""
        known = self._sessions.get(server_hostname)
        return super().wrap_socket(
            sock,
            server_side,
            do_handshake_on_connect,
            suppress_ragged_eofs,
            server_hostname,
            session or known,
        )

    def remember(self, sock: ssl.SSLSocket) -> None:
        """Let the next connection resume the session of this one, which has brought a response.

        Tickets of TLS 1.3 come after the handshake, with the first response.
        """
        session = sock.session if self.resumes else None
        if session is not None and session.has_ticket:
            self._sessions[sock.server_hostname] = session
