"""One transfer of this server, active or ended, whoever carries it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHOWN_RESOURCES = 10
"""Resources of an order that are shown; all of them are counted."""

SEND, RECEIVE = "send", "receive"
"""The directions, seen from this server."""

PUSH, PULL = "push", "pull"
"""The modes."""


class TransferState(enum.Enum):
    """State of a transfer, and of its job if it is one."""

    PENDING = "Pending"
    """In the queue of Orthanc."""
    RUNNING = "Running"
    WAITING = "Waiting"
    """For its peer, or for a slot there; goes on by itself."""
    PAUSED = "Paused"
    """By a user."""
    SUCCESS = "Success"
    FAILURE = "Failure"
    CANCELED = "Canceled"


ENDED_STATES = frozenset({TransferState.SUCCESS, TransferState.FAILURE, TransferState.CANCELED})


@dataclass(frozen=True, slots=True)
class StudyText:
    """Who and what a transfer carries, as Orthanc's index has it."""

    patient_id: str
    patient_name: str
    study: str | None = None
    """Orthanc's identifier of the study; ``None`` where only the patient is known, as all below."""
    description: str = ""
    date: str = ""
    """``YYYYMMDD`` as in DICOM."""
    modality: str = ""
    """Of its first series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecord:
    """Sizes in bytes, times in seconds since the epoch, speeds in bytes per second; ``None`` for what is unknown."""

    id: str
    """The identifier of the job; of a push that was received, its own."""
    job: str | None = None
    direction: str
    mode: str
    peer: str | None = None
    remote_address: str | None = None
    state: TransferState
    phase: str | None = None
    resources: Sequence[Mapping[str, Any]] = ()
    """Each with ``Level`` and ``ID``; at most ``SHOWN_RESOURCES``."""
    resources_count: int = 0
    instances: int | None = None
    done_instances: int | None = None
    size: int | None = None
    done_size: int | None = None
    wire_size: int | None = None
    """Bytes on the network."""
    speed: int | None = None
    seconds_left: int | None = None
    ratio: float | None = None
    """Bytes before the codecs by bytes after."""
    codecs: Mapping[str, int] = field(default_factory=dict)
    """Number of buckets by codec."""
    compression: str | None = None
    """As asked for."""
    compression_used: str | None = None
    """As that is taken with this peer."""
    waiting: str | None = None
    """What it waits for, one sentence."""
    waiting_since: float | None = None
    error: str | None = None
    peer_failed: bool = False
    """Whether it failed since its peer was not there."""
    priority: int | None = None
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    transaction: str | None = None
    """The identifier of its commit report."""
    order: Mapping[str, Any] | None = None
    """The body of the request that makes the same transfer again, if there is one."""


def shown_resources(resources: Sequence[Any]) -> list[dict[str, str]]:
    """``Level`` and ``ID`` of the first resources (``core.model.Resource``) of an order."""
    return [{"Level": one.level.value, "ID": one.id} for one in resources[:SHOWN_RESOURCES]]
