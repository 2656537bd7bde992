"""Names and numbers of user-defined metadata and attachments, as Orthanc's configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST = 1024
"""``ServerEnumerations.h`` of Orthanc: what users may define."""
LAST = 65535


@dataclass(frozen=True, slots=True)
class UserNumbers:
    """``UserMetadata`` and ``UserContentType``: name -> number."""

    metadata_numbers: Mapping[str, int]
    attachment_numbers: Mapping[str, int]

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> UserNumbers:
        return cls(
            _numbers(configuration.get("UserMetadata")), _numbers(configuration.get("UserContentType"))
        )

    def metadata(self, name: str) -> int | None:
        """The number of a metadata as Orthanc lists it; ``None`` for one of its own."""
        number = self.metadata_numbers.get(name)
        if number is None and name.isascii() and name.isdigit():
            number = int(name)
        return number if number is not None and self.is_users(number) else None

    def metadata_name(self, number: int) -> str:
        """Empty if it has none."""
        return _name(self.metadata_numbers, number)

    def attachment_name(self, number: int) -> str:
        """Empty if it has none."""
        return _name(self.attachment_numbers, number)

    @staticmethod
    def is_users(number: int) -> bool:
        """Whether it is not one of Orthanc's own."""
        return FIRST <= number <= LAST


def _numbers(section: Any) -> dict[str, int]:
    found = {}
    for name, value in section.items() if isinstance(section, Mapping) else ():
        number = value[0] if isinstance(value, list) and value else value  # with a MIME type
        if type(number) is int:
            found[str(name)] = number
    return found


def _name(numbers: Mapping[str, int], number: int) -> str:
    return next((name for name, one in numbers.items() if one == number), "")
