"""Puts back what a commit changed beside DICOM: labels, metadata and attachments as they were before it.

What is touched is what is as that commit wrote it, and nothing that was changed since. What Orthanc refuses stays in
the plan, to be tried again (``undo_retries.py``); the other items do not wait for it.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import Conflict, TransferError
from orthanc_transfers.core.extras import Extra, Kind
from orthanc_transfers.interfaces import ExtrasStore, Held
from orthanc_transfers.receiver.extras_folder import ExtrasFolder

# Times that a value is read and written anew because another client wrote it meanwhile.
_ATTEMPTS = 5

_FOLDER = "beside-"

one_at_a_time = threading.Lock()
"""Held while items are applied or put back: what one commit finds there must not be what another will undo. (Each takes
milliseconds an item.)"""


@dataclass(frozen=True, slots=True)
class Step:
    """One item to be applied, and what was there before."""

    index: int
    extra: Extra
    before: Held | None

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"Index": self.index, "Item": self.extra.to_json()}
        if self.before is not None:
            data = b"" if self.extra.kind is Kind.ATTACHMENT else self.before.data
            value["Before"] = {"MD5": self.before.md5, "Data": base64.b64encode(data).decode()}
        return value

    @classmethod
    def parse(cls, value: Any) -> Step:
        held = value.get("Before")
        before = None if held is None else Held(held["MD5"], base64.b64decode(held["Data"]))
        return cls(value["Index"], Extra.parse(value["Item"]), before)

    def stands(self, held: Held | None) -> bool:
        """Whether what was there before still is."""
        return (held is None) == (self.before is None) and (
            held is None or self.before is None or held.md5 == self.before.md5
        )


def put_back(folder: ExtrasFolder, store: ExtrasStore, sync: Callable[[], None]) -> list[str]:
    """Put back what the plan in a folder says was there before, and forget what is settled, once it is synced.

    Returns why the others were refused, one sentence each: they stay in the plan. Raises ``TransferError``,
    ``OSError``, ``ValueError``, ``KeyError`` if that cannot be read or written.
    """
    with one_at_a_time:
        planned = folder.before()
        if planned is None:
            return []
        left: list[Any] = []
        refused: list[str] = []
        for step in reversed(planned["Steps"]):
            try:
                _put_back_one(folder, store, Step.parse(step))
            except TransferError as error:
                left.insert(0, step)
                refused.append(f"{Extra.parse(step['Item']).shown}: {error}")
        if len(left) < len(planned["Steps"]):
            sync()
            _keep(folder, planned, left)
        return refused


def count(folder: ExtrasFolder) -> int:
    """How many items the plan in a folder has. Raises as ``put_back`` does."""
    planned = folder.before()
    return 0 if planned is None else len(planned["Steps"])


class UnfinishedExtras:
    """What is still to be put back of one transfer: plans, each in a folder of its own below ``directory``.

    One attempt at committing the transfer leaves one. Methods raise as ``put_back`` does.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def next_folder(self) -> Path:
        """For one plan more."""
        return self._directory / f"{_FOLDER}{len(self._folders())}"

    @property
    def left(self) -> int:
        """How many items."""
        return sum(count(folder) for folder in self._folders())

    def put_back(self, store: ExtrasStore, sync: Callable[[], None]) -> list[str]:
        """Put back what Orthanc lets. Returns why it refused the others, one sentence each."""
        return [why for folder in self._folders() for why in put_back(folder, store, sync)]

    def leave_alone(self, items: Collection[Extra]) -> None:
        """Forget what another transfer succeeds with. To be called with ``one_at_a_time`` held."""
        places = {_place(one) for one in items}
        for folder in self._folders():
            planned = folder.before()
            if planned is not None:
                left = [step for step in planned["Steps"] if _place(Extra.parse(step["Item"])) not in places]
                if len(left) < len(planned["Steps"]):
                    _keep(folder, planned, left)

    def _folders(self) -> list[ExtrasFolder]:
        """The last one first: what it found is what the ones before had written."""
        found = self._directory.glob(f"{_FOLDER}*")
        return [
            ExtrasFolder(path)
            for path in sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)
        ]


def _place(extra: Extra) -> Any:
    return extra.resource, extra.kind, extra.name if extra.kind is Kind.LABEL else extra.number


def _keep(folder: ExtrasFolder, planned: Any, steps: list[Any]) -> None:
    if steps:
        folder.keep_before({**planned, "Steps": steps})
    else:
        folder.forget_before()


def _put_back_one(folder: ExtrasFolder, store: ExtrasStore, step: Step) -> None:
    extra = step.extra

    def attempt() -> None:
        held = store.held(extra)
        if held is None or not same(extra, held):
            return  # not applied, gone with its resource, or changed since
        if step.before is None:
            store.remove(extra, held)
        else:
            attachment = extra.kind is Kind.ATTACHMENT
            store.put(extra, folder.before_attachment(step.index) if attachment else step.before.data, held)

    retried(attempt)


def retried(attempt: Callable[[], None]) -> None:
    """Another client may write the same value at the same moment: its revision is read anew then."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(Conflict):
            attempt()
            return
    attempt()


def same(extra: Extra, held: Held) -> bool:
    match extra.kind:
        case Kind.LABEL:
            return True
        case Kind.ATTACHMENT:
            return held.md5 == extra.md5
    return held.data == extra.value.encode()
