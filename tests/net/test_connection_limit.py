"""The connections of this server to one peer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from orthanc_transfers.core.connection_share import Share
from orthanc_transfers.core.errors import Canceled, PeerStatus, PeerUnreachable
from orthanc_transfers.core.paths import CAPABILITIES
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.connection_limit import ACTIVE, QUANTUM, ConnectionLimit, ConnectionLimits, Holder
from tests.support.waiting import wait_until

PATIENCE = 30.0
OTHER = "/transfers/v2/chunks"


class Peer:
    """A peer that tells ``share``, and the transfers with it."""

    def __init__(self, share: Share | None) -> None:
        self.time = 100.0
        self.limit = ConnectionLimit("me", lambda: self.time)
        self.share = share
        self.asked = 0
        self.closed = 0
        self.silent = False
        self.pool = ThreadPoolExecutor(16)
        self.now = self.most = 0
        self.ends = threading.Semaphore(0)
        self._lock = threading.Lock()

    def told(self, share: Share | None, path: str = OTHER) -> None:
        self.limit.response_headers(path, {} if share is None else share.headers())

    def transfer(self) -> Holder:
        def trim(count: int) -> None:
            self.closed += 1

        return Holder(trim, lambda: "is silent" if self.silent else None)

    def ask(self) -> None:
        self.asked += 1
        assert not self.limit._changed._is_owned()  # type: ignore[attr-defined]
        self.told(self.share, CAPABILITIES)

    def begin(
        self, holder: Holder, check: Callable[[], None] = lambda: None, ask: Callable[[], None] | None = None
    ) -> Future[None]:
        """A request that ends by ``ends``."""

        def run() -> None:
            with self.limit.connection(holder, check, ask or self.ask):
                with self._lock:
                    self.now += 1
                    self.most = max(self.most, self.now)
                assert self.ends.acquire(timeout=PATIENCE)
                with self._lock:
                    self.now -= 1

        return self.pool.submit(run)

    def request(self, holder: Holder) -> None:
        self.ends.release()
        self.begin(holder).result(PATIENCE)

    def until(self, count: int) -> None:
        wait_until(lambda: self.now == count, f"{count} requests", PATIENCE)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer(Share(2, 4.0, 0))
    made.told(made.share)
    yield made
    made.ends.release(100)
    made.pool.shutdown()


def test_all_transfers_together_have_no_more_than_the_peer_can_spare(peer: Peer) -> None:
    begun = [peer.begin(peer.transfer()) for _ in range(8)]
    peer.until(2)
    peer.ends.release(8)
    for one in begun:
        one.result(PATIENCE)
        peer.time += QUANTUM
    assert peer.most == 2


def test_a_transfer_keeps_its_connection_until_another_waits_for_it(peer: Peer) -> None:
    first, second, third = (peer.transfer() for _ in range(3))
    peer.request(first)
    peer.request(second)
    peer.request(first)
    assert not peer.closed
    peer.ends.release()
    waiting = peer.begin(third)
    wait_until(lambda: third.waiting == 1, "it to wait", PATIENCE)
    peer.request(first)
    assert not peer.closed
    assert not waiting.done()
    peer.time += QUANTUM
    waiting.result(PATIENCE)
    assert peer.closed == 1


def test_who_waits_is_served_in_turn(peer: Peer) -> None:
    peer.told(Share(1, 4.0, 0))
    order: list[int] = []
    busy = peer.transfer()
    begun = [peer.begin(busy)]
    peer.until(1)
    for number in range(4):
        holder = peer.transfer()

        def ended(_: Future[None], number: int = number) -> None:
            order.append(number)

        one = peer.begin(holder)
        one.add_done_callback(ended)
        begun.append(one)
        wait_until(lambda holder=holder: holder.waiting == 1, "it to wait", PATIENCE)  # type: ignore[misc]
    for number in range(5):
        peer.time += QUANTUM
        peer.ends.release()
        begun[number].result(PATIENCE)
    assert order == [0, 1, 2, 3]


def test_connections_left_by_an_ended_transfer_go_to_who_wants_one(peer: Peer) -> None:
    peer.told(Share(1, 4.0, 0))
    first = peer.transfer()
    peer.request(first)
    peer.limit.rest(first, 1)
    peer.request(peer.transfer())
    assert peer.closed == 2


def test_a_smaller_share_closes_what_rests(peer: Peer) -> None:
    holders = [peer.transfer(), peer.transfer()]
    for holder in holders:
        peer.request(holder)
    peer.told(Share(1, 4.0, 0))
    assert peer.closed == 1
    assert sum(len(holder.idle) for holder in holders) == 1


def test_no_connection_is_kept_where_there_is_one_thread(peer: Peer) -> None:
    peer.told(Share(0, 4.0, 0))
    holder = peer.transfer()
    peer.request(holder)
    assert not holder.idle


def test_it_asks_for_its_turn(peer: Peer) -> None:
    peer.told(Share(0, 4.0, 0, wait=0.3))
    one = peer.begin(peer.transfer())
    peer.ends.release()
    wait_until(lambda: len(peer.limit._line) == 1, "it to wait", PATIENCE)
    assert peer.asked == peer.now == 0
    peer.time += 0.3
    one.result(PATIENCE)
    assert peer.asked == 1


def test_it_asks_once_its_lease_is_over(peer: Peer) -> None:
    peer.request(peer.transfer())
    assert peer.asked == 0
    peer.time += 4
    peer.request(peer.transfer())
    assert peer.asked == 1


def test_where_there_are_many_a_few_need_no_question(peer: Peer) -> None:
    peer.told(Share(2, 4.0, 3))
    peer.time += 4
    begun = [peer.begin(peer.transfer()) for _ in range(6)]
    peer.until(3)
    peer.told(Share(16, 4.0, 3))
    peer.until(6)
    peer.ends.release(6)
    for one in begun:
        one.result(PATIENCE)
    assert peer.asked == 0


def test_a_lease_of_no_time_is_asked_for_once_each_time(peer: Peer) -> None:
    peer.share = Share(1, 0.0, 0)
    peer.told(peer.share)
    holder = peer.transfer()
    peer.request(holder)
    peer.request(holder)
    assert peer.asked == 2


def test_a_peer_that_has_become_another_is_not_asked_for_a_turn(peer: Peer) -> None:
    def gone(request: PeerRequest) -> PeerResponse:
        peer.asked += 1
        raise PeerStatus("404", "b", 404)

    peer.told(Share(0, 4.0, 0, wait=0.3))
    peer.time += 0.3
    ask = peer.limit.asking(PeerRequest("POST", OTHER), gone)
    for _ in range(3):
        peer.ends.release()
        peer.begin(peer.transfer(), ask=ask).result(PATIENCE)
    assert peer.asked == 1
    assert peer.limit.asking(PeerRequest("GET", CAPABILITIES), gone) is None


def test_what_asking_raises_ends_the_request(peer: Peer) -> None:
    peer.time += 4

    def fail() -> None:
        raise PeerUnreachable("gone", "b")

    with pytest.raises(PeerUnreachable):
        peer.begin(peer.transfer(), ask=fail).result(PATIENCE)
    # The next one asks again.
    peer.request(peer.transfer())
    assert peer.asked == 1


def test_a_cancel_ends_the_wait(peer: Peer) -> None:
    canceled = threading.Event()

    def check() -> None:
        if canceled.is_set():
            raise Canceled("stopped")

    others = [peer.begin(peer.transfer()) for _ in range(2)]
    peer.until(2)
    one = peer.begin(peer.transfer(), check)
    wait_until(lambda: len(peer.limit._line) == 1, "it to wait", PATIENCE)
    canceled.set()
    with pytest.raises(Canceled):
        one.result(PATIENCE)
    peer.ends.release(2)
    for other in others:
        other.result(PATIENCE)


def test_a_peer_that_is_silent_is_not_spared(peer: Peer) -> None:
    others = [peer.begin(peer.transfer()) for _ in range(2)]
    peer.until(2)
    waiting = peer.transfer()
    one = peer.begin(waiting)
    wait_until(lambda: waiting.waiting == 1, "it to wait", PATIENCE)
    assert peer.limit.silence(waiting) is None
    peer.silent = True
    peer.until(3)
    peer.ends.release(3)
    for other in (one, *others):
        other.result(PATIENCE)


def test_a_transfer_that_waits_sees_what_the_others_see(peer: Peer) -> None:
    holder = peer.transfer()
    other = peer.begin(peer.transfer())
    peer.until(1)
    holder.waiting = 1
    peer.silent = True
    assert peer.limit.silence(holder) == "is silent"
    peer.ends.release()
    other.result(PATIENCE)


@pytest.mark.parametrize("share", [None, Share(3, 4.0, 0)])
def test_an_unknown_peer_is_asked_by_one_first(share: Share | None) -> None:
    peer = Peer(share)
    begun = [peer.begin(peer.transfer()) for _ in range(5)]
    peer.until(1)
    peer.told(share)
    peer.until(5 if share is None else 3)
    peer.ends.release(5)
    for one in begun:
        one.result(PATIENCE)
        peer.time += QUANTUM
    peer.pool.shutdown()


def test_the_first_request_to_a_peer_is_not_waited_for_long() -> None:
    peer = Peer(None)
    begun = [peer.begin(peer.transfer()) for _ in range(3)]
    peer.until(1)
    wait_until(lambda: len(peer.limit._line) == 2, "the others to wait", PATIENCE)
    peer.time += 1
    peer.until(3)
    peer.ends.release(3)
    for one in begun:
        one.result(PATIENCE)
    peer.pool.shutdown()


def test_a_peer_of_an_earlier_release_tells_what_there_is_in_all() -> None:
    peer = Peer(None)
    assert peer.limit.request_headers(CAPABILITIES) == {"transfers-sender": "me 1"}
    headers = {"transfers-connections": "2"}
    assert peer.limit.response_headers(CAPABILITIES, headers) == headers
    assert peer.limit.request_headers(OTHER) == {}
    # That is the share of one transfer.
    assert peer.limit.response_headers(OTHER, {"transfers-connections": "1"}) == {
        "transfers-connections": "1"
    }
    begun = [peer.begin(peer.transfer()) for _ in range(3)]
    peer.until(2)
    peer.ends.release(3)
    for one in begun:
        one.result(PATIENCE)
        peer.time += QUANTUM
    peer.pool.shutdown()


def test_each_transfer_is_told_its_own_share(peer: Peer) -> None:
    holders = [peer.transfer() for _ in range(3)]
    for holder in holders[:2]:
        peer.request(holder)
    told = peer.limit.response_headers(OTHER, Share(9, 4.0, 0).headers())
    assert told["transfers-connections"] == "4"
    peer.request(holders[2])
    assert peer.limit.response_headers(OTHER, Share(2, 4.0, 0).headers())["transfers-connections"] == "1"
    peer.limit.rest(holders[2], 1)
    assert peer.limit.request_headers(OTHER) == {"transfers-sender": "me 2"}
    peer.time += ACTIVE
    assert peer.limit.request_headers(OTHER) == {"transfers-sender": "me 1"}


def test_early_connections_are_counted_too(peer: Peer) -> None:
    holder = peer.transfer()
    early = peer.limit.early_connection
    with early(holder) as one, early(holder) as two, early(holder) as three:
        assert (one, two, three) == (True, True, False)
    assert len(holder.idle) == 2


def test_the_same_address_has_the_same_limit() -> None:
    limits = ConnectionLimits()
    assert limits.of("http://b/") is limits.of("http://b/")
    assert limits.of("http://b/") is not limits.of("http://c/")
