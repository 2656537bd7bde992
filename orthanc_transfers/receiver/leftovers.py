"""What an undo could not delete, as the cluster knows it: other nodes may count on it before it is deleted at last.

Without a cluster nobody else does: ``OwnLeftovers``.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Protocol


class Fate(enum.Enum):
    """What may become of a leftover now."""

    DELETE = "delete"
    """It is to be deleted: a commit that would count on it waits until ``end``."""
    WAIT = "wait"
    """A commit that is running counts on it."""
    KEEP = "keep"
    """A commit has succeeded with it since."""


class Leftovers(Protocol):
    """By transfer and instance. Thread-safe; raises ``Fenced``, and ``Canceled`` where the server stops."""

    def leave(self, transfer: str, instances: Collection[str]) -> None:
        """An undo could not delete them; before the transfer ends. Waits while the database cannot be reached."""

    def begin(self, transfer: str, instance: str) -> Fate:
        """It is about to be deleted. Raises ``Busy`` if the database cannot be asked."""

    def check(self) -> None:
        """Return while this node may delete it, as ``Ownership.check``: it may have been stopped since ``begin``."""

    def end(self, transfer: str, instance: str) -> None:
        """It was deleted, or could not be. Waits while the database cannot be reached."""

    def forget(self, transfer: str) -> None:
        """Nothing of it is left. Never raises, nor does anything once another node has it."""


class OwnLeftovers:
    """Of a server that is in no cluster. Costs nothing."""

    def leave(self, transfer: str, instances: Collection[str]) -> None: ...

    def begin(self, transfer: str, instance: str) -> Fate:
        return Fate.DELETE

    def check(self) -> None: ...

    def end(self, transfer: str, instance: str) -> None: ...

    def forget(self, transfer: str) -> None: ...
