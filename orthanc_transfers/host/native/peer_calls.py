"""Calls of Orthanc's SDK about peers: snapshots of their list, and requests by Orthanc's own HTTP client."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from ctypes import byref, c_char_p, c_uint16, c_uint32, c_void_p
from dataclasses import dataclass

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import pinned, strings
from orthanc_transfers.host.native.calls import Calls, text, uint32
from orthanc_transfers.host.native.structures import Code, HttpMethod, MemoryBuffer, Service


@dataclass(frozen=True, slots=True)
class PeerCall:
    """What ``CallPeerApi`` returned: ``code`` of Orthanc, HTTP ``status`` (0: none came), and a 200's content."""

    code: int
    status: int
    body: memoryview
    headers: Mapping[str, str]


class PeerCalls(Calls):
    """Peers, each known by its index within a snapshot of their list."""

    def peers(self) -> int:
        """A snapshot of the peers as Orthanc knows them now; to be given to ``free_peers``."""
        target = c_void_p()
        self._call(Service.GET_PEERS, structures.GetPeers(ctypes.pointer(target)), "listing the peers")
        if not target.value:
            raise HostError("Orthanc returned no list of its peers", Code.PLUGIN)
        return target.value

    def free_peers(self, peers: int) -> None:
        self._invoke(self._context, Service.FREE_PEERS, byref(structures.FreePeers(peers)))

    def peers_count(self, peers: int) -> int:
        target = c_uint32()
        parameters = structures.GetPeersCount(ctypes.pointer(target), peers)
        self._call(Service.GET_PEERS_COUNT, parameters, "counting the peers")
        return target.value

    def peer_name(self, peers: int, index: int) -> str:
        return self._peer_property(Service.GET_PEER_NAME, peers, index, None) or ""

    def peer_url(self, peers: int, index: int) -> str:
        return self._peer_property(Service.GET_PEER_URL, peers, index, None) or ""

    def peer_user_property(self, peers: int, index: int, name: str) -> str | None:
        """A property of a peer beyond those that Orthanc knows; ``None`` if it has none of that name."""
        return self._peer_property(Service.GET_PEER_USER_PROPERTY, peers, index, name)

    def call_peer(
        self,
        peers: int,
        index: int,
        method: HttpMethod,
        path: str,
        headers: Mapping[str, str],
        body: Buffer,
        timeout: int,
    ) -> PeerCall:
        """One request by Orthanc's own HTTP client. ``timeout`` in seconds, 0 for Orthanc's default.

        The outcome is in the returned value. Raises ``HostError`` only for a body beyond 32 bits.
        """
        answer, answer_headers, status = MemoryBuffer(), MemoryBuffer(), c_uint16()
        with pinned(body) as (address, size):
            parameters = structures.CallPeerApi(
                ctypes.pointer(answer),
                ctypes.pointer(answer_headers),
                ctypes.pointer(status),
                peers,
                index,
                method,
                text(path),
                len(headers),
                strings(tuple(headers)),
                strings(tuple(headers.values())),
                address,
                uint32(size),
                timeout,
            )
            code = self._invoke(self._context, Service.CALL_PEER_API, byref(parameters))
        received = self._taken_bytes(answer_headers)
        view = self._taken_view(answer)
        named = {}
        if code == Code.SUCCESS and received:
            named = {str(key).lower(): str(value) for key, value in json.loads(received).items()}
        return PeerCall(code, status.value, view, named)

    def _peer_property(self, service: Service, peers: int, index: int, name: str | None) -> str | None:
        target = c_char_p()
        parameters = structures.GetPeerProperty(
            ctypes.pointer(target), peers, index, None if name is None else text(name)
        )
        if self._invoke(self._context, service, byref(parameters)) or target.value is None:
            return None
        return target.value.decode(errors="replace")
