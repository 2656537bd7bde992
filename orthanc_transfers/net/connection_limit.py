"""How many connections this server has to one peer: all its transfers together keep to what the peer can spare.

Each connection keeps a thread of the peer's HTTP server from other clients, in use or idle. So each is counted from its
first request until it is closed. Who wants one where there are no more waits in line, and gets the next that is closed:
one that rests once it was used for ``QUANTUM`` seconds, as soon as others wait. So all have their turns, however few
there are.

A peer that knows the header ``transfers-sender`` says how many connections all transfers of this server may have
together, for how long that holds, and when another server has its turn: see ``docs/protocol.md``.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from orthanc_transfers.core.connection_share import (
    CONNECTIONS_HEADER,
    SENDER_HEADER,
    Sender,
    Share,
    parse_connections,
)
from orthanc_transfers.core.errors import PeerStatus
from orthanc_transfers.core.messages_v2 import PROBE_HEADERS
from orthanc_transfers.core.paths import CAPABILITIES
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.capabilities import MAX_RESPONSE, TIMEOUT

QUANTUM = 0.25
"""Seconds that a connection is kept while others wait for one."""

ACTIVE = 5.0
"""Seconds since its last request that a transfer counts."""

# Seconds that the first request to a peer is waited for, to hear how many connections there may be.
_PATIENCE = 0.2

# Seconds between two looks of who waits.
_PERIOD = 0.05


@dataclass(eq=False, slots=True)
class Holder:
    """Connections that are used by the same transfer, one after the other."""

    trim: Callable[[int], None]
    """Closes the idle ones, but for so many."""
    silence: Callable[[], str | None]
    """See ``interfaces.PeerTransport``."""
    keeps: bool = True
    """Whether connections rest between two requests."""
    idle: list[float] = field(default_factory=list)
    """Since when it has each of those that rest; 0: they are left to who wants them."""
    active: int = 0
    """Requests in progress."""
    waiting: int = 0
    """Requests in line."""
    seen: float = -math.inf
    """Its last request."""
    closed: bool = False


class ConnectionLimit:
    """The connections to one peer. Thread-safe."""

    def __init__(self, sender: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self._sender = sender
        self._now = now
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._holders: set[Holder] = set()
        self._held = 0
        self._heard = not sender
        """Whether the peer has ever responded."""
        self._announced: int | None = None
        """Connections of a peer that does not know what a sender is; ``None``: it does not tell."""
        self._share: Share | None = None
        """What another peer has told last ..."""
        self._told = 0.0
        """... and when."""
        self._asking = False
        """Whether a request for the capabilities is under way, though no connection is ours."""

    @contextmanager
    def connection(
        self, holder: Holder, check: Callable[[], None], ask: Callable[[], None] | None
    ) -> Iterator[None]:
        """One connection, for a request inside: waits until there may be one.

        ``check`` raises what ends the wait. ``ask`` requests the capabilities of the peer, over a connection that it
        closes, hands the response to ``response_headers``, and raises what a request does; ``None``: this request does.
        """
        since = self._take(holder, check, ask)
        try:
            yield
        finally:
            if ask is None:
                self._asking = False
            self._give_back(holder, since)

    def asking(
        self, request: PeerRequest, exchange: Callable[[PeerRequest], PeerResponse]
    ) -> Callable[[], None] | None:
        """The ``ask`` of ``connection`` before such a request, by what sends a request at once."""
        if request.path == CAPABILITIES:
            return None

        def ask() -> None:
            headers = {**PROBE_HEADERS, "connection": "close"}
            wanted = PeerRequest("GET", CAPABILITIES, headers=headers, timeout=TIMEOUT, limit=MAX_RESPONSE)
            try:
                exchange(wanted)
            except PeerStatus as error:
                if error.outage:
                    raise
                self.response_headers(CAPABILITIES, {})  # it is not what it was

        return ask

    @contextmanager
    def early_connection(self, holder: Holder) -> Iterator[bool]:
        """One more connection ahead of its request; whether there may be one now, without a wait."""
        with self._changed:
            now = self._now()
            free = not self._line and not self._must_ask(now) and self._free(now)
            if free:
                self._hold(holder, now)
        try:
            yield free
        finally:
            if free:
                self._give_back(holder, self._now())

    def request_headers(self, path: str) -> dict[str, str]:
        """What tells the peer who asks: for its capabilities, and for anything where it understands that."""
        with self._changed:
            if not self._sender or (self._share is None and path != CAPABILITIES):
                return {}
            return {SENDER_HEADER: str(Sender(self._sender, self._users()))}

    def response_headers(self, path: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Keep what a response tells. Returns its headers as one transfer is to read them, with its own share."""
        share = Share.parse(headers)
        with self._changed:
            self._responded()
            if share is None and path == CAPABILITIES:
                self._share, self._announced = None, parse_connections(headers.get(CONNECTIONS_HEADER))
            if share is None:
                return headers
            self._share, self._told = share, self._now()
            self._shrink()
            mine = share.connections and max(1, share.connections // self._users())
            return {**headers, CONNECTIONS_HEADER: str(mine if share.wait is None else 1)}

    def refused(self) -> None:
        """The peer has responded, but with an error, which tells nothing."""
        with self._changed:
            self._responded()

    def silence(self, holder: Holder) -> str | None:
        """See ``PeerTransport``: of a transfer that only waits in line, what those before it see."""
        with self._changed:
            if not holder.waiting or holder.active:
                return None
        return self._silence()

    def rest(self, holder: Holder, kept: int) -> None:
        """Its transfer has ended: close the idle ones but for so many, which are left to who wants one."""
        with self._changed:
            left = [0.0] * len(holder.idle[:kept])
            self._held -= len(holder.idle) - len(left)
            holder.idle = left
            holder.seen = -math.inf
            holder.closed = not kept
            self._trim(holder)
            self._changed.notify_all()

    def _take(self, holder: Holder, check: Callable[[], None], ask: Callable[[], None] | None) -> float:
        ticket, asked = object(), False
        with self._changed:
            began = holder.seen = self._now()
            self._holders.add(holder)
            must_ask = self._must_ask(began)
            if holder.idle and not must_ask:
                holder.active += 1
                return holder.idle.pop()
            self._line.append(ticket)
            holder.waiting += 1
        try:
            while True:
                check()
                silent = self._silence() is not None
                with self._changed:
                    now = holder.seen = self._now()
                    first = self._line[0] is ticket
                    # One that has just asked goes on, however short its lease.
                    due = self._must_ask(now) and not (asked and self._allowed(now) != 0)
                    must_ask = first and due and not self._asking
                    unknown = not self._heard and now - began >= _PATIENCE
                    if first and not due and holder.idle:
                        holder.active += 1
                        return holder.idle.pop()
                    # Threads of a peer that is away are not missed by others.
                    if silent or (first and not due and (unknown or self._free(now))):
                        return self._hold(holder, now)
                    self._asking = self._asking or must_ask
                    if must_ask and ask is None:
                        return self._hold(holder, now)
                    if not must_ask:
                        self._changed.wait(_PERIOD)
                if must_ask and ask is not None:
                    asked = True
                    try:
                        ask()
                    finally:
                        self.refused()  # or it has told already
        finally:
            with self._changed:
                holder.waiting -= 1
                self._line.remove(ticket)
                self._changed.notify_all()

    def _give_back(self, holder: Holder, since: float) -> None:
        with self._changed:
            holder.active -= 1
            now, limit = self._now(), self._allowed(self._now())
            unwanted = not holder.keeps or (self._share is not None and self._share.connections == 0)
            wanted_by_others = bool(self._line) and now - since >= QUANTUM
            if holder.closed or unwanted or wanted_by_others or (limit is not None and self._held > limit):
                self._held -= 1
                self._trim(holder)
            else:
                holder.idle.append(since)
            self._changed.notify_all()

    # --- each with the lock held

    def _hold(self, holder: Holder, now: float) -> float:
        self._held += 1
        holder.active += 1
        self._holders.add(holder)
        return now

    def _responded(self) -> None:
        self._heard, self._asking = True, False
        self._changed.notify_all()

    def _allowed(self, now: float) -> int | None:
        """Connections at once; ``None``: any number."""
        share = self._share
        if share is None:
            return 1 if not self._heard else self._announced and max(1, self._announced)
        if share.wait is not None:
            return 0
        most = max(1, share.connections)
        return most if now < self._told + share.lease else share.unasked or most

    def _must_ask(self, now: float) -> bool:
        share = self._share
        if share is None:
            return False
        if share.wait is not None:
            return now >= self._told + share.wait
        return not share.unasked and now >= self._told + share.lease

    def _free(self, now: float) -> bool:
        """Whether there may be one more now, if need be for one that rests."""
        limit = self._allowed(now)
        return limit is None or self._held < limit or (self._held == limit and self._close_one(now - QUANTUM))

    def _close_one(self, before: float) -> bool:
        """Close one that rests, and that its holder has had since before that time; whether there is one."""
        for holder in self._holders:
            if holder.idle and holder.idle[0] <= before:
                del holder.idle[0]
                self._held -= 1
                self._trim(holder)
                return True
        return False

    def _shrink(self) -> None:
        limit = self._allowed(self._now())
        while limit is not None and self._held > limit and self._close_one(math.inf):
            pass

    def _trim(self, holder: Holder) -> None:
        holder.trim(len(holder.idle))
        if holder.closed and not holder.active and not holder.waiting:
            self._holders.discard(holder)

    def _users(self) -> int:
        """Transfers that are active."""
        since = self._now() - ACTIVE
        return max(1, sum(one.seen > since for one in self._holders))

    # --- without it

    def _silence(self) -> str | None:
        with self._changed:
            active = [one for one in self._holders if one.active]
        found = [one.silence() for one in active]
        return found[0] if found and all(found) else None


class ConnectionLimits:
    """The limit of each peer, by its address. Thread-safe."""

    def __init__(self) -> None:
        self._sender = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._known: dict[str, ConnectionLimit] = {}

    def of(self, address: str) -> ConnectionLimit:
        """The same one for the same address."""
        with self._lock:
            return self._known.setdefault(address, ConnectionLimit(self._sender))
