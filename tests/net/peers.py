"""What the tests of the transport share: how transports are made, TLS of a server, a limit that only counts."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from orthanc_transfers.net.bandwidth import Bandwidth
from orthanc_transfers.net.requests_transport import RequestsTransport
from orthanc_transfers.runtime.clock import SystemClock

Connect = Callable[..., RequestsTransport]


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Turnstile(Bandwidth):
    """Lets everything pass, and notes it."""

    def __init__(self) -> None:
        super().__init__(8, SystemClock())
        self.passed: list[int] = []

    def reserve(self, size: int) -> float:
        self.passed.append(size)
        return 0.0
