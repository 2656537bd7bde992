"""A transfer to be received, as its client announces it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.announced import GROWING


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A transfer to be received, as its client announces it."""

    token: str
    """Chosen by the client: the same token is the same transfer."""
    manifest: Manifest
    kind: str
    """``push`` or ``pull``."""
    check_stored: bool
    """What Orthanc has with the announced MD5 is not missing."""
    resumable: bool = True
    """The sender can send missing bytes again, and understands a refusal (all but pushes of version 1)."""
    in_memory: bool = False
    """All its bytes follow at once: they need no file if there is memory for them."""
    more: int = 0
    """Number of instances to be announced later, behind these: by the same token with all of them. It is not
    committed before."""
    patients: Collection[str] | None = None
    """Identifiers of the patients of all these instances, if known."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """JSON that is kept on disk for the client."""
    peer: str | None = None
    """Who sends, for the commit report."""
    sender_name: str | None = None
    """The name that the sender gives itself."""
    originator: str | None = None
    """The process of the sender, as its capabilities have it."""
    remote_address: str | None = None
    """From where it sends, if known."""
    aliases: Sequence[str] = ()
    """By what else than token and identifier the commit report is found; empty ones are ignored."""
    patience: float = 0.0
    """Seconds to wait where the servers of a cluster receive as many pushes as they may."""

    def area_meta(self, created: float) -> dict[str, Any]:
        """What is kept of it beside the manifest; ``created`` in seconds since the epoch."""
        return {
            "kind": self.kind,
            "token": self.token,
            "resumable": self.resumable,
            GROWING: bool(self.more),
            "peer": self.peer,
            "sender_name": self.sender_name,
            "originator": self.originator,
            "remote_address": self.remote_address,
            "created": created,
            "aliases": [self.token, *filter(None, self.aliases)],
            "meta": dict(self.meta),
        }

    @staticmethod
    def told(meta: Mapping[str, Any]) -> dict[str, Any]:
        """What a cluster needs to know of ``area_meta``: not the plan of a version-1 push, which may be long."""
        return {**meta, "meta": {key: value for key, value in meta["meta"].items() if key != "buckets"}}
