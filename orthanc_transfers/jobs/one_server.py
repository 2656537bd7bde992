"""When a peer does not know what it was just told: do requests to it reach different Orthancs?"""

from __future__ import annotations

from orthanc_transfers.core.errors import PeerMismatch, TransferError
from orthanc_transfers.net.peer_client import PeerClient

# Enough for a load balancer that takes its servers by chance.
_PROBES = 10


def check_one_server(peer: PeerClient) -> None:
    """Raise ``PeerMismatch`` if requests of this transfer, all alike, are answered by different Orthancs in turn.

    A peer that was restarted meanwhile has another identifier from then on, and does not come back with the first.
    """
    seen: list[str] = []
    for _ in range(_PROBES):
        try:
            originator = peer.originator()
        except TransferError:
            return  # what is to be explained says more
        if originator in seen[:-1] and originator != seen[-1]:
            raise PeerMismatch(
                f"requests to peer {peer.name} reach different Orthancs, and one does not know what another was told:"
                " let its load balancer send all that have the same header sender-transfer-id to the same Orthanc"
                " (sticky sessions)",
                peer.name,
            )
        seen.append(originator)
