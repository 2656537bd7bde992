"""The request to a peer about what it transcodes on the way."""

from __future__ import annotations

from orthanc_transfers.core import paths
from orthanc_transfers.core.messages_transcoding import TranscodedList, TranscodedRequest
from orthanc_transfers.net.peer_client import PeerClient


class TranscodingClient(PeerClient):
    """A ``PeerClient`` with it, of version 2."""

    def transcoded(self, wanted: TranscodedRequest) -> TranscodedList:
        """What some instances of the peer are in another transfer syntax; the first of them, at least one."""
        request = self._json_post(paths.TRANSCODED, wanted.to_json(), repeatable=True)
        return self._until_valid(lambda: self._parsed(request, TranscodedList.parse)[0])
