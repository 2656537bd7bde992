"""What ``requests`` sends through: our connections, our TLS; no redirects, no cookies of its own."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

import requests
import requests.adapters

from orthanc_transfers.net.connections import HTTPPool, HTTPSPool
from orthanc_transfers.net.sockets import SocketFactory


class Adapter(requests.adapters.HTTPAdapter):
    """To one server, always the same way: up to ``connections`` idle connections whose sockets come from ``sockets``.

    ``tls`` is for HTTPS.
    """

    def __init__(self, connections: int, sockets: SocketFactory, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._pool: Any = None
        self._pools = {
            "http": partial(HTTPPool, sockets=sockets),
            "https": partial(HTTPSPool, sockets=sockets),
        }
        super().__init__(pool_connections=1, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See ``HTTPAdapter``."""
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See ``HTTPAdapter``."""
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def open(self, request: requests.PreparedRequest, verify: bool, timeout: float | None) -> None:
        """Open a connection for such a request, unless there are enough."""
        pool: Any = self.get_connection_with_tls_context(request, verify)
        pool.open(timeout)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """See ``HTTPAdapter``. Without cookies, which would be looked for in all that a peer sends."""
        response = requests.Response()
        response.request, response.url = req, req.url or ""
        response.raw, response.status_code, response.reason = resp, resp.status, resp.reason
        response.headers.update(resp.headers)
        return response

    def trim(self, count: int) -> None:
        """Close the idle connections, but for the last ``count`` of each pool."""
        for pool in self._all_pools():
            pool.trim(count)

    def close(self) -> None:
        """See ``HTTPAdapter``."""
        # urllib3 leaves it to the end of its pools, which an error that is still referenced may put off for long.
        for pool in self._all_pools():
            pool.close()
        super().close()

    def _all_pools(self) -> list[Any]:
        managers = (self.poolmanager, *self.proxy_manager.values())
        # Their containers cannot be iterated over.
        return [
            pool
            for manager in managers
            for pool in map(manager.pools.get, manager.pools.keys())
            if pool is not None
        ]

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """See ``HTTPAdapter``. Found once: to look for it takes a tenth of the time of a small request."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the context has it all; ``requests`` would load its own CAs at each connection."""
