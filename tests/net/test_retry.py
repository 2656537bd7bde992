from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterable

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    PeerError,
    PeerStatus,
    PeerUnreachable,
    PeerUntrusted,
    UnknownPeer,
)
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.circuit import Circuit
from orthanc_transfers.net.retry import RetryingTransport
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock
from tests.contract.fake_transport import Asked, FakeTransport, Reply
from tests.runtime.fake_time import FakeClock, FakeWaiting

OK = Reply(b"{}")
UNREACHABLE = None


class Scenario:
    """A retrying transport to a peer that gives these replies in turn, in a time that passes by waiting."""

    def __init__(
        self,
        replies: Iterable[Reply | None],
        *,
        retries: int = 0,
        max_outage: float = 600,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.clock = FakeClock()
        self.waiting = FakeWaiting(self.clock, on_wait)
        self.said: list[str | None] = []
        coming = iter(replies)
        self.inner = FakeTransport(lambda asked: next(coming), peer="far")
        self.transport = RetryingTransport(
            self.inner,
            retries=retries,
            max_outage=max_outage,
            clock=self.clock,
            cancellation=self.waiting,
            on_waiting=self.said.append,
            jitter=lambda: 1.0,
        )

    def get(self) -> bytes:
        return bytes(self.transport.send(PeerRequest("GET", "/x")).body)

    def post(self) -> bytes:
        return bytes(self.transport.send(PeerRequest("POST", "/x")).body)


def forever(reply: Reply | None) -> Iterable[Reply | None]:
    while True:
        yield reply


# --- memory


class Body(bytearray):
    """Bytes that can be watched."""


def test_a_request_that_was_repeated_does_not_wait_for_the_garbage_collector() -> None:
    scenario = Scenario([UNREACHABLE, UNREACHABLE, OK])
    body = Body(b"x")
    kept = weakref.ref(body)
    gc.disable()
    try:
        scenario.transport.send(PeerRequest("PUT", "/y", body=[body]))
        del body
        assert kept() is None
    finally:
        gc.enable()


# --- errors that are counted


def test_a_response_needs_no_second_try() -> None:
    scenario = Scenario([OK])

    assert scenario.get() == b"{}"
    assert len(scenario.inner.asked) == 1
    assert scenario.waiting.waits == []
    assert scenario.said == []


def test_the_whole_request_is_sent_again() -> None:
    scenario = Scenario([Reply(status=500), OK], retries=1)
    scenario.transport.send(
        PeerRequest("PUT", "/y", body=[b"a", b"b"], headers={"X": "1"}, timeout=3, limit=9)
    )

    assert scenario.inner.asked == [Asked("PUT", "/y", b"ab", {"x": "1"})] * 2


@pytest.mark.parametrize("status", [408, 425, 429, 500, 507])
def test_an_error_that_may_pass_is_tried_again_as_often_as_configured(status: int) -> None:
    scenario = Scenario(forever(Reply(status=status)), retries=3)

    with pytest.raises(PeerStatus) as raised:
        scenario.get()

    assert raised.value.peer_status == status
    assert len(scenario.inner.asked) == 4
    assert scenario.waiting.waits == [0.5, 1, 2]
    assert scenario.said == []


def test_without_retries_such_an_error_is_final() -> None:
    scenario = Scenario(forever(Reply(status=500)), retries=0)

    with pytest.raises(PeerStatus):
        scenario.get()
    assert len(scenario.inner.asked) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 404, 409, 413])
def test_an_error_that_cannot_pass_is_final(status: int) -> None:
    scenario = Scenario(forever(Reply(status=status)), retries=9)

    with pytest.raises(PeerStatus):
        scenario.get()
    assert len(scenario.inner.asked) == 1


def test_retry_after_is_the_least_to_wait() -> None:
    scenario = Scenario([Reply(status=429, headers={"Retry-After": "30"}), OK], retries=1)
    scenario.get()

    assert scenario.waiting.waits == [30]


def test_outages_do_not_count_as_retries() -> None:
    scenario = Scenario(
        [Reply(status=500), UNREACHABLE, UNREACHABLE, Reply(status=500), UNREACHABLE, OK], retries=2
    )

    assert scenario.get() == b"{}"


# --- outages


@pytest.mark.parametrize("reply", [UNREACHABLE, Reply(status=502), Reply(status=503), Reply(status=504)])
def test_an_unreachable_peer_is_waited_for(reply: Reply | None) -> None:
    scenario = Scenario([reply] * 10 + [OK])

    assert scenario.get() == b"{}"
    assert scenario.waiting.waits == [0.5, 0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_the_first_failure_is_not_called_an_outage() -> None:
    scenario = Scenario([UNREACHABLE, OK])
    scenario.get()

    assert scenario.said == []


def test_the_user_learns_since_when_it_waits_why_and_when_it_is_over() -> None:
    scenario = Scenario([UNREACHABLE, UNREACHABLE, UNREACHABLE, OK])
    scenario.get()

    first, second, over = scenario.said
    assert first is not None
    assert first.startswith("Waiting for peer 'far' since 2026-")
    assert ": peer 'far' cannot be reached at http://far" in first
    assert second is not None
    assert second == first
    assert over is None


def test_after_the_longest_outage_the_error_is_raised_with_how_long_it_was() -> None:
    scenario = Scenario(forever(UNREACHABLE), max_outage=600)
    started = scenario.clock.monotonic()

    with pytest.raises(
        PeerUnreachable, match=r"cannot be reached at http://far; given up after 600 s"
    ) as raised:
        scenario.get()

    assert raised.value.peer == "far"
    assert scenario.clock.monotonic() - started == pytest.approx(600)


def test_the_status_of_a_proxy_is_kept_when_given_up() -> None:
    scenario = Scenario(forever(Reply(b"<html>", 502)), max_outage=10)

    with pytest.raises(PeerStatus, match="given up after 10 s") as raised:
        scenario.get()
    assert raised.value.peer_status == 502
    assert raised.value.body == b"<html>"


@pytest.mark.parametrize("reply", [UNREACHABLE, Reply(status=503)])
def test_without_an_allowed_outage_nothing_is_waited_for(reply: Reply | None) -> None:
    scenario = Scenario(forever(reply), retries=9, max_outage=0)

    with pytest.raises(PeerError) as raised:
        scenario.get()

    assert "given up" not in str(raised.value)
    assert len(scenario.inner.asked) == 1
    assert scenario.waiting.waits == []


def test_after_an_outage_the_next_begins_anew() -> None:
    scenario = Scenario([UNREACHABLE] * 8 + [OK] + [UNREACHABLE] * 8 + [OK], max_outage=100)

    assert [scenario.get(), scenario.get()] == [b"{}", b"{}"]


def test_a_request_after_a_lost_outage_is_not_made_to_wait_again() -> None:
    scenario = Scenario(forever(UNREACHABLE), max_outage=600)
    for _ in range(2):
        with pytest.raises(PeerUnreachable, match="given up after 600 s"):
            scenario.get()
    tried = len(scenario.inner.asked)

    scenario.clock.advance(3600)
    with pytest.raises(PeerUnreachable):
        scenario.get()

    assert len(scenario.inner.asked) == tried + 1, "an hour later it is worth one attempt"


def test_a_request_that_alone_gets_no_response_is_not_tried_for_ever() -> None:
    """A proxy that cuts one kind of request is no outage, as long as others are answered."""
    clock = FakeClock()

    def behaviour(asked: Asked) -> Reply | None:
        return OK if asked.path == "/good" else None

    def succeed(seconds: float) -> None:
        assert transport.send(PeerRequest("GET", "/good")).body == b"{}"

    said: list[str | None] = []
    transport = RetryingTransport(
        FakeTransport(behaviour),
        retries=0,
        max_outage=600,
        clock=clock,
        cancellation=FakeWaiting(clock, succeed),
        on_waiting=said.append,
    )
    with pytest.raises(PeerUnreachable, match="given up after 600 s"):
        transport.send(PeerRequest("GET", "/bad"))

    assert said == []


def test_a_response_to_another_request_after_the_first_failure_hides_no_outage() -> None:
    """As of a request that was under way when the link broke."""
    clock = FakeClock()
    coming = iter([UNREACHABLE, UNREACHABLE, UNREACHABLE, OK])
    waits: list[float] = []

    def succeed_once(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            transport.send(PeerRequest("GET", "/good"))

    said: list[str | None] = []
    transport = RetryingTransport(
        FakeTransport(lambda asked: OK if asked.path == "/good" else next(coming), peer="far"),
        retries=0,
        max_outage=600,
        clock=clock,
        cancellation=FakeWaiting(clock, succeed_once),
        on_waiting=said.append,
    )
    transport.send(PeerRequest("GET", "/bad"))

    assert said[0] is not None
    assert said[0].startswith("Waiting for peer 'far' since")
    assert said[-1] is None


def test_a_certificate_that_is_refused_is_not_waited_for() -> None:
    class Refusing(FakeTransport):
        def send(self, request: PeerRequest) -> PeerResponse:
            raise PeerUntrusted("certificate verify failed", "far")

    clock = FakeClock()
    waiting = FakeWaiting(clock)
    transport = RetryingTransport(
        Refusing(lambda asked: OK), retries=5, max_outage=600, clock=clock, cancellation=waiting
    )
    with pytest.raises(PeerUntrusted):
        transport.send(PeerRequest("GET", "/"))
    assert waiting.waits == []


# --- a busy peer


def test_a_busy_peer_is_waited_for_as_it_asks_and_as_long_as_it_takes() -> None:
    busy = Reply(status=503, headers={"Retry-After": "20"})
    scenario = Scenario([busy] * 200 + [OK], max_outage=600)

    assert scenario.post() == b"{}"
    assert sum(scenario.waiting.waits) == pytest.approx(25 * 200)
    assert len(set(scenario.said)) == 2
    assert str(scenario.said[0]).startswith("Waiting for peer 'far' since 2026-")
    assert str(scenario.said[0]).endswith(": it is busy with other transfers")
    assert scenario.said[-1] is None


@pytest.mark.parametrize(("asked", "waited"), [("0", 1.25), ("100000", 75)])
def test_a_busy_peer_is_neither_hammered_nor_forgotten(asked: str, waited: float) -> None:
    scenario = Scenario([Reply(status=503, headers={"Retry-After": asked}), OK])
    scenario.post()

    assert sum(scenario.waiting.waits) == pytest.approx(waited)


def test_a_503_to_anything_but_a_post_is_an_outage() -> None:
    scenario = Scenario(forever(Reply(status=503, headers={"Retry-After": "20"})), max_outage=60)

    with pytest.raises(PeerStatus, match="given up after 60 s"):
        scenario.get()
    assert scenario.waiting.waits == [20, 20, 20]


class BusyPeer:
    """It has ``free`` slots, and gives one to each POST."""

    def __init__(self) -> None:
        self.free = 0
        self.asked: list[str] = []
        self.given: list[str] = []
        self.changed = threading.Condition()

    def __call__(self, asked: Asked) -> Reply:
        with self.changed:
            self.asked.append(asked.path)
            self.changed.notify_all()
            if not self.free:
                return Reply(status=503, headers={"Retry-After": "1"})
            self.free -= 1
            self.given.append(asked.path)
            return OK

    def give_one(self) -> None:
        with self.changed:
            given = len(self.given)
            self.free += 1
            assert self.changed.wait_for(lambda: len(self.given) > given, 30)

    def wait_for_more(self, count: int) -> list[str]:
        """The next requests."""
        with self.changed:
            before = len(self.asked)
            assert self.changed.wait_for(lambda: len(self.asked) >= before + count, 30)
            return self.asked[before:]


class Line:
    """Jobs that wait for a slot of such a peer, each in a thread; all came while it had none."""

    def __init__(self, count: int, gate: Callable[[], None] = lambda: None) -> None:
        self.peer = BusyPeer()
        self.circuit = Circuit()
        self.transports: list[RetryingTransport] = []
        self.raised: list[BaseException] = []
        self.cancellations: list[FakeWaiting] = []
        self.threads: list[threading.Thread] = []
        self._gate = gate
        for number in range(count):
            self.join()
            with self.circuit.changed:
                assert self.circuit.changed.wait_for(lambda n=number: len(self.circuit.line) > n, 30)  # type: ignore[misc]

    def join(self) -> None:
        """One more."""
        clock = FakeClock()
        self.cancellations.append(FakeWaiting(clock))
        transport = RetryingTransport(
            FakeTransport(self.peer),
            retries=0,
            max_outage=600,
            clock=clock,
            cancellation=self.cancellations[-1],
            circuit=self.circuit,
            gate=self._gate,
        )
        request = PeerRequest("POST", f"/{len(self.transports)}", takes_slot=True)
        self.transports.append(transport)
        self.threads.append(_requesting(transport, self.raised, request))


def test_jobs_get_the_slots_of_a_busy_peer_in_their_order_and_only_the_first_asks() -> None:
    line = Line(4)
    assert set(line.peer.wait_for_more(20)) == {"/0"}
    assert all(transport.waits for transport in line.transports)
    line.cancellations[1].cancel()
    line.threads[1].join()
    for _ in range(3):
        line.peer.give_one()
    for thread in line.threads:
        thread.join()
    assert line.peer.given == ["/0", "/2", "/3"]
    assert [type(error) for error in line.raised] == [Canceled]
    assert not any(transport.waits for transport in line.transports)


def test_the_next_asks_once_the_first_may_go_on() -> None:
    # Or slots would be taken for jobs that are still in Orthanc's queue.
    may_go_on = threading.Semaphore(0)
    # Only the first has passed the gate, when there was no line yet.
    may_go_on.release()
    line = Line(2, may_go_on.acquire)
    line.peer.give_one()
    first = line.circuit.line[0]
    assert len(line.circuit.line) == 2
    line.peer.free = 1
    may_go_on.release()
    with line.circuit.changed:
        assert line.circuit.changed.wait_for(lambda: first not in line.circuit.line, 30)
    may_go_on.release()
    for thread in line.threads:
        thread.join()
    assert line.peer.given == ["/0", "/1"]


# --- a peer that is changed meanwhile


class Changes:
    """What ``renew`` finds: nothing before ``at`` looks, then a change, or what it raises."""

    def __init__(self, inner: FakeTransport, at: int, error: Exception | None = None) -> None:
        self.looks = 0
        self._inner, self._at, self._error = inner, at, error

    def __call__(self) -> bool:
        self.looks += 1
        if self.looks != self._at:
            return False
        if self._error is not None:
            raise self._error
        self._inner.url = "http://corrected"
        return True


def changing(replies: Iterable[Reply | None], at: int, error: Exception | None = None) -> Scenario:
    """Its peer is changed at a look, or ``error`` ends the wait."""
    scenario = Scenario(replies, max_outage=600)
    scenario.transport = RetryingTransport(
        scenario.inner,
        retries=5,
        max_outage=600,
        clock=scenario.clock,
        cancellation=scenario.waiting,
        on_waiting=scenario.said.append,
        renew=Changes(scenario.inner, at, error),
        jitter=lambda: 1.0,
    )
    return scenario


def test_a_changed_peer_is_tried_at_once_and_its_outage_begins_anew() -> None:
    # Looks: one before each wait, and one each 2 s of it.
    scenario = changing([UNREACHABLE] * 9 + [OK], at=15)
    assert scenario.get() == b"{}"
    assert scenario.transport.url == "http://corrected"
    assert max(scenario.waiting.waits) == 2
    assert sum(scenario.waiting.waits) < 20
    assert scenario.waiting.waits[-2:] == [0.5, 1], "as after the first failures"


@pytest.mark.parametrize(
    "reply", [UNREACHABLE, Reply(status=503, headers={"Retry-After": "20"}), Reply(status=500)]
)
def test_a_deleted_peer_ends_the_wait(reply: Reply | None) -> None:
    scenario = changing(forever(reply), at=5, error=UnknownPeer("deleted"))
    with pytest.raises(UnknownPeer, match="deleted"):
        scenario.post()
    assert sum(scenario.waiting.waits) < 10


# --- cancellation


def test_a_cancellation_ends_a_wait() -> None:
    cancellation = Cancellation()
    failed = threading.Event()

    def behaviour(asked: Asked) -> Reply:
        failed.set()
        return Reply(status=429, headers={"Retry-After": "60"})

    transport = RetryingTransport(
        FakeTransport(behaviour), retries=9, max_outage=600, clock=SystemClock(), cancellation=cancellation
    )
    raised: list[BaseException] = []
    thread = _requesting(transport, raised)
    failed.wait()
    cancellation.cancel()
    thread.join()

    assert [type(error) for error in raised] == [Canceled]


def test_an_aborted_transport_stays_so() -> None:
    scenario = Scenario(forever(OK), retries=9)
    scenario.transport.abort()

    with pytest.raises(Canceled):
        scenario.get()
    scenario.transport.close()


# --- several threads


class Outage:
    """A peer that is unreachable up to the request numbered ``back_from``. Each waits until it is released."""

    def __init__(self) -> None:
        self.back_from = math.inf
        self.asked = 0
        self._let = 0
        self._changed = threading.Condition()

    def __call__(self, asked: Asked) -> Reply | None:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
            number = self.asked
            self._changed.wait_for(lambda: number <= self._let)
            return OK if number >= self.back_from else None

    def wait_for(self, asked: int) -> None:
        """Return when there were so many questions since the beginning."""
        with self._changed:
            self._changed.wait_for(lambda: self.asked >= asked)

    def let_go(self, count: int) -> None:
        with self._changed:
            self._let += count
            self._changed.notify_all()


THREADS = 5


class Crowd:
    """Threads that ask such a peer; begins when the outage is known and one of them tries."""

    def __init__(self, **options: float) -> None:
        self.clock = FakeClock()
        self.waiting = FakeWaiting(self.clock)
        self.peer = Outage()
        self.raised: list[BaseException] = []
        transport = RetryingTransport(
            FakeTransport(self.peer, peer="far"),
            retries=0,
            max_outage=options.get("max_outage", 600),
            clock=self.clock,
            cancellation=self.waiting,
            jitter=lambda: 1.0,
        )
        self.threads = [_requesting(transport, self.raised) for _ in range(THREADS)]
        self.peer.wait_for(THREADS)
        self.peer.let_go(THREADS)
        # Everyone tries once more on his own.
        self.peer.wait_for(2 * THREADS)
        self.peer.let_go(THREADS)
        self.peer.wait_for(2 * THREADS + 1)

    def join(self) -> None:
        for thread in self.threads:
            thread.join()


def _requesting(
    transport: RetryingTransport,
    raised: list[BaseException],
    request: PeerRequest | None = None,
) -> threading.Thread:
    def run() -> None:
        try:
            transport.send(request or PeerRequest("GET", "/x"))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_while_the_peer_is_unreachable_one_thread_tries_and_its_success_wakes_all() -> None:
    crowd = Crowd()
    for attempt in range(1, 8):
        crowd.peer.wait_for(2 * THREADS + attempt)
        assert crowd.peer.asked == 2 * THREADS + attempt
        crowd.peer.let_go(1)
    crowd.peer.wait_for(2 * THREADS + 8)
    crowd.peer.back_from = 2 * THREADS + 8
    crowd.peer.let_go(THREADS)
    crowd.join()

    assert crowd.raised == []
    assert crowd.peer.asked == 2 * THREADS + 8 + THREADS - 1


def test_a_lost_outage_ends_all_threads() -> None:
    crowd = Crowd(max_outage=300)
    crowd.peer.let_go(1000)
    crowd.join()

    assert {str(error) for error in crowd.raised} == {
        "peer 'far' cannot be reached at http://far; given up after 300 s"
    }
    assert len(crowd.raised) == THREADS


def test_a_cancellation_ends_all_threads_that_wait_for_the_one_that_tries() -> None:
    crowd = Crowd()
    crowd.waiting.cancel()
    crowd.peer.let_go(1)
    crowd.join()

    assert [type(error) for error in crowd.raised] == [Canceled] * THREADS
