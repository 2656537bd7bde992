"""Sends a request to another node of the same cluster as it came, and brings its response back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import PeerUnreachable

# Of one connection only (RFC 9110, 7.6.1), or made anew for each.
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "expect",
        # Orthanc would compress for the other node, and a second time for the client.
        "accept-encoding",
    )
)
_CONNECT = 2.0

_NODES = 100
"""Other nodes to which connections are kept: those that were asked last."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """The response of the other node, whatever its status."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        # Or urllib3 would warn at each request where, as it is configured, certificates are not verified.
        self.is_verified = True


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Relay:
    """Connections to the other nodes, which are kept for the next request. Thread-safe.

    ``ca_certificates`` is a file or a folder; certificates of HTTPS addresses are not verified without it, as the names
    of nodes are rarely in them.
    """

    def __init__(self, connections: int, ca_certificates: str = "") -> None:
        folder = os.path.isdir(ca_certificates)
        self._pool = urllib3.PoolManager(
            num_pools=_NODES,
            maxsize=connections,
            cert_reqs="CERT_REQUIRED" if ca_certificates else "CERT_NONE",
            ca_certs=None if folder else ca_certificates or None,
            ca_cert_dir=ca_certificates if folder else None,
        )
        self._pool.pool_classes_by_scheme = {"http": urllib3.HTTPConnectionPool, "https": _HTTPSPool}

    def send(
        self,
        address: str,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Buffer,
        *,
        timeout: float,
    ) -> Relayed:
        """One request to the node at ``address``; ``timeout``: seconds without a byte of its response.

        ``query`` is still encoded, as Orthanc gives it to plugins; ``headers`` are UTF-8 that was decoded.

        Raises ``PeerUnreachable``: it is not known whether it arrived.
        """
        arguments = "&".join(f"{name}={value}" for name, value in query.items())
        url = address + path + (f"?{arguments}" if query else "")
        kept = {
            # http.client encodes it as Latin-1: these bytes as they came.
            name: value.encode().decode("latin-1")
            for name, value in headers.items()
            if name.lower() not in _HOP_BY_HOP
        }
        try:
            response = self._pool.urlopen(
                method,
                url,
                # As it is in memory: no copy.
                body=memoryview(body),
                headers=kept,
                retries=False,
                redirect=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=timeout),
            )
        except HTTPError as error:
            raise PeerUnreachable(str(error), address) from error
        found = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
        content_type = found.pop("Content-Type", "application/json")
        return Relayed(response.status, response.data, content_type, found)
