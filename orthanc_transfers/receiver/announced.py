"""What is known of an incoming transfer by its announcement."""

from __future__ import annotations

from typing import Any

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.area import Area

GROWING = "growing"
"""Key in ``Area.meta``: whether further instances are still to be announced."""


class Announced:
    """What is in ``area`` of that."""

    def __init__(self, area: Area) -> None:
        self._area = area
        self._measure()

    def _measure(self) -> None:
        manifest = self._area.manifest
        self.count, self.size = len(manifest), manifest.size
        """Number of instances; bytes."""
        self.fingerprint = manifest.fingerprint()
        """Of the manifest."""
        self.first = manifest.instances[0].id if self.count else None
        """Identifier of its first instance."""

    @property
    def id(self) -> str:
        """32 random hex digits, chosen here."""
        return self._area.id

    @property
    def kind(self) -> str:
        """``push`` or ``pull``."""
        return str(self._area.meta["kind"])

    @property
    def token(self) -> str:
        """Chosen by the client, which finds the transfer again by it."""
        return str(self._area.meta["token"])

    @property
    def peer(self) -> str | None:
        """What its sender calls it; of a pull, the peer."""
        peer: str | None = self._area.meta["peer"]
        return peer

    @property
    def sender_name(self) -> str | None:
        """The name that its sender gives itself, if it is a push."""
        # What earlier releases left on disk has none.
        name: str | None = self._area.meta.get("sender_name")
        return name

    @property
    def originator(self) -> str | None:
        """The process of its sender, as the capabilities of that tell, if it is known."""
        originator: str | None = self._area.meta.get("originator")
        return originator

    @property
    def remote_address(self) -> str | None:
        """From where its sender sends, as the creation of a push told."""
        address: str | None = self._area.meta.get("remote_address")
        return address

    @property
    def created(self) -> float:
        """When it was announced, in seconds since the epoch."""
        return float(self._area.meta["created"])

    def take_meta(self) -> dict[str, Any]:
        """What its opener wanted to be kept, once: from then on it is kept on disk only."""
        meta: dict[str, Any] = self._area.meta.pop("meta")
        return meta

    @property
    def manifest(self) -> Manifest:
        """What is to be received; empty once it has been."""
        return self._area.manifest

    @property
    def growing(self) -> bool:
        """Whether further instances are still to be announced; it cannot be committed before."""
        return bool(self._area.meta.get(GROWING))
