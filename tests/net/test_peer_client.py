"""Which headers the requests of a transfer carry."""

from __future__ import annotations

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Bucket, Chunk
from orthanc_transfers.net.peer_client import PeerClient
from tests.contract.fake_transport import FakeTransport, Reply

BUCKET = Bucket(0, (Chunk("0" * 8, 0, 4),))


def test_requests_carry_the_transfer_and_the_cookie_of_the_load_balancer() -> None:
    transport = FakeTransport(lambda asked: Reply(b"{}"))
    PeerClient(transport, "transfer", lambda: "server=b").put_bucket("/transfers/push/1", 0, [b"x"])

    assert transport.asked[0].headers == {"sender-transfer-id": "transfer", "cookie": "server=b"}


def test_chunks_of_version_1_are_fetched_without_the_name_of_the_transfer() -> None:
    transport = FakeTransport(lambda asked: Reply(b"data"))
    fetched = PeerClient(transport, "transfer", lambda: "server=b").fetch_bucket(BUCKET, Codec.NONE)

    assert bytes(fetched.data) == b"data"
    assert transport.asked[0].headers == {}
