"""The commit report: what became of each instance of a transfer, as receiver and sender keep it in the same format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.model import Instance


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What became of one instance."""

    instance: Instance
    outcome: str
    """``stored``, ``already there``, ``filtered``, ``refused``, …"""
    reason: str | None = None
    """One sentence, if there is one to tell."""
    original: str | None = None
    """The instance that this one was made of, if that has another identifier."""

    def to_json(self) -> dict[str, Any]:
        """One row of ``Instances``."""
        row: dict[str, Any] = {
            "ID": self.instance.id,
            "MD5": self.instance.md5,
            "Size": self.instance.size,
            "Outcome": self.outcome,
        }
        if self.reason is not None:
            row["Reason"] = self.reason
        if self.original is not None:
            row["Original"] = self.original
        return row


@dataclass(frozen=True, slots=True)
class CommitReport:
    """The report of one transfer that was committed, or failed."""

    id: str
    kind: str
    """``push`` or ``pull``."""
    direction: str
    """``send`` or ``receive``."""
    peer: str | None
    """The other side: a peer's name, or what the sender of a push calls its transfer."""
    created: float
    """Seconds since the epoch."""
    ending: Mapping[str, Any]
    """How it ended: ``State``, ``Finished`` (seconds since the epoch), and ``Report`` or ``Error``."""
    instances: Sequence[InstanceOutcome]
    sender_name: str | None = None
    """Of a push that was received: the name that its sender gives itself, and where it says that it is."""
    remote_address: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As kept on disk, and shown by ``GET /transfers/reports/{id}``. ``TotalSize`` is a string, as in Orthanc."""
        sender = {"SenderName": self.sender_name, "RemoteAddress": self.remote_address}
        return {
            "ID": self.id,
            "Kind": self.kind,
            "Direction": self.direction,
            "Peer": self.peer,
            **{key: value for key, value in sender.items() if value is not None},
            "Created": self.created,
            **self.ending,
            "TotalInstances": len(self.instances),
            "TotalSize": str(sum(one.instance.size for one in self.instances)),
            "Instances": [one.to_json() for one in self.instances],
        }
