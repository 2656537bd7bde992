"""What an error of the operating system, in the staging directory, means to a user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from orthanc_transfers.core.errors import Corrupted, NoSpace, TransferError

MAKE_ROOM = "make room there, then resubmit the job"


def disk_error(error: OSError) -> TransferError:
    """``NoSpace`` for a full disk, else a ``TransferError`` that says what to look at."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk of the staging directory is full ({error.strerror}): {MAKE_ROOM}")
    return TransferError(
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
