"""The requests to a peer about what travels beside DICOM: labels, metadata, attachments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, content_type
from orthanc_transfers.core.content_encoding import ACCEPT_ENCODING, ZSTD
from orthanc_transfers.core.errors import PeerInvalidResponse
from orthanc_transfers.core.extras import Extra, ExtrasMessage, Kind
from orthanc_transfers.core.json_fields import array_field, json_object, natural_number, string_items
from orthanc_transfers.core.messages_v2 import CODEC_HEADER, XXH3_HEADER
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net.transcoding_client import TranscodingClient

_MAX_NOTES = 100


@dataclass(frozen=True, slots=True)
class ListedExtras:
    """What a peer has, and sentences on what it cannot give."""

    message: ExtrasMessage
    notes: tuple[str, ...]


class ExtrasClient(TranscodingClient):
    """A ``PeerClient`` with these requests, of version 2."""

    def send_extras(self, push: str, part: ExtrasMessage, *, compress: bool) -> list[int]:
        """Announce items of a push. Returns the indices of the attachments that the receiver needs."""
        request = self._json_post(paths.push_extras(push), part.to_json(), compress=compress, repeatable=True)

        def parse(value: Any) -> list[int]:
            needed = array_field(json_object(value, "the response"), "Needed")
            return [natural_number(index, 'each of "Needed"') for index in needed]

        return self._until_valid(lambda: self._parsed(request, parse)[0])

    def put_attachment(self, push: str, index: int, offset: int, data: Buffer) -> None:
        """Send bytes of an attachment."""
        headers = {
            "content-type": content_type(Codec.NONE),
            CODEC_HEADER: Codec.NONE.value,
            XXH3_HEADER: xxh3([data]),
        }
        path = paths.push_attachment(push, index, offset)
        request = self._request("PUT", path, body=[data], headers=headers)
        self._until_valid(lambda: self._acknowledged(self._transport, request))

    def list_extras(self, resources: Any, kinds: Collection[Kind]) -> ListedExtras:
        """What the peer has of some resources (JSON)."""
        body = {"Resources": resources, "Kinds": sorted(kind.value for kind in kinds)}
        headers = {ACCEPT_ENCODING: ZSTD}
        request = self._json_post(paths.EXTRAS, body, headers=headers, repeatable=True)

        def parse(value: Any) -> ListedExtras:
            notes = string_items(json_object(value, "the response"), "Notes")
            return ListedExtras(ExtrasMessage.parse(value), tuple(notes[:_MAX_NOTES]))

        return self._until_valid(lambda: self._parsed(request, parse)[0])

    def fetch_attachment(self, extra: Extra, offset: int, size: int) -> memoryview:
        """Bytes of an attachment."""
        request = self._request(
            "GET", paths.attachment(extra.resource, extra.number, offset, size), limit=size
        )
        return self._until_valid(lambda: self._fetch_attachment(request, size))

    def _fetch_attachment(self, request: PeerRequest, size: int) -> memoryview:
        response = self._send(self._transport, request)
        body = memoryview(response.body)
        if body.nbytes != size or xxh3([body]) != response.headers.get(XXH3_HEADER):
            raise PeerInvalidResponse(f"peer {self.name} sent other bytes of an attachment", self.name)
        return body
