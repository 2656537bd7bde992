"""A server that is in no cluster: it owns every transfer. Costs nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.leftovers import OwnLeftovers
from orthanc_transfers.receiver.ownership import Adoption, Node, Overlap

_NO_OVERLAP = Overlap()


class SingleServer:
    """Implements ``Ownership``. Nothing is shared, so nothing is asked, told or kept."""

    def __init__(self) -> None:
        self._originator = str(uuid.uuid4())
        self._leftovers = OwnLeftovers()

    @property
    def originator(self) -> str:
        return self._originator

    @property
    def leftovers(self) -> OwnLeftovers:
        return self._leftovers

    @property
    def losses(self) -> int:
        return 0

    def claim(
        self,
        identifier: str,
        kind: str,
        token: str,
        meta: Mapping[str, Any],
        *,
        limit: int,
        patience: float = 0.0,
    ) -> None: ...

    def locate(self, *, identifier: str = "", kind: str = "", token: str = "") -> None: ...

    def doubt(self, node: Node) -> None: ...

    def check(self) -> None: ...

    def begin_commit(self, identifier: str, manifest: Manifest) -> None: ...

    def begin_import(self, identifier: str, absent: Collection[int]) -> None: ...

    def overlap(self, identifier: str, instances: Collection[str]) -> Overlap:
        return _NO_OVERLAP

    def back_to_receiving(self, identifier: str) -> None: ...

    def end(
        self, identifier: str, outcome: Mapping[str, Any], report: Mapping[str, Any], names: Iterable[str]
    ) -> None: ...

    def forget(self, identifier: str) -> None: ...

    def report(self, name: str) -> dict[str, Any] | None:
        return None

    def on_adoption(
        self, adopt: Callable[[Sequence[Adoption]], None], fenced: Callable[[], None]
    ) -> None: ...
