"""What all incoming transfers of this server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.interfaces import Clock, InstanceStore
from orthanc_transfers.receiver.changed_instances import ChangedInstances
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.recycling import Recycling
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import SharedInstances
from orthanc_transfers.receiver.staging import Needed
from orthanc_transfers.receiver.undo_retries import UndoRetries
from orthanc_transfers.runtime.cancellation import Cancellation


@dataclass(frozen=True, slots=True)
class ReceiverServices:
    """Shared by all incoming transfers."""

    store: InstanceStore
    reports: Reports
    clock: Clock
    threads: int
    """Number of threads that import, or verify, at a commit."""
    closing: Cancellation
    """The server stops, or another node of the cluster has all transfers."""
    ending: Cancellation
    """The server stops."""
    shared_instances: SharedInstances
    changed_instances: ChangedInstances
    accept_renamed: bool
    """An instance may be stored with another identifier than announced (``AcceptChangedIdentifiers``)."""
    undo_retries: UndoRetries
    fatal: FatalInstances
    ended: Callable[..., None]
    """Called once with each transfer that is committed, fails or is discarded."""
    ownership: Ownership
    """Of the cluster, if this server is in one."""
    recycling: Recycling | None = None
    """If Orthanc limits what it stores."""
    extras: ExtrasPolicy | None = None
    """What is taken beside DICOM."""
    reserve: Callable[[str, Needed], None] = lambda identifier, needed: None
    """Reserve further room for a transfer. Raises ``NoSpace``."""
