"""What a node knows of who owns which transfer, so that a bucket costs the database nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from orthanc_transfers.receiver.ownership import Node

Key = tuple[str, str, str]
"""Identifier, or kind and token; the others empty."""

# Transfers of which it is remembered which other node has them.
_REMEMBERED = 20_000


def keys(identifier: str, kind: str, token: str) -> tuple[Key, Key]:
    """Both by which a transfer is looked for."""
    return (identifier, "", ""), ("", kind, token)


class OwnerCache:
    """Thread-safe. What it says may be out of date: a node that gets a request which is not for it says so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: dict[Key, str] = {}
        """-> identifier"""
        self._elsewhere: OrderedDict[Key, Node] = OrderedDict()
        self._generation = 0

    @property
    def generation(self) -> int:
        """Another number each time when all is lost."""
        return self._generation

    def identifier(self, key: Key) -> str | None:
        """Of a transfer that this node owns, as far as it is known."""
        return self._own.get(key)

    def elsewhere(self, key: Key) -> Node | None:
        """The other node that owns it, if it is known."""
        return self._elsewhere.get(key)

    def own(self, identifier: str, kind: str, token: str, generation: int) -> None:
        """This node owns it, unless it has lost all since that generation."""
        with self._lock:
            if generation == self._generation:
                for key in keys(identifier, kind, token):
                    self._own[key] = identifier
                    self._elsewhere.pop(key, None)

    def remember(self, identifier: str, kind: str, token: str, node: Node) -> None:
        """Another node owns it."""
        with self._lock:
            for key in keys(identifier, kind, token):
                self._elsewhere[key] = node
            while len(self._elsewhere) > _REMEMBERED:
                self._elsewhere.popitem(last=False)

    def forget(self, identifier: str) -> None:
        """It is not this node's any more."""
        with self._lock:
            for key in [key for key, one in self._own.items() if one == identifier]:
                del self._own[key]

    def drop(self, which: Callable[[Node], bool]) -> None:
        """Forget what is at these other nodes."""
        with self._lock:
            for key in [key for key, node in self._elsewhere.items() if which(node)]:
                del self._elsewhere[key]

    def lose_all(self) -> None:
        """This node owns nothing any more."""
        with self._lock:
            self._generation += 1
            self._own.clear()
            self._elsewhere.clear()
