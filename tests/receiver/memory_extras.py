"""``interfaces.ExtrasStore`` in memory, in place of Orthanc."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Conflict, UnknownResource
from orthanc_transfers.core.extras import Extra, Kind
from orthanc_transfers.core.model import Resource
from orthanc_transfers.interfaces import Held
from orthanc_transfers.runtime.cancellation import Cancellation

Key = tuple[Resource, Kind, str, int]


class MemoryExtras:
    """``values`` are what is kept; revisions count the changes of each."""

    name = "memory"
    kinds = frozenset(Kind)

    def __init__(self) -> None:
        self.values: dict[Key, bytes] = {}
        self.revisions: dict[Key, int] = {}
        self.before_put: Callable[[Extra], None] = lambda extra: None
        self.absent: set[Resource] = set()

    def listed(
        self, resources: Sequence[Resource], kinds: Collection[Kind], cancellation: Cancellation
    ) -> tuple[list[Extra], list[str]]:
        found = []
        for (resource, kind, name, number), data in self.values.items():
            if kind in kinds:
                value = data.decode() if kind is Kind.METADATA else ""
                attachment = kind is Kind.ATTACHMENT
                found.append(
                    Extra(
                        resource,
                        kind,
                        name,
                        number,
                        value,
                        size=len(data) if attachment else 0,
                        md5=md5(data) if attachment else "",
                    )
                )
        return found, []

    def resolved(self, extra: Extra) -> Extra | str:
        return f"{extra.shown} has no number" if extra.name == "unknown" else extra

    def holds_any(self, resource: Resource, instances: Container[str], cancellation: Cancellation) -> bool:
        return resource not in self.absent

    def held(self, extra: Extra) -> Held | None:
        data = self.values.get(key(extra))
        return None if data is None else Held(md5(data), data, str(self.revisions[key(extra)]))

    def attachment(self, resource: Resource, number: int) -> bytes:
        for (where, kind, _, found), data in self.values.items():
            if (where, kind, found) == (resource, Kind.ATTACHMENT, number):
                return data
        raise UnknownResource(f"no attachment {number}")

    def put(self, extra: Extra, data: Buffer, instead: Held | None) -> None:
        self.before_put(extra)
        self._check(extra, instead)
        self.set(extra, bytes(data))

    def remove(self, extra: Extra, instead: Held) -> None:
        self._check(extra, instead)
        del self.values[key(extra)]

    def set(self, extra: Extra, data: bytes) -> None:
        """As another client does."""
        self.values[key(extra)] = data
        self.revisions[key(extra)] = self.revisions.get(key(extra), 0) + 1

    def _check(self, extra: Extra, instead: Held | None) -> None:
        now = self.held(extra)
        if (now and now.revision) != (instead and instead.revision):
            raise Conflict("it was changed meanwhile")


def key(extra: Extra) -> Key:
    return extra.resource, extra.kind, "" if extra.number else extra.name, extra.number
