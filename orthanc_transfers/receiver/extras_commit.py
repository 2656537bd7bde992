"""Applies what a transfer brings beside DICOM, at the end of its commit; and undoes that.

    what is there now ─▶ fsynced ─▶ labels, metadata, attachments ─▶ (the outcome of the commit)
                            │                   │
             a process that dies from here on   └─▶ undo: what was there before is put back
             goes on at its next start

An existing value is kept unless the sender says ``Overwrite``. The undo touches what is as this commit wrote it, and
nothing that was changed since. Orthanc's index is fsynced with the rest of the commit.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import Conflict, HostError, ImportRefused, TransferError
from orthanc_transfers.core.extras import MAX_VALUE, Accepted, Extra, Kind
from orthanc_transfers.core.model import Level, Manifest
from orthanc_transfers.interfaces import ExtrasStore
from orthanc_transfers.receiver.extras_folder import ExtrasFolder
from orthanc_transfers.receiver.extras_undo import Step, count, one_at_a_time, put_back, retried, same
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_MAX_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class ExtrasPolicy:
    """What this server takes from senders."""

    store: ExtrasStore
    accepted: Accepted
    origin_number: int = 0
    """Of the metadata for origins; 0: none."""

    @property
    def announced(self) -> Accepted:
        """What senders are told: of what is accepted, that which this Orthanc can keep."""
        origin = {Kind.ORIGIN} if self.origin_number else set()
        kinds = (self.accepted.kinds - {Kind.ORIGIN} | origin) & self.store.kinds
        return replace(self.accepted, kinds=frozenset(kinds))


class ExtrasCommit:
    """The items of one commit. ``counts`` and ``warnings`` tell of those applied last."""

    def __init__(self, folder: ExtrasFolder | None, policy: ExtrasPolicy | None) -> None:
        self._folder = folder
        self._policy = policy
        self.counts: Counter[str] = Counter()
        """How many of each kind are there now; of how many another value stayed; how many were not taken."""
        self.warnings: list[str] = []
        self._same: list[Extra] = []
        """What was there already, as it is to be."""

    def verify(self) -> None:
        """Raise ``ImportRefused`` unless all attachments that were sent are as they were announced."""
        message = None if self._folder is None else self._folder.message()
        for index, extra in enumerate(() if message is None else message.items):
            assert self._folder is not None
            if extra.kind is Kind.ATTACHMENT and self._wanted(extra) and not self._folder.has(index):
                raise ImportRefused(f"{extra.shown} is not here with its announced MD5: resubmit the job")

    def needed(self) -> list[int]:
        """Indices of the attachments whose bytes are to be sent."""
        folder = self._folder
        message = None if folder is None else folder.message()
        if folder is None or message is None:
            return []
        return [
            index
            for index, extra in enumerate(message.items)
            if extra.kind is Kind.ATTACHMENT and self._wanted(extra) and not folder.has(index)
        ]

    def _wanted(self, extra: Extra) -> bool:
        """Whether the bytes of an attachment are needed, as far as is known before the import."""
        policy = self._policy
        if policy is None or not policy.announced.takes(extra):
            return False
        resolved = policy.store.resolved(extra)
        if isinstance(resolved, str):
            return False
        held = policy.store.held(resolved)
        return held is None or (self._overwrite and held.md5 != extra.md5)

    @property
    def _overwrite(self) -> bool:
        message = None if self._folder is None else self._folder.message()
        return message is not None and message.overwrite

    def apply(
        self,
        manifest: Manifest,
        cancellation: Cancellation,
        relied: Callable[[Collection[Extra]], None] = lambda _: None,
    ) -> bool:
        """Apply all; goes on with what an earlier process began. Returns whether anything was changed.

        ``manifest``: what the transfer brought; what belongs to other instances is not touched. ``relied`` is called
        with what was there already, as it is to be. Raises ``TransferError``, ``Canceled``.
        """
        folder, policy = self._folder, self._policy
        if folder is None or policy is None or folder.message() is None:
            return False
        self.counts, self.warnings, self._same = Counter(), [], []
        with one_at_a_time:
            planned = folder.before()
            if planned is None:
                steps = self._plan(folder, policy, manifest, cancellation)
                planned = {
                    "Steps": steps,
                    "Same": [one.to_json() for one in self._same],
                    "Counts": self.counts,
                    "Warnings": self.warnings,
                }
                folder.keep_before(planned)
            else:
                self.counts, self.warnings = Counter(planned["Counts"]), planned["Warnings"]
            for step in planned["Steps"]:
                cancellation.check()
                self._apply_one(folder, policy.store, Step.parse(step))
            # An earlier version kept no such list.
            relied([Extra.parse(one) for one in planned.get("Same", ())])
        if self.warnings:
            log.warning("not all labels, metadata and attachments were taken: %s", "; ".join(self.warnings))
        self.counts = +self.counts
        return bool(planned["Steps"])

    def undo(self, sync: Callable[[], None] = lambda: None) -> tuple[int, int]:
        """Put back what was there before, and ``sync``. Returns how many items were refused, and how many there were.

        Never raises. What was refused is named in the log, and still in the plan: see ``leave``.
        """
        folder, policy = self._folder, self._policy
        if folder is None or policy is None:
            return 0, 0
        total = 0
        try:
            total = count(folder)
            refused = put_back(folder, policy.store, sync)
        except (TransferError, OSError, ValueError, KeyError) as error:
            log.error("labels, metadata or attachments of a transfer could not all be taken back: %s", error)
            return total, total
        if refused:
            log.error(
                "%d labels, metadata or attachments of a transfer could not be taken back: %s",
                *(len(refused), "; ".join(refused[:_MAX_WARNINGS])),
            )
        return len(refused), total

    def leave(self, directory: Path) -> None:
        """Hand the plan of what is still to be put back over to another folder. Raises ``TransferError``."""
        if self._folder is not None:
            self._folder.hand_over(directory)

    # --- the steps

    def _plan(
        self, folder: ExtrasFolder, policy: ExtrasPolicy, manifest: Manifest, cancellation: Cancellation
    ) -> list[Any]:
        message = folder.message()
        assert message is not None
        instances = {one.id for one in manifest}
        known: dict[Any, bool] = {}
        steps = []
        for index, sent in enumerate(message.items):
            cancellation.check()
            extra = self._resolved(policy, sent, message.sender)
            if extra is None:
                continue
            if extra.resource not in known:
                known[extra.resource] = (
                    extra.resource.level is not Level.INSTANCE or extra.resource.id in instances
                ) and policy.store.holds_any(extra.resource, instances, cancellation)
            if not known[extra.resource]:
                self._skip(f"{extra.shown}: no instance of it is here by this transfer")
                continue
            held = policy.store.held(extra)
            if held is not None and not message.overwrite and not same(extra, held):
                # Where a series came from first is no value of its users.
                self.counts["ExtrasKept"] += sent.kind is not Kind.ORIGIN
                continue
            if sent.kind is not Kind.ORIGIN:
                self.counts[extra.kind.value] += 1
            if held is not None and same(extra, held):
                self._same.append(extra)
                continue
            if held is not None and extra.kind is Kind.ATTACHMENT:
                folder.keep_before_attachment(index, held.data)
            steps.append(Step(index, extra, held).to_json())
        return steps

    def _resolved(self, policy: ExtrasPolicy, sent: Extra, sender: str) -> Extra | None:
        """The item as it is to be here; ``None`` if it is not taken."""
        if not policy.announced.takes(sent):
            self._skip(f"{sent.shown}: AcceptMetadata does not have it")
            return None
        if sent.kind is Kind.ORIGIN:
            return _origin(sent, sender, policy.origin_number)
        resolved = policy.store.resolved(sent)
        if isinstance(resolved, str):
            self._skip(resolved)
            return None
        return resolved

    def _skip(self, why: str) -> None:
        self.counts["ExtrasSkipped"] += 1
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(why)

    def _apply_one(self, folder: ExtrasFolder, store: ExtrasStore, step: Step) -> None:
        extra = step.extra
        data = folder.read(step.index) if extra.kind is Kind.ATTACHMENT else extra.value.encode()

        def attempt() -> None:
            held = store.held(extra)
            if held is None or not same(extra, held):
                if not step.stands(held):
                    raise Conflict("another client changed it")  # since it was looked at: that is kept
                store.put(extra, data, held)

        try:
            retried(attempt)
        except Conflict as error:
            self._skip(f"{extra.shown}: {error}")
        except (HostError, ImportRefused) as error:
            raise ImportRefused(f"{extra.shown} cannot be stored: {error}") from error


def _origin(sent: Extra, sender: str, number: int) -> Extra:
    """The metadata that tells an origin."""
    try:
        told = json.loads(sent.value)
    except (ValueError, RecursionError):
        told = None
    origin = {"Peer": sender, **(told if isinstance(told, dict) else {})}
    return Extra(sent.resource, Kind.METADATA, "", number, json.dumps(origin)[:MAX_VALUE])
