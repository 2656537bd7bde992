"""What an incoming transfer brings beside DICOM, as staged in its folder.

    extras           the list, JSON (``ExtrasMessage``)
    attachment-N     the bytes of the N-th item
    extras-before    while they are applied: what was there before (``extras_commit.py``)
    before-N         an attachment that was there before

Each is fsynced before it is relied on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import BadRequest, Conflict, Corrupted
from orthanc_transfers.core.extras import Extra, ExtrasMessage, Kind
from orthanc_transfers.receiver.disk_errors import disk_errors
from orthanc_transfers.runtime import files

_LIST = "extras"
_BEFORE = "extras-before"
_BLOCK = 1024 * 1024


class ExtrasFolder:
    """The files of one transfer. One thread at a time changes them; raises ``NoSpace`` for a full disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._list: ExtrasMessage | None = None

    def message(self) -> ExtrasMessage | None:
        """The list as far as it has come; ``None`` if there is none. Raises ``BadRequest`` if it cannot be read."""
        if self._list is None:
            with contextlib.suppress(FileNotFoundError):
                try:
                    self._list = ExtrasMessage.parse(json.loads((self._directory / _LIST).read_bytes()))
                except (ValueError, RecursionError) as error:
                    raise BadRequest(f"the list of labels and metadata is damaged: {error}") from error
        return self._list

    def take(self, part: ExtrasMessage) -> ExtrasMessage:
        """Keep a list, or its next part. Returns all so far. Raises ``Conflict``, ``TooLarge``."""
        whole = part
        if part.before:
            known = self.message()
            count = 0 if known is None else len(known.items)
            if known is None or count != part.before:
                raise Conflict(f"{count} items are known, and not {part.before}: send them from the first on")
            whole = known.extended(part)
        elif self._knows(part):
            return part  # said once more, after a restart of the sender: what has arrived is kept
        else:
            self.delete()
        with disk_errors():
            content = json.dumps(whole.to_json()).encode()
            files.replace(self._directory / _LIST, content, synced=True)
            files.sync(self._directory)
        self._list = whole
        return whole

    def _knows(self, message: ExtrasMessage) -> bool:
        with contextlib.suppress(BadRequest):
            return message == self.message()
        return False

    # --- attachments

    def item(self, index: int) -> Extra:
        """The attachment at an index of the list. Raises ``BadRequest``."""
        message = self.message()
        items = () if message is None else message.items
        if index >= len(items) or items[index].kind is not Kind.ATTACHMENT:
            raise BadRequest(f"item {index} is no attachment that was announced")
        return items[index]

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """Bytes of an attachment. Raises ``BadRequest``; ``Corrupted`` if it is whole now, and its MD5 is wrong."""
        item = self.item(index)
        if offset + len(data) > item.size:
            raise BadRequest(f"{item.shown} has {item.size} bytes")
        path = self._attachment(index)
        with disk_errors():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                files.write_at(fd, data, offset)
                if offset + len(data) < item.size:
                    return
                os.fsync(fd)
            finally:
                os.close(fd)
            files.sync(self._directory)
        if not self.has(index):
            path.unlink(missing_ok=True)
            raise Corrupted(f"{item.shown} does not have the announced MD5: send it again")

    def has(self, index: int) -> bool:
        """Whether an attachment is here, with its MD5."""
        item, digest, size = self.item(index), hashlib.md5(usedforsecurity=False), 0
        path = self._attachment(index)
        if not path.exists():
            return False
        with disk_errors(), open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
        return size == item.size and digest.hexdigest() == item.md5

    def read(self, index: int) -> bytes:
        """An attachment. Raises ``TransferError``."""
        with disk_errors():
            return self._attachment(index).read_bytes()

    def _attachment(self, index: int) -> Path:
        return self._directory / f"attachment-{index}"

    # --- what was there before

    def before(self) -> Any | None:
        """What ``keep_before`` wrote last, ``None`` if nothing is."""
        try:
            return json.loads((self._directory / _BEFORE).read_bytes())
        except FileNotFoundError:
            return None

    def keep_before_attachment(self, index: int, data: bytes) -> None:
        """The attachment that an item replaces."""
        with disk_errors():
            files.replace(self._directory / f"before-{index}", data, synced=True)

    def before_attachment(self, index: int) -> bytes:
        """The inverse."""
        with disk_errors():
            return (self._directory / f"before-{index}").read_bytes()

    def keep_before(self, content: Any) -> None:
        """Survives a power failure, and what ``keep_before_attachment`` wrote does too."""
        with disk_errors():
            files.replace(self._directory / _BEFORE, json.dumps(content).encode(), synced=True)
            files.sync(self._directory)

    def forget_before(self) -> None:
        """All of it is there again. Survives a power failure."""
        with disk_errors():
            (self._directory / _BEFORE).unlink(missing_ok=True)
            for path in self._directory.glob("before-*"):
                path.unlink()
            files.sync(self._directory)

    def hand_over(self, directory: Path) -> None:
        """Move what ``keep_before`` wrote, and the attachments, to another folder. Survives a power failure."""
        with disk_errors():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The plan last: without it the others mean nothing.
            for path in [*self._directory.glob("before-*"), self._directory / _BEFORE]:
                os.replace(path, directory / path.name)
            for folder in (directory, directory.parent, self._directory):
                files.sync(folder)

    def delete(self) -> None:
        """All files."""
        self._list = None
        for path in self._files():
            with contextlib.suppress(OSError):
                path.unlink()

    def _files(self) -> Iterator[Path]:
        yield from (self._directory / _LIST, self._directory / _BEFORE)
        yield from self._directory.glob("attachment-*")
        yield from self._directory.glob("before-*")
