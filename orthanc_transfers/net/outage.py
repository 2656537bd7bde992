"""One job's part in the outages of its peer: it waits for the one that tries, or tries for all.

The first failure of a request is repeated soon, for it may be one dropped connection. If the request fails again and
no other succeeded in between, the circuit opens: all threads wait, one of them probes with exponential backoff and
jitter, and its first response closes the circuit for all. All jobs with a peer share its circuit; each waits
``max_outage`` seconds of its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import PeerError, PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import Clock, PeerTransport
from orthanc_transfers.net.circuit import Circuit, Failures, Outage
from orthanc_transfers.runtime.cancellation import Cancellation

# Seconds between two attempts.
MAX_DELAY = 60.0

# Seconds between two looks whether a peer that is waited for was changed or deleted.
RENEWAL_PERIOD = 2.0

# Seconds since the last response to any job, from which on the silence of all connections counts as an outage.
PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """A thread may send now."""

    probes: bool = False
    """Its request tries a peer that may be away."""
    changed: bool = False
    """The peer was changed since: earlier failures say nothing of it."""


class OutageWait:
    """The waits of one transport. Thread-safe.

    ``say`` is called with one sentence while it waits, and with ``None`` when the peer responds again. For ``renew``,
    ``circuit`` and ``jitter`` see ``RetryingTransport``. Any wait may raise ``Canceled``, and what ``renew`` does.
    """

    def __init__(
        self,
        inner: PeerTransport,
        circuit: Circuit,
        *,
        max_outage: float,
        clock: Clock,
        cancellation: Cancellation,
        say: Callable[[str | None], None],
        renew: Callable[[], bool] | None,
        jitter: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._circuit = circuit
        self._backoff = Backoff(sys.maxsize, ceiling=MAX_DELAY)
        self._max_outage = max_outage
        self._clock = clock
        self._cancellation = cancellation
        self._say_aloud = say
        self._renew = renew
        self._jitter = jitter
        self._waits_since: float | None = None
        """When this transport began to wait through the present outage."""
        circuit.join()
        self._forget = cancellation.on_cancel(self._wake)

    @property
    def waits(self) -> bool:
        """Whether there is nothing to do but to wait for the peer; ``say`` was told."""
        self._look_for_silence()
        return self._circuit.outage is not None and self._waits_since is not None

    def turn(self, failures: Failures | None) -> Turn:
        """Return when this thread should send: during an outage, as the only one that does.

        ``failures`` are those of its request so far. Raises the last error after ``max_outage`` seconds.
        """
        circuit = self._circuit
        waited = self._wait_for_prober(failures)
        delay: float | None = None
        with circuit.changed:
            outage = circuit.outage
            if outage and circuit.prober in (None, threading.get_ident()):
                circuit.prober = threading.get_ident()
            waited_for = outage or failures
            if waited_for is not None:
                now = self._clock.monotonic()
                left = self._left(failures)
                if left <= 0:
                    if failures or now - waited_for.last < MAX_DELAY:
                        raise self._final_error(waited_for.error)
                    return Turn(probes=True)  # an outage of long ago, and a request that was not sent yet
                delay = self._backoff.delay(waited_for.count - 1, waited_for.error, self._jitter())
                delay = left if delay is None else min(delay, left)
                if outage:
                    self._tell(outage, failures)
        if delay is not None:
            return Turn(probes=True, changed=self.wait(delay))
        return Turn(changed=waited and self.renew())

    def wait(self, delay: float) -> bool:
        """Wait, but not for a peer that was changed, nor longer than a user wants. Returns whether it was changed."""
        if self._renew is None:
            self._cancellation.wait(delay)
            return False
        hurries = self._circuit.hurries
        end = self._clock.monotonic() + delay
        while not self.renew():
            left = end - self._clock.monotonic()
            if left <= 0 or self._circuit.hurries != hurries:
                return False
            self._cancellation.wait(min(left, RENEWAL_PERIOD))
        self.responded()
        return True

    def failed(self, error: PeerError, failures: Failures | None) -> Failures:
        """A request got no response, once more."""
        circuit = self._circuit
        with circuit.changed:
            now = self._clock.monotonic()
            if failures is None:
                failures = Failures(error, began=now, responses=circuit.responses)
            failures.add(error, now)
            if circuit.outage:
                if circuit.prober == threading.get_ident():
                    circuit.outage.add(error, now)
            elif failures.count > 1 and failures.responses == circuit.responses:
                self._open(error, failures.began)
            else:
                # Another request got a response since: what counts is whether one does after this failure.
                failures.responses = circuit.responses
            return failures

    def responded(self, sentence: str | None = None) -> None:
        """A request got a response: the outage is over for all. ``sentence``: what is waited for now."""
        circuit = self._circuit
        with circuit.changed:
            circuit.responses += 1
            circuit.responded = self._clock.monotonic()
            self._waits_since = None
            if circuit.outage:
                circuit.outage = None
                circuit.prober = None
                circuit.changed.notify_all()
            self._say_aloud(sentence)

    def request_ends(self) -> None:
        """To be called at the end of each request: another thread may try the peer."""
        circuit = self._circuit
        with circuit.changed:
            if circuit.prober == threading.get_ident():
                circuit.prober = None
                circuit.changed.notify_all()

    def close(self) -> None:
        """The job waits for nothing any more."""
        self._forget()
        self._circuit.leave()

    def _wait_for_prober(self, failures: Failures | None) -> bool:
        """Wait as long as another thread tries the peer. Returns whether one did."""
        circuit = self._circuit
        waited = False
        with circuit.changed:
            while (outage := circuit.outage) and circuit.prober not in (None, threading.get_ident()):
                self._cancellation.check()
                self._tell(outage, failures)
                left = self._left(failures)
                if left <= 0:
                    raise self._final_error(outage.error)
                waited = True
                circuit.changed.wait(left)
            self._cancellation.check()
            if waited and not circuit.outage:
                self._waits_since = None
                self._say_aloud(None)
        return waited

    def _left(self, failures: Failures | None) -> float:
        """Seconds until the wait is given up."""
        began = self._waits_since
        if began is None:
            began = self._clock.monotonic() if failures is None else failures.began
        return began + self._max_outage - self._clock.monotonic()

    def _tell(self, outage: Outage, failures: Failures | None) -> None:
        # The sentence first: whoever sees that it waits may show it.
        self._say_aloud(f"Waiting for peer {self._inner.name!r} since {outage.since}: {outage.error}")
        if self._waits_since is None:
            self._waits_since = self._clock.monotonic() if failures is None else failures.began

    def renew(self) -> bool:
        """Whether the peer was changed since the last look. Raises what ``renew`` does if it was deleted."""
        return self._renew is not None and self._renew()

    def _open(self, error: PeerError, began: float) -> Outage:
        since = local_time(self._clock)
        outage = self._circuit.outage = Outage(error, began, self._circuit.responses, since=since)
        outage.add(error, self._clock.monotonic())
        return outage

    def _look_for_silence(self) -> None:
        """Call it an outage that no connection shows a sign of life, long before that fails."""
        if not self._max_outage or self._waits_since is not None:
            return
        silence = self._inner.silence
        if silence is None:
            return
        circuit = self._circuit
        with circuit.changed:
            now = self._clock.monotonic()
            # Another job may be luckier: then it is these connections that are broken, not the peer.
            if self._waits_since is None and now - circuit.responded >= PATIENCE:
                error = PeerUnreachable(
                    f"peer {self._inner.name!r} {silence} at {self._inner.url}", self._inner.name
                )
                self._tell(circuit.outage or self._open(error, now), None)

    def _wake(self) -> None:
        with self._circuit.changed:
            self._circuit.changed.notify_all()

    def _final_error(self, error: PeerError) -> PeerError:
        if not self._max_outage:
            return error
        sentence = f"{error}; given up after {self._max_outage:g} s"
        if isinstance(error, PeerStatus):
            return PeerStatus(
                sentence,
                error.peer,
                error.peer_status,
                headers=error.headers,
                body=error.body,
                retry_after=error.retry_after,
            )
        return PeerUnreachable(sentence, error.peer)


def local_time(clock: Clock) -> str:
    """Now, for users."""
    return datetime.fromtimestamp(clock.now()).strftime("%Y-%m-%d %H:%M:%S")
