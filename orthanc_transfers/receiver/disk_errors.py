"""What an error of the operating system, in the staging directory, means to a user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from orthanc_transfers.core.errors import Corrupted, NoSpace, TransferError
from orthanc_transfers.receiver.ownership import Ownership


class DiskFailed(TransferError):
    """A file or folder of the staging directory cannot be used, or is gone."""


MAKE_ROOM = "make room there, then resubmit the job"


def disk_error(error: OSError) -> TransferError:
    """``NoSpace`` for a full disk, else ``DiskFailed``, which says what to look at."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk of the staging directory is full ({error.strerror}): {MAKE_ROOM}")
    return DiskFailed(
        f"the staging directory cannot be used ({error}): check that StagingDirectory exists and is writable,"
        " then resubmit the job"
    )


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn each ``OSError`` into a ``disk_error``, and the unexpected end of an area into ``Corrupted``."""
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error
    except EOFError as error:
        raise Corrupted("the area on disk is shorter than its manifest") from error


@contextlib.contextmanager
def lost_with_lease(ownership: Ownership) -> Iterator[None]:
    """Turn ``DiskFailed`` into ``Fenced`` where another node of the cluster has taken the files over meanwhile.

    This node may have been stopped at any point, and know nothing of it before it asks.
    """
    try:
        yield
    except DiskFailed:
        ownership.check()
        raise
