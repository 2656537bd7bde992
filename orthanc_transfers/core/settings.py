"""The section ``Transfers`` of Orthanc's configuration -> ``Settings``. Every bad value is named.

The first eight options are those of the C++ plugin, with its meaning; the defaults are its own except
where a comment says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

KB = 1024
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, in the unit that the configuration uses; properties give bytes."""

    Threads: int = 4
    """HTTP workers of one transfer."""
    BucketSize: int = 4096
    """KB that a bucket should have."""
    CacheSize: int = 512
    """MB of memory for DICOM files being sent, over all transfers."""
    MaxPushTransactions: int = 4
    """Pushes received at once."""
    MaxHttpRetries: int = 5
    """Retries of one request after an error of the network. 0 in the C++ plugin."""
    PeerConnectivityTimeout: int = 2
    """Seconds, for ``GET /transfers/peers``."""
    PeerCommitTimeout: int = 600
    """Seconds that a sender waits for a creation or a commit of version 1."""
    CommitThreadsCount: int = 4
    """Threads that import at a commit. 1 in the C++ plugin."""

    # Our own.
    StagingDirectory: str = ""
    """Folder for what is being received; default: ``Transfers`` below Orthanc's ``StorageDirectory``."""
    MaxStagingSize: int = 0
    """MB that all transfers being received may take on disk together; 0: as much as the disk has."""
    MaxManifestInstances: int = 1_000_000
    """Most instances in one transfer."""
    PushIdleTimeout: int = 3600
    """Seconds without a request after which a push being received is dropped."""
    MaxOutage: int = 600
    """Seconds that a job waits for a peer that does not answer before it fails."""
    ReportRetention: int = 30
    """Days that commit reports are kept."""
    MaxBandwidth: int = 0
    """Mbit/s that all sending and fetching together may use; 0: no limit."""
    MaxPeerBandwidth: int = 0
    """Mbit/s that sending to or fetching from one peer may use; 0: no limit."""
    CongestionControl: str = "auto"
    """TCP congestion control of our own sockets: ``auto`` (BBR where the kernel has it), ``system``, or a name."""
