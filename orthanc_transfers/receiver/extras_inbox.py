"""What comes with an incoming transfer beside DICOM, until its commit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from orthanc_transfers.core.errors import Conflict
from orthanc_transfers.core.extras import ExtrasMessage
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.extras_commit import ExtrasCommit, ExtrasPolicy
from orthanc_transfers.receiver.extras_folder import ExtrasFolder
from orthanc_transfers.receiver.staging import Needed


class ExtrasInbox:
    """Of the transfer in ``area``. ``reserve`` reserves room for it, ``admit`` raises unless it is receiving.

    Files are used within ``guarded``. Thread-safe.
    """

    def __init__(
        self,
        area: Area,
        policy: ExtrasPolicy | None,
        reserve: Callable[[str, Needed], None],
        admit: Callable[[], None],
        guarded: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._id = area.id
        self._policy = policy
        self._reserve = reserve
        self._admit = admit
        self._guarded = guarded
        self._lock = threading.Lock()
        self._reserved = 0
        self._folder = ExtrasFolder(area.directory) if area.takes_extras and policy is not None else None

    def take(self, part: ExtrasMessage) -> list[int]:
        """Stage a list of labels, metadata and attachments, or its next part; one that begins anew replaces it.

        Returns the indices of the attachments whose bytes are to be written, once the list is whole. Raises
        ``Conflict``, ``TooLarge``, ``NoSpace``.
        """
        self._admit()
        folder = self._usable()
        with self._lock, self._guarded():
            whole = folder.take(part)
            if whole.more:
                return []
            needed = ExtrasCommit(folder, self._policy).needed()
            size = sum(folder.item(index).size for index in needed)
            if size > self._reserved:
                self._reserve(self._id, Needed(size - self._reserved, len(needed)))
                self._reserved = size
        return needed

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """Stage bytes of an attachment. Raises ``Conflict``, ``BadRequest``, ``Corrupted``, ``NoSpace``."""
        self._admit()
        with self._lock, self._guarded():
            self._usable().write(index, offset, data)

    def check_whole(self) -> None:
        """Raise ``Conflict`` if a further part of the list is to come."""
        if self._folder is None:
            return
        with self._guarded():
            message = self._folder.message()
        if message is not None and message.more:
            raise Conflict(f"transfer {self._id} waits for the rest of its labels, metadata and attachments")

    def new_commit(self) -> ExtrasCommit:
        """For one attempt at committing the transfer."""
        return ExtrasCommit(self._folder, self._policy)

    def delete(self) -> None:
        """It has ended."""
        if self._folder is not None:
            self._folder.delete()

    def _usable(self) -> ExtrasFolder:
        if self._folder is None:
            raise Conflict(f"transfer {self._id} takes no labels, metadata or attachments")
        return self._folder
