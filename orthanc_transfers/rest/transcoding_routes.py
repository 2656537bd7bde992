"""The route that peers call about what is transcoded on the way; its bytes are asked for as chunks."""

from __future__ import annotations

from orthanc_transfers.core.messages_transcoding import TranscodedRequest
from orthanc_transfers.jobs.transcoded_files import TranscodedFiles
from orthanc_transfers.rest.http import Request, Response, json_response
from orthanc_transfers.rest.peer_routes import busy_when_stopping
from orthanc_transfers.runtime.cancellation import Cancellation


class TranscodingRoutes:
    """What this server transcodes for peers."""

    def __init__(self, files: TranscodedFiles, closing: Cancellation) -> None:
        self._files = files
        self._closing = closing

    def listed(self, request: Request) -> Response:
        """``POST /transfers/v2/transcoded``: identifiers, sizes and MD5s of some instances, transcoded."""
        wanted = TranscodedRequest.parse(request.json())
        with busy_when_stopping():
            return json_response(self._files.listed(wanted, self._closing).to_json())
