"""How a commit ended, in numbers and warnings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.verdicts import THERE_BEFORE, Verdict

log = logging.getLogger(__name__)

_WARNED = (*THERE_BEFORE, Verdict.RENAMED)

# The others are rows of the report only.
_MAX_WARNINGS = 100


EXTRAS = ("Labels", "Metadata", "Attachments", "ExtrasKept", "ExtrasSkipped")
"""Keys of what came beside DICOM: how many of each kind are there, values that were kept, items that were not taken."""


@dataclass(frozen=True, slots=True)
class CommitSummary:
    """How many instances a commit stored, found, or saw filtered out by the policy of this server."""

    stored: int
    already_stored: int
    filtered_out: int
    warnings: tuple[str, ...] = ()
    changed: int = 0
    """Those of ``already_stored`` that this server changed when it stored them."""
    renamed: int = 0
    """Those of ``stored`` that it stored as other instances."""
    extras: Mapping[str, int] = field(default_factory=dict)
    """Numbers of what came beside DICOM; see ``ExtrasCommit``."""

    def with_extras(self, extras: Mapping[str, int], warnings: Sequence[str]) -> CommitSummary:
        """The same, once what came beside DICOM was applied."""
        return replace(self, extras=dict(extras), warnings=(*self.warnings, *warnings))

    def counts(self) -> dict[str, int]:
        """As told to the sender."""
        seldom = {"Changed": self.changed, "Renamed": self.renamed}
        return {
            "Stored": self.stored,
            "AlreadyStored": self.already_stored,
            "FilteredOut": self.filtered_out,
            **{key: number for key, number in seldom.items() if number},
            **self.extras,
        }

    def to_json(self) -> dict[str, Any]:
        """As kept on disk."""
        return {**self.counts(), "Warnings": list(self.warnings)}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> CommitSummary:
        """The inverse of ``to_json``. Raises ``KeyError``, ``TypeError``."""
        return cls(
            value["Stored"],
            value["AlreadyStored"],
            value["FilteredOut"],
            tuple(value.get("Warnings", ())),
            value.get("Changed", 0),
            value.get("Renamed", 0),
            {key: value[key] for key in EXTRAS if key in value},
        )


def summarize(
    transfer: str, manifest: Manifest, verdicts: bytearray, reasons: Mapping[int, str]
) -> CommitSummary:
    """The summary of a commit that succeeded, from the ``Verdict`` of each instance; logs that there are warnings."""
    warned = [index for index in sorted(reasons) if verdicts[index] in _WARNED]
    warnings = tuple(
        f"instance {manifest.instances[index].id}: {reasons[index]}" for index in warned[:_MAX_WARNINGS]
    )
    if warnings:
        log.warning(
            "transfer %s: %d instances are not here as they were sent, see its report; %s",
            transfer,
            len(warned),
            warnings[0],
        )
    renamed = verdicts.count(Verdict.RENAMED)
    return CommitSummary(
        verdicts.count(Verdict.STORED) + renamed,
        sum(verdicts.count(verdict) for verdict in THERE_BEFORE),
        verdicts.count(Verdict.FILTERED),
        warnings,
        verdicts.count(Verdict.CHANGED),
        renamed,
    )
