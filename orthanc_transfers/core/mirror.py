"""A mirror: what a study lacks on the other side, and what may be deleted there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.model import Manifest


@dataclass(frozen=True, slots=True)
class Record:
    """What is known to have been there: a study as it was sent last."""

    fingerprint: str
    """``Manifest.fingerprint``."""
    ours: bool
    """All of it was sent by this server: nothing was there before."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One study here, compared with the same study there. Numbers of instances."""

    study: str
    fingerprint: str
    """Of what is here."""
    instances: int
    missing: int
    """Those that are here only."""
    missing_size: int
    """Bytes."""
    different: int
    """Those with another MD5 there."""
    deleted: tuple[str, ...] = ()
    """Identifiers of those that were sent by this server, and were deleted here since."""
    gone: bool = False
    """All of it was there once, as it is here now, and nothing of it is now: it was deleted there, or lost."""

    @property
    def equal(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.missing and not self.different

    def to_json(self) -> dict[str, Any]:
        """One row of the answer to a user."""
        return {
            "Study": self.study,
            "Instances": self.instances,
            "Missing": self.missing,
            "MissingSize": str(self.missing_size),
            "Different": self.different,
            "Deleted": len(self.deleted),
            "Gone": self.gone,
        }


def compare(study: str, here: Manifest, there: Manifest, record: Record | None) -> Difference:
    """``there``: what the peer has of the same study; it may have nothing of it. ``record`` is what is known."""
    missing = [one for one in here if one.id not in there]
    different = sum(1 for one in here if one.id in there and there.instance(one.id).md5 != one.md5)
    return Difference(
        study=study,
        fingerprint=here.fingerprint(),
        instances=len(here),
        missing=len(missing),
        missing_size=sum(one.size for one in missing),
        different=different,
        deleted=deleted_here(here, there, record),
        gone=not there and record is not None and record.fingerprint == here.fingerprint(),
    )


def deleted_here(here: Manifest, there: Manifest, record: Record | None) -> tuple[str, ...]:
    """What was deleted here and may be deleted there: nothing, unless all that is there was sent by this server."""
    if record is None or not record.ours or record.fingerprint != there.fingerprint():
        return ()
    return tuple(one.id for one in there if one.id not in here)


def after_sending(here: Manifest, before: Record | None, already_there: frozenset[str]) -> Record:
    """What is known after a study was sent. ``already_there``: identifiers of instances that the peer had before.

    Those are this server's own only if the record ``before`` says so of exactly these.
    """
    kept = Manifest(one for one in here if one.id in already_there)
    ours = not kept or (before is not None and before.ours and before.fingerprint == kept.fingerprint())
    return Record(here.fingerprint(), ours)
