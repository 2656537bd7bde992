"""Snapshot of Orthanc's peers: those of its configuration, and those set at run time."""

from __future__ import annotations

import weakref

from orthanc_transfers.core.errors import UnknownPeer
from orthanc_transfers.host.native.sdk import Sdk


class PeerList:
    """A snapshot, freed once nothing refers to it any more. Thread-safe."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self.handle = sdk.peers()
        """The address that the SDK's calls take."""
        self._free = weakref.finalize(self, sdk.free_peers, self.handle)
        # At the end of the process Orthanc has taken it back already.
        self._free.atexit = False
        self._indices = {
            sdk.peer_name(self.handle, index): index for index in range(sdk.peers_count(self.handle))
        }

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._indices)

    def index(self, name: str) -> int:
        """The number of a peer within this snapshot. Raises ``UnknownPeer``."""
        try:
            return self._indices[name]
        except KeyError:
            raise UnknownPeer(f"there is no peer {name!r} in the configuration of this Orthanc") from None

    def url(self, name: str) -> str:
        """The root of a peer's REST API. Raises ``UnknownPeer``."""
        return self._sdk.peer_url(self.handle, self.index(name))

    def user_property(self, name: str, key: str) -> str | None:
        """A free property of a peer, ``None`` if it has none of that name. Raises ``UnknownPeer``."""
        return self._sdk.peer_user_property(self.handle, self.index(name), key)
