"""Hands requests on to the node of the cluster that has the transfer: any node takes any request.

All requests that name a transfer may be repeated, so one that gets no response is sent again, to whoever has the
transfer then. The node that takes a request handed on answers 424 if it has not got the transfer: never a circle.

A node that stops passes the requests that it cuts short to another node, as if they had come there: a sender of
version 1 that repeats nothing, as C++ ones do, notices nothing of a rolling restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orthanc_transfers.core.errors import Busy, Canceled, PeerUnreachable
from orthanc_transfers.net.relay import Relay
from orthanc_transfers.receiver.ownership import Fenced, Node, OwnedElsewhere, Ownership
from orthanc_transfers.rest.http import Handler, Request, Response
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

HANDED_ON = "transfers-handed-on"
"""Header of a request that comes from another node: when it was sent (seconds since the epoch) and a signature."""

GOES_ON = 202
"""Status of a response to the node that has handed a request on: it takes its time, and is to be sent again."""

GOES_ON_AFTER = 10.0
"""Seconds after which it is given, less than ``_TIMEOUT``."""

_MISDIRECTED = 424
"""421 would say it, but Orthanc sends no status that it does not know: the connection would just end (1.10.1)."""
_MAX_AGE = 300.0
_PATIENCE = 45.0
"""Seconds after which the client is told to come again: longer than it takes another node to take over."""
_PAUSE = 0.25
_TIMEOUT = 15.0
"""Seconds without a response after which it is looked whether the node is still alive."""
LAST = 20.0
"""Seconds that a node which stops waits for the response of another."""


class HandingOn:
    """Wraps handlers. ``secret`` is known to the nodes of the cluster only.

    ``closing``: this server stops. ``others`` tells the other nodes, without asking the database;
    ``clock`` the time, about the same on all nodes whatever their own clocks say.
    """

    def __init__(
        self,
        ownership: Ownership,
        relay: Relay,
        secret: bytes,
        closing: Cancellation,
        others: Callable[[], Sequence[Node]],
        clock: Callable[[], float],
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ownership = ownership
        self._relay = relay
        self._secret = secret
        self._closing = closing
        self._others = others
        self._clock = clock
        self._pause = pause

    def wrap(self, handler: Handler, *, of_owner: bool = True) -> Handler:
        """The same handler, for transfers of all nodes.

        ``of_owner``: what it returns counts only if this node has not lost its transfers meanwhile.
        """

        def handle(request: Request) -> Response:
            request = replace(request, handed_on=self.is_handed_on(request))
            deadline = time.monotonic() + _PATIENCE
            while True:
                if of_owner and self._has_left():
                    # What its memory still knows is another node's now, or gone.
                    return Response(status=_MISDIRECTED) if request.handed_on else self._pass_on(request)
                try:
                    response = handler(request)
                    if of_owner:
                        self._require_lease()
                    return response
                except OwnedElsewhere as elsewhere:
                    node = elsewhere.node
                except (Busy, Canceled) as error:
                    closing = self._closing.requested
                    if not closing and not isinstance(error, Fenced):
                        raise
                    if request.handed_on:
                        return Response(status=_MISDIRECTED)
                    if closing:
                        return self._pass_on(request)
                    if time.monotonic() > deadline:
                        raise
                    # In a moment this node takes part again, and knows who has the transfer.
                    self._pause(_PAUSE)
                    continue
                if request.handed_on:
                    return Response(status=_MISDIRECTED)
                trouble = "it has just lost it"
                try:
                    response = self.send(node, request)
                    if response.status == GOES_ON:
                        deadline = time.monotonic() + _PATIENCE
                        continue
                    if response.status != _MISDIRECTED:
                        return response
                except PeerUnreachable as error:
                    trouble = str(error)
                if time.monotonic() > deadline:
                    text = f"node {node.name} of this cluster, which has the transfer, does not respond: {trouble}"
                    log.warning(
                        "%s; it is alive by the database: see Address in Cluster of Transfers there", text
                    )
                    raise Busy(f"{text}; repeat the request")
                self._ownership.doubt(node)
                self._pause(_PAUSE)

        return handle

    def _has_left(self) -> bool:
        """Whether this node has left the cluster, which it does before its server has stopped."""
        if not self._closing.requested:
            return False
        try:
            with contextlib.suppress(Fenced):  # the handler raises it, too
                self._ownership.check()
        except Canceled:
            return True
        return False

    def _require_lease(self) -> None:
        """Raise ``Fenced`` if another node has what this one has just responded for.

        A process that was stopped goes on where it was, and learns of it a moment later: what it received until then,
        the other node does not know of.
        """
        with contextlib.suppress(Canceled):  # it leaves the cluster, with all that it has written
            self._ownership.check()

    def send(self, node: Node, request: Request, timeout: float = _TIMEOUT) -> Response:
        """The response of another node, after ``timeout`` seconds without one ``PeerUnreachable``."""
        sent = str(int(self._clock()))
        mark = f"{sent}:{self._signature(sent, request)}"
        return self._relayed(node, request, {**request.headers, HANDED_ON: mark}, timeout)

    def is_handed_on(self, request: Request) -> bool:
        """Whether a request comes from another node of this cluster."""
        sent, _, signature = request.headers.get(HANDED_ON, "").partition(":")
        if not (sent.isascii() and sent.isdigit() and len(sent) < 12):
            return False
        fresh = abs(self._clock() - int(sent)) < _MAX_AGE
        return fresh and hmac.compare_digest(signature.encode(), self._signature(sent, request).encode())

    def _pass_on(self, request: Request) -> Response:
        """The response of any other node, which hands it on in turn. Raises ``Busy`` if none responds in time."""
        deadline = time.monotonic() + LAST
        while (left := deadline - time.monotonic()) > 0:
            for node in self._others():
                try:
                    return self._relayed(node, request, request.headers, left)
                except PeerUnreachable as error:
                    log.info("a request cannot be passed to node %s: %s", node.name, error)
            # One that has just started may not be known yet.
            self._pause(_PAUSE)
        raise Busy("this node of the cluster is stopping: repeat the request")

    def _relayed(self, node: Node, request: Request, headers: Mapping[str, str], timeout: float) -> Response:
        relayed = self._relay.send(
            node.address, request.method, request.path, request.query, headers, request.body, timeout=timeout
        )
        return Response(relayed.body, relayed.content_type, relayed.headers, relayed.status)

    def _signature(self, sent: str, request: Request) -> str:
        text = f"{sent} {request.method} {request.path}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
