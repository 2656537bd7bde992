"""What all kinds of rounds have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tests.faults.torture.round import Round
from tests.faults.torture.world import World
from tests.support.orthanc_server import OrthancServer


class Scenario(ABC):
    """A kind of round. One object is one round."""

    transfers: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    """Further options of the plugin, on both sides."""

    def configure(self, a: OrthancServer, b: OrthancServer) -> None:  # noqa: B027  (a hook)
        """Change the configuration of the sender and the receiver, before they start."""

    @abstractmethod
    def play(self, world: World, this: Round) -> None:
        """The round, between two that are empty. Raises ``Violation``."""

    def close(self) -> None:  # noqa: B027  (a hook)
        """The servers are gone."""
