"""A sender of pushes, as far as the receiver sees one: six files, and the requests that bring them."""

from __future__ import annotations

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, encode
from orthanc_transfers.core.messages_v2 import PushStatus
from orthanc_transfers.core.model import PushState
from tests.receiver.memory_receiver import Receiver, creation2_of, creation_of, dicom, wait_until

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(6)]
AREA = b"".join(FILES)


def put_all(receiver: Receiver, identifier: str) -> None:
    for index, data in enumerate(FILES):
        receiver.v1.put(identifier, index, memoryview(data))


def create_any(receiver: Receiver, version: int) -> None:
    if version == 1:
        receiver.v1.create(creation_of(FILES))
    else:
        receiver.v2.create(creation2_of(FILES))


def send(receiver: Receiver, status: PushStatus, codec: Codec = Codec.NONE, area: bytes = AREA) -> None:
    for item in status.missing:
        body = b"".join(encode([memoryview(area)[item.start : item.stop]], codec))
        receiver.v2.put(status.id, [(item.start, item.size)], codec, xxh3([body]), memoryview(body))


def outcome(receiver: Receiver, identifier: str) -> PushStatus:
    wait_until(lambda: receiver.v2.status(identifier).state is not PushState.COMMITTING)
    return receiver.v2.status(identifier)
