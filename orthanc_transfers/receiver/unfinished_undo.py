"""An undo that Orthanc did not let finish (its index is on a full disk, say): what is still to be deleted, on disk.

undos/<transfer>/undo        JSON, replaced whenever something of it is settled
undos/<transfer>/importing   what is being deleted at this moment (``import_log.py``)
undos/<transfer>/beside-N    labels, metadata and attachments that are still to be put back (``extras_undo.py``)

When all is settled, all of it is deleted. Who tries again is in ``undo_retries.py``.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.extras_undo import UnfinishedExtras
from orthanc_transfers.receiver.verdicts import VERDICT_TEXTS, Verdict
from orthanc_transfers.runtime import files

NOTHING_KEPT = "nothing was kept"
"""What a failed commit says, as long as it is so."""

GIVEN_UP = "Orthanc ended twice while it was being deleted again: it is not tried any more, delete it by hand"

_FILE = "undo"


class ExtrasLeft(NamedTuple):
    """Labels, metadata and attachments that are not yet as they were before."""

    left: int = 0
    total: int = 0


NO_EXTRAS = ExtrasLeft()

_STATE = re.compile(
    r"[0-9]+ of [0-9]+ (?:instances|labels, metadata and attachments) (?:is|are) still here, on the receiving server,"
    r" (?:and the undo goes on|for Orthanc ended while deleting: delete by hand)"
)


def tells_of_rest(error: str) -> bool:
    """Whether what a failed commit says, or quotes, is that something is still here."""
    return _STATE.search(error) is not None


def retold(error: str, now: str) -> str:
    """``error``, which quotes what a failed commit said, with what it says ``now`` of what is still here."""
    state = _STATE.search(now)
    return _STATE.sub(state[0] if state else NOTHING_KEPT, error, count=1)


def told(error: str, left: int, total: int, *, given_up: bool = False, extras: ExtrasLeft = NO_EXTRAS) -> str:
    """The sentence of a commit that failed, while ``left`` of ``total`` instances that it imported are still here.

    Of ``extras`` it tells once the instances are deleted.
    """
    what = "instances"
    if not left:
        left, total, given_up, what = *extras, False, "labels, metadata and attachments"
    if not left:
        return error
    state = (
        f"{left} of {total} {what} {'is' if left == 1 else 'are'} still here, on the receiving server, "
        + ("for Orthanc ended while deleting: delete by hand" if given_up else "and the undo goes on")
    )
    return error.replace(NOTHING_KEPT, state, 1) if NOTHING_KEPT in error else f"{error}; {state}"


@dataclass(frozen=True, slots=True)
class Leftover:
    """An instance that a commit imported, and that is still to be deleted."""

    index: int
    """In the manifest; beyond its end for one that was stored as another instance."""
    id: str
    received: str | None
    """When Orthanc received it, as it says: what was stored anew since then belongs to others."""
    deaths: int = 0
    """How often Orthanc had died while it was being deleted, before this was written."""


class Settled(NamedTuple):
    """What became of a leftover at last, as in a commit report."""

    outcome: str
    reason: str | None


class UnfinishedUndo:
    """Of one transfer. Thread-safe.

    ``error``: why its commit failed, if it ended so; it goes on receiving otherwise. ``total``: of its manifest.
    """

    def __init__(
        self,
        directory: Path,
        *,
        total: int,
        error: str | None,
        left: Iterable[Leftover],
        settled: Mapping[str, Settled] | None = None,
        extras: ExtrasLeft = NO_EXTRAS,
    ) -> None:
        self.directory = directory
        self.id = directory.name
        self.error = error
        self.total = total
        self._lock = threading.Lock()
        self._left = {one.id: one for one in left}
        self._settled = dict(settled or {})
        self._extras = extras
        self.beside = UnfinishedExtras(directory)
        self.durable = False
        """Whether the disk has it as it is here."""

    @classmethod
    def load(cls, directory: Path) -> UnfinishedUndo:
        """What an earlier process left. Raises ``OSError``, ``ValueError``, ``KeyError``, ``TypeError``."""
        content = json.loads((directory / _FILE).read_bytes())
        undo = cls(
            directory,
            total=content["Total"],
            error=content["Error"],
            left=[Leftover(*one) for one in content["Left"]],
            settled={key: Settled(*value) for key, value in content["Settled"].items()},
            extras=ExtrasLeft(*content.get("Extras", ())),
        )
        undo.durable = True
        return undo

    def find(self, identifier: str) -> Leftover | None:
        """An instance that is left."""
        with self._lock:
            return self._left.get(identifier)

    @property
    def left(self) -> list[Leftover]:
        """What is still to be deleted, what was postponed last."""
        with self._lock:
            return list(self._left.values())

    @property
    def text(self) -> str | None:
        """Why the commit failed, and what is still here."""
        with self._lock:
            if self.error is None:
                return None
            stuck = sum(one.reason == GIVEN_UP for one in self._settled.values())
            left = len(self._left) + stuck
            return told(self.error, left, self.total, given_up=not self._left, extras=self._extras)

    @property
    def extras(self) -> ExtrasLeft:
        """What is not as it was before, besides instances."""
        with self._lock:
            return self._extras

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        with self._lock:
            return not self._left and not self._extras.left

    @property
    def settled(self) -> dict[str, Settled]:
        """By identifier."""
        with self._lock:
            return dict(self._settled)

    def extend(self, error: str | None, left: Collection[Leftover]) -> bool:
        """Take in what a later attempt of the same transfer left. Returns whether the disk has it."""
        with self._lock:
            self.error = error
            for one in left:
                self._settled.pop(one.id, None)
                self._left[one.id] = one
            return self._save()

    def extend_extras(self, error: str | None, more: ExtrasLeft) -> bool:
        """So many more of them are about to be left. Returns whether the disk has it."""
        with self._lock:
            self.error = error
            self._extras = ExtrasLeft(self._extras.left + more.left, self._extras.total + more.total)
            return self._save()

    def count_extras(self) -> None:
        """So many of them are left as the plans say. Raises ``TransferError``, ``OSError``, ``ValueError``."""
        with self._lock:
            left = ExtrasLeft(self.beside.left, self._extras.total)
            if left != self._extras:
                self._extras = left
                self._save()

    def postpone(self, item: Leftover) -> None:
        """Try the others before this one from now on."""
        with self._lock:
            if item.id in self._left:
                self._left[item.id] = self._left.pop(item.id)

    def settle(self, settled: Mapping[str, Settled]) -> None:
        """What this says of instances that are left is on disk when it returns, or nothing of this undo is."""
        with self._lock:
            fresh = {key: value for key, value in settled.items() if key in self._left}
            if not fresh:
                return
            for identifier in fresh:
                del self._left[identifier]
            self._settled |= fresh
            if not self._save():
                # Rather would something stay than that what another commit counts on is deleted at the next start.
                with contextlib.suppress(OSError):
                    (self.directory / _FILE).unlink()

    def keep(self, manifest: Manifest, reason: str) -> None:
        """Leave alone what another transfer is about to succeed with."""
        with self._lock:
            common = [one for one in self._left if one in manifest]
        self.settle({one: Settled(VERDICT_TEXTS[Verdict.STORED], reason) for one in common})

    def save(self) -> bool:
        """Write it to disk. Returns whether that worked."""
        with self._lock:
            return self._save()

    def _save(self) -> bool:
        content: dict[str, Any] = {
            "Total": self.total,
            "Error": self.error,
            "Left": [[one.index, one.id, one.received, one.deaths] for one in self._left.values()],
            "Settled": self._settled,
            "Extras": self._extras,
        }
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(self.directory / _FILE, json.dumps(content).encode(), synced=True)
            for folder in (self.directory, self.directory.parent, self.directory.parent.parent):
                files.sync(folder)
        except OSError:
            self.durable = False
        else:
            self.durable = True
        return self.durable

    def delete(self) -> None:
        """It is over."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()
