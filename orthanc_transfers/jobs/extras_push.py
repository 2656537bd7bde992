"""Sends what travels beside DICOM with a push, before its commit."""

from __future__ import annotations

from functools import cached_property

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import BodyRefused, PeerError
from orthanc_transfers.core.extras import Extra, ExtrasMessage, check_sizes, counts
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.extras import as_received, kinds, receiver_takes, say, say_untransferable

_MAX_PIECE = 16 * 1024 * 1024
_MANY = 10_000
"""Items that go in one request at most: of small ones, 2 MB."""


class OutgoingExtras:
    """Of one push to a peer of these ``capabilities``. Listed once, when it is asked for first."""

    def __init__(self, context: RunContext, capabilities: Capabilities) -> None:
        self._context = context
        self._capabilities = capabilities
        say_untransferable(context, capabilities, sends=True)

    @cached_property
    def items(self) -> tuple[Extra, ...]:
        """Those that the receiver takes. Raises ``TooLarge``, ``HostError``, ``Canceled``."""
        context = self._context
        wanted = kinds(context, self._capabilities, sends=True)
        policy = context.services.extras
        if not wanted or policy is None:
            return ()
        listed, notes = policy.store.listed(context.order.resources, wanted, context.cancellation)
        taken = receiver_takes(context, self._capabilities, sends=True)
        found = tuple(one for one in listed if taken.takes(one))
        untaken = [one for one in listed if not taken.takes(one)]
        say(context, notes)
        say(
            context,
            (f"{one.shown}: peer {context.order.peer} does not take it (AcceptMetadata)" for one in untaken),
        )
        check_sizes(found)
        context.status.extras = counts(found) or None
        return found

    def send(self, push: str) -> None:
        """Send all to the push at this path. Raises ``PeerError`` and its subclasses."""
        if not self.items:
            return
        context, policy = self._context, self._context.services.extras
        assert policy is not None
        for index in self._announce(push, policy.store.name):
            if index >= len(self.items):
                raise PeerError(
                    f"peer {context.order.peer} asks for an attachment that is none", context.order.peer
                )
            extra = self.items[index]
            data = policy.store.attachment(extra.resource, extra.number)
            self._send_attachment(push, index, memoryview(data))

    def _announce(self, push: str, sender: str) -> list[int]:
        peer, limit = self._context.peer, self._context.body_limit()
        compress = Codec.ZSTD in self._capabilities.codecs
        overwrite = self._context.order.extras.overwrite
        items = as_received(self._context, self.items)
        before, step = 0, _MANY
        while True:
            part = items[before : before + step]
            more = before + len(part) < len(items)
            try:
                message = ExtrasMessage(part, sender, overwrite, before, more)
                needed = peer.send_extras(push, message, compress=compress)
            except BodyRefused as error:
                limit.refused(error)
                if len(part) < 2:
                    raise
                step = len(part) // 2
                continue
            if not more:
                return needed
            before += len(part)

    def _send_attachment(self, push: str, index: int, data: memoryview) -> None:
        peer, limit = self._context.peer, self._context.body_limit()
        offset = 0
        while True:
            size = min(_MAX_PIECE, limit.known or _MAX_PIECE, self._capabilities.max_body_size)
            piece = data[offset : offset + size]
            try:
                peer.put_attachment(push, index, offset, piece)
            except BodyRefused as error:
                limit.refused(error)
                continue
            offset += len(piece)
            if offset >= len(data):
                return
