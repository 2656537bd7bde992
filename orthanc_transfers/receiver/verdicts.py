"""What became of an instance, judged by what Orthanc returned for its import.

Success                                    stored
AlreadyStored, same MD5                    already there
AlreadyStored, changed by this server      already there, changed: its own records show that it stored these bytes
AlreadyStored, another transfer syntax     already there: the same image in another encoding
AlreadyStored, a transfer syntax unknown   already there, not comparable: no conflict is claimed
AlreadyStored, other bytes                 a conflict: refused (version 1: a warning)
FilteredOut                                counts: the policy of this server; named in the report
another identifier than the manifest's     refused, or stored as another instance (AcceptChangedIdentifiers)
an error                                   refused
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from orthanc_transfers.core import dicom
from orthanc_transfers.core.errors import ImportRefused
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.interfaces import Imported, ImportStatus, InstanceStore
from orthanc_transfers.receiver.changed_instances import ChangedInstances

log = logging.getLogger(__name__)


class Verdict(enum.IntEnum):
    """What became of an instance."""

    PENDING = 0
    STORED = 1
    ALREADY_THERE = 2
    FILTERED = 3
    REFUSED = 4
    UNDONE = 5
    RECYCLED = 6
    CHANGED = 7
    NOT_COMPARABLE = 8
    RENAMED = 9
    LEFT = 10


VERDICT_TEXTS = {
    Verdict.PENDING: "not imported",
    Verdict.STORED: "stored",
    Verdict.ALREADY_THERE: "already there",
    Verdict.FILTERED: "filtered",
    Verdict.REFUSED: "refused",
    Verdict.UNDONE: "undone",
    Verdict.RECYCLED: "recycled",
    Verdict.CHANGED: "already there, changed",
    Verdict.NOT_COMPARABLE: "already there, not comparable",
    Verdict.RENAMED: "stored as another instance",
    Verdict.LEFT: "still here",
}

THERE_BEFORE = (Verdict.ALREADY_THERE, Verdict.CHANGED, Verdict.NOT_COMPARABLE)
"""The verdicts of instances that Orthanc had before."""

CHANGED_HERE = "this server changed it when it stored it (a script, a plugin or IngestTranscoding)"
"""Why an instance has another MD5 than it was sent with."""


@dataclass(frozen=True, slots=True)
class Judge:
    """``strict``: a conflict is a refusal. ``accept_renamed``: this server may change identifiers."""

    store: InstanceStore
    changed: ChangedInstances
    strict: bool
    accept_renamed: bool

    def judge(
        self, instance: Instance, data: memoryview, imported: Imported, manifest: Manifest, *, before: bool
    ) -> tuple[Verdict, str | None]:
        """The verdict, and one sentence if it needs one. ``before``: this commit may have imported it before a restart.

        Raises ``ImportRefused``.
        """
        if imported.status is ImportStatus.FILTERED_OUT:
            return Verdict.FILTERED, "this server's policy does not keep it"
        if imported.id != instance.id:
            return self._judge_renamed(imported, manifest)
        if imported.status is ImportStatus.SUCCESS:
            return Verdict.STORED, None
        return self._judge_present(instance, data, before)

    def _judge_renamed(self, imported: Imported, manifest: Manifest) -> tuple[Verdict, str | None]:
        if imported.id in manifest:
            raise ImportRefused(f"its content is that of another instance of this transfer, {imported.id}")
        if not self.accept_renamed:
            raise ImportRefused(
                f"this server stores it as another instance, {imported.id}: the sender announced another"
                " identifier than that of the file, or a script or plugin of this server changes identifiers;"
                " if it shall, set AcceptChangedIdentifiers here"
            )
        there = "stored" if imported.status is ImportStatus.SUCCESS else "there already"
        return Verdict.RENAMED, f"{there} as instance {imported.id}"

    def _judge_present(
        self, instance: Instance, data: memoryview, before: bool
    ) -> tuple[Verdict, str | None]:
        stored = self.store.md5s([instance.id]).get(instance.id)
        if stored == instance.md5:
            return (Verdict.STORED if before else Verdict.ALREADY_THERE), None
        if before:
            return Verdict.STORED, f"stored before a restart; {CHANGED_HERE}"
        if self.changed.sent_md5s({instance.id: stored}).get(instance.id) == instance.md5:
            return Verdict.CHANGED, CHANGED_HERE
        if stored is None:
            return self._conflict(
                instance,
                "it is stored here already, but its file cannot be read: delete it, then send it again",
            )
        theirs, ours = self.store.transfer_syntax(instance.id), dicom.transfer_syntax(data)
        if theirs is None or ours is None:
            return (
                Verdict.NOT_COMPARABLE,
                "stored here already with other bytes; whether the content is the same cannot be told, for"
                f" {'what is stored' if theirs is None else 'what was sent'} names no transfer syntax",
            )
        if theirs != ours:
            return Verdict.ALREADY_THERE, f"stored in another transfer syntax, {theirs} instead of {ours}"
        return self._conflict(
            instance, "it is stored here already with other content, and Orthanc keeps the one it has"
        )

    def _conflict(self, instance: Instance, reason: str) -> tuple[Verdict, str]:
        if self.strict:
            raise ImportRefused(reason)
        log.warning("instance %s: %s", instance.id, reason)
        return Verdict.ALREADY_THERE, reason
