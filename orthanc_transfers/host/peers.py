"""Orthanc's peers, and the transport to each: our own where possible, else Orthanc's HTTP client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orthanc_transfers.core.bandwidth_limits import BandwidthLimits
from orthanc_transfers.core.errors import ConfigurationError, HostError
from orthanc_transfers.core.peers import Peer, parse_peers
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.host.file_paths import native_path
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.host.orthanc_transport import OrthancTransport
from orthanc_transfers.host.peer_list import PeerList
from orthanc_transfers.interfaces import KnownPeer, PeerTransport
from orthanc_transfers.net.peer_connections import KeptConnections
from orthanc_transfers.net.requests_transport import RequestsTransport
from orthanc_transfers.net.throttle import Throttle
from orthanc_transfers.runtime.clock import SystemClock

DEFAULT_HTTP_TIMEOUT = 60
"""Seconds, Orthanc's own default of ``HttpTimeout``."""

# Properties that Orthanc hides in its responses or shows without their value.
_HIDDEN = ("Username", "HttpHeaders", "CertificateFile", "Pkcs11")


@dataclass(frozen=True, slots=True)
class _KnownPeer:
    """Implements ``interfaces.KnownPeer``. ``peer`` is ``None`` where Orthanc does not reveal a part of it."""

    name: str
    url: str
    peer: Peer | None
    peers: PeerList = field(compare=False)
    connecting: Callable[[str, Peer | None, PeerList, int], PeerTransport] = field(compare=False)

    def connect(self, connections: int) -> PeerTransport:
        return self.connecting(self.name, self.peer, self.peers, connections)


class OrthancPeers:
    """Implements ``interfaces.Peers``. Thread-safe.

    Each call sees what Orthanc knows at that moment. Peers kept in its memory, set at run time or not,
    have all their properties in its present configuration, and are reached over ``RequestsTransport``. Of
    peers kept in its database (``OrthancPeersInDatabase``) the credentials are hidden: those that have some,
    and those that need PKCS#11, are reached through Orthanc's own client.
    """

    def __init__(
        self, sdk: Sdk, configuration: Mapping[str, Any], settings: Settings, throttle: Throttle | None = None
    ) -> None:
        self._sdk = sdk
        self._settings = settings
        self._in_database = bool(configuration.get("OrthancPeersInDatabase", False))
        self._timeout = float(configuration.get("HttpTimeout", DEFAULT_HTTP_TIMEOUT))
        self._verify = verification(configuration, sdk.configuration_path())
        self._proxy = str(configuration.get("HttpProxy") or "") or None
        self._throttle = throttle or Throttle(BandwidthLimits.configured(settings), SystemClock())
        self._kept = KeptConnections()

    def names(self) -> list[str]:
        """All names, sorted."""
        return PeerList(self._sdk).names()

    def remote_self(self, name: str) -> str | None:
        """The ``RemoteSelf`` property. Raises ``UnknownPeer``."""
        return PeerList(self._sdk).user_property(name, "RemoteSelf")

    def known(self, name: str) -> KnownPeer:
        """The peer, as far as Orthanc reveals it. Raises ``UnknownPeer``."""
        peers = PeerList(self._sdk)
        url = peers.url(name)
        return _KnownPeer(name, url, self._peer(name, url), peers, self._connect)

    def connect(self, name: str, connections: int) -> PeerTransport:
        """A transport to that peer. Raises ``UnknownPeer``, ``ConfigurationError``."""
        return self.known(name).connect(connections)

    def _connect(self, name: str, peer: Peer | None, peers: PeerList, connections: int) -> PeerTransport:
        """A transport over connections that an ended one may have left, or by Orthanc's client."""
        bandwidth = self._throttle.of(name)
        if peer is None or peer.pkcs11:
            timeout = 0.0 if peer is None or peer.timeout is None else peer.timeout
            return OrthancTransport(
                self._sdk,
                peers,
                name,
                default_timeout=timeout,
                bandwidth=bandwidth,
                proxied=self._proxy is not None,
                limit=self._kept.limits.of(peers.url(name)),
            )
        return RequestsTransport(
            peer,
            connections=connections,
            default_timeout=self._timeout,
            verify=self._verify,
            proxy=self._proxy,
            congestion_control=self._settings.congestion_control,
            bandwidth=bandwidth,
            kept=self._kept,
        )

    def _peer(self, name: str, url: str) -> Peer | None:
        """The peer with all that is needed to reach it; ``None`` where Orthanc does not reveal a part of it."""
        shown = self._shown_by_rest(name) if self._in_database else self._configured(name)
        if shown is None:
            return None
        peer = parse_peers({name: shown}).get(name)
        if peer is not None:
            peer = replace(
                peer,
                certificate_file=native_path(peer.certificate_file),
                certificate_key_file=native_path(peer.certificate_key_file),
            )
        # Another URL than the one Orthanc itself would use: then Orthanc knows something that we do not.
        return peer if peer is not None and peer.url.rstrip("/") == url.rstrip("/") else None

    def _configured(self, name: str) -> Any:
        section = self._sdk.configuration().get("OrthancPeers")
        return section.get(name) if isinstance(section, dict) else None

    def _shown_by_rest(self, name: str) -> Any:
        try:
            shown = json.loads(self._sdk.rest_get("/peers?expand")).get(name)
        except HostError as error:
            if error.code == Code.UNKNOWN_RESOURCE:
                return None
            raise
        if shown is None or any(shown.get(key) for key in _HIDDEN):
            return None
        # What is not set is shown as null, 0 or an empty list, whatever its type.
        return {key: value for key, value in shown.items() if value}


def verification(configuration: Mapping[str, Any], path: str) -> bool | str:
    """The ``verify`` of ``RequestsTransport``. ``path`` is that of the configuration, a file or a folder."""
    if not configuration.get("HttpsVerifyPeers", True):
        return False
    authorities = configuration.get("HttpsCACertificates") or ""
    if not isinstance(authorities, str):
        raise ConfigurationError(f"HttpsCACertificates must be the path of a file, not {authorities!r}")
    if not authorities:
        return True
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    # Relative paths are relative to the configuration, as everywhere in Orthanc.
    return str(folder / native_path(authorities))
