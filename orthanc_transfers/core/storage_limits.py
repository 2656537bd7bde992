"""Orthanc's own limits on what it stores: ``MaximumPatientCount`` and ``MaximumStorageSize``.

At a limit, Orthanc deletes within an import the patients that were stored to least lately and are not protected
(``MaximumStorageMode`` "Recycle", the default), or refuses the import ("Reject", from 1.11.3 on).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.errors import TooLarge
from orthanc_transfers.core.model import Instance

_MB = 1024 * 1024

MAX_INSTANCE = 2**32 - 1
"""Bytes of an instance that a plugin can hand to Orthanc: its SDK counts them in 32 bits (1.10.1 to 1.13.0)."""


def check_sizes(instances: Iterable[Instance]) -> None:
    """Raise ``TooLarge`` if no plugin can import one of them."""
    for one in instances:
        if one.size > MAX_INSTANCE:
            raise TooLarge(
                f"instance {one.id} has {one.size} bytes, and a plugin can hand at most {MAX_INSTANCE} to Orthanc:"
                " transfer the others without it"
            )


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """What the configuration says; 0 is no limit."""

    patients: int = 0
    size: int = 0
    """Bytes."""
    size_foretold: bool = True
    """Whether a file takes at least its own size: it is neither compressed nor transcoded while it is stored."""

    def __bool__(self) -> bool:
        return bool(self.patients or self.size)

    @classmethod
    def parse(cls, configuration: Mapping[str, Any]) -> StorageLimits:
        """From the configuration of Orthanc, which itself refuses values of a wrong type."""
        return cls(
            _natural(configuration.get("MaximumPatientCount")),
            _natural(configuration.get("MaximumStorageSize")) * _MB,
            not configuration.get("StorageCompression") and not configuration.get("IngestTranscoding"),
        )

    def options(self) -> str:
        """The options that are set, with their values, as part of a sentence."""
        named = []
        if self.patients:
            named.append(f"MaximumPatientCount is {self.patients}")
        if self.size:
            named.append(f"MaximumStorageSize is {self.size // _MB} MB")
        return " and ".join(named)


@dataclass(frozen=True, slots=True)
class Kept:
    """What Orthanc deletes for no import."""

    patients: frozenset[str] = frozenset()
    """Identifiers."""
    size: int = 0
    """Bytes that these patients take in its storage."""
    rejecting: bool = False
    """Orthanc deletes nothing, and refuses what does not fit: these are all of its patients."""

    def __bool__(self) -> bool:
        return bool(self.patients)

    def described(self) -> str:
        """As part of a sentence."""
        which = "that it has (MaximumStorageMode is Reject)" if self.rejecting else "that are protected there"
        return f"beside the {len(self.patients)} {which}"


def _natural(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
