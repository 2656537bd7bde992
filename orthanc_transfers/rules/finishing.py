"""What a rule wants done with a resource that was sent: a label, metadata, or that it is deleted here.

Only once each destination's commit report names every instance that is here as stored or already there, with the bytes
that are here now. Deleted are these instances, one by one: what arrives meanwhile stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from orthanc_transfers.core.errors import HostError, TransferError, UnknownResource
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.rule import ALL, Rule
from orthanc_transfers.core.rule_entry import ACTIVE, Entry, EntryState
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.rules.orthanc import LocalOrthanc

_SAFE = ("stored", "already there")
"""Outcomes in a commit report after which the receiver has the very bytes."""

_MARKED_TOO = (*_SAFE, "accepted")
"""A peer of version 1 has no report: it says that it has imported all. That is enough to mark, not to delete."""

_HAS_IT = (EntryState.DONE, EntryState.FINISHING)

log = logging.getLogger(__name__)


class Finishing:
    """``siblings`` are the last entries for the same resource, one for each destination of its rule.

    ``mirrored`` keeps what a mirror has sent, and returns what is to be said of it.
    """

    def __init__(
        self,
        store: InstanceStore,
        reports: Reports,
        orthanc: LocalOrthanc,
        siblings: Callable[[Entry], Sequence[Entry]],
        mirrored: Callable[[Entry], str | None],
    ) -> None:
        self._store = store
        self._reports = reports
        self._orthanc = orthanc
        self._siblings = siblings
        self._mirrored = mirrored

    def finish(self, rule: Rule, entry: Entry, going_on: Callable[[], bool]) -> str | None:
        """Do it; returns what is to be said of it. Raises ``TransferError`` if it is to be tried again.

        Doing it twice does no harm. ``going_on``: whether Orthanc does not stop.
        """
        there = self._mirrored(entry) if rule.compare is not None else None
        if not rule.after:
            return there
        what = "deleted here" if rule.after.delete else "marked"
        sent = [
            one
            for one in self._siblings(entry)
            # Its rule may have had other destinations, or have been to deliver to all.
            if one.destination in rule.places or (rule.deliver != ALL and one.id == entry.id)
        ]
        lacking = [one for one in sent if one.state not in _HAS_IT]
        if any(one.state in ACTIVE for one in lacking):
            return None  # the last one does it
        missing = set(rule.destinations) - {one.destination for one in sent} if rule.deliver == ALL else None
        if lacking or missing:
            return _left_alone(entry, what, _not_sent(lacking, sorted(missing or ())))
        try:
            here = self._store.manifest([entry.resource])
        except UnknownResource:
            return "deleted here" if rule.after.delete else "it was deleted here meanwhile"
        for one in sent:
            reason = self._unconfirmed(rule, here, one)
            if reason is not None:
                return _left_alone(entry, what, reason)
        return self._delete(here, going_on) if rule.after.delete else self._mark(rule, entry) or there

    def _mark(self, rule: Rule, entry: Entry) -> str | None:
        try:
            if rule.after.label is not None:
                self._orthanc.add_label(entry.resource, rule.after.label)
            for name, value in rule.after.metadata.items():
                self._orthanc.set_metadata(entry.resource, name, value)
        except HostError as error:
            if self._orthanc.described(entry.resource) is None:
                return "it was deleted here meanwhile"
            return f"sent, but not marked: {error}"
        # Or a power failure takes the marks of what is said to be done.
        self._store.sync()
        return None

    def _delete(self, here: Manifest, going_on: Callable[[], bool]) -> str:
        for instance in here:
            if not going_on():
                raise TransferError("Orthanc stops")
            self._store.remove(instance.id)
        # Or a power failure brings back what is said to be deleted, without its files.
        self._store.sync()
        return f"deleted here, {len(here)} instances"

    def _unconfirmed(self, rule: Rule, here: Manifest, sent: Entry) -> str | None:
        """Why what is here must be left alone; ``None``: the receiver has it all."""
        report = (self._reports.read(sent.job) if sent.job else None) or self._reports.read(
            sent.transfer or ""
        )
        if report is None:
            return f"there is no report of what peer {sent.peer} stored"
        enough = _SAFE if rule.after.delete else _MARKED_TOO
        for row in report.get("Instances", ()):
            if row["Outcome"] not in enough:
                return f"peer {sent.peer} does not confirm that it stored instance {row['ID']} ({row['Outcome']})"
        rows = {row.get("Original", row["ID"]): row for row in report.get("Instances", ())}
        if rule.anonymization is not None:
            # The report names the instances of the copy.
            return "instances were added after it was sent" if len(rows) < len(here) else None
        for instance in here:
            row = rows.get(instance.id)
            if row is None:
                return f"instance {instance.id} was added after it was sent"
            if row["MD5"] != instance.md5 and not rule.transcodes:
                return f"instance {instance.id} has changed after it was sent"
        return None


def _not_sent(lacking: Sequence[Entry], missing: Sequence[str]) -> str:
    if lacking:
        return f"peer {lacking[0].destination or lacking[0].peer} did not get it ({lacking[0].state.value})"
    return f"it was never queued for peer {missing[0]}, or that is forgotten: run the rule by hand"


def _left_alone(entry: Entry, what: str, reason: str) -> str:
    log.warning(
        "rule %s: %s %s is not %s: %s",
        *(entry.rule, entry.resource.level.value.lower(), entry.resource.id, what, reason),
    )
    return f"sent, but not {what}: {reason}"
