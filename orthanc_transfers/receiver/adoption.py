"""Takes over what another node of the cluster was receiving when it died, and lets go of what others took over.

A node with shared staging leaves a folder, which is opened like the one of an earlier process. Of a node with staging
on its own disk only the database tells: an import that it had begun is finished if all is in Orthanc, and undone else;
its sender starts over.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.ownership import Adoption, Inherited
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.staging import UNDOS, Staging
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)


class Successor:
    """This node, as the one that takes over from others. ``shared``: the folder of all nodes' staging, if any."""

    def __init__(
        self, staging: Staging, registry: Registry, pushes: PushService, shared: Path | None
    ) -> None:
        self._staging = staging
        self._registry = registry
        self._pushes = pushes
        self._shared = shared
        self._stopping = Cancellation()
        self._taken: list[IncomingTransfer] = []
        """Those that have come in since the last were gone on with."""

    def adopt(self, adoptions: Sequence[Adoption]) -> None:
        """Go on with the transfers of all nodes that are gone. Raises ``TransferError``, ``OSError``: call it again.

        All at once, since one of these nodes may have died, or been stopped, while it took over from another: what it
        had moved is in its own folder. So nothing is given up before each folder was looked through.
        """
        failed: Exception | None = None
        known = {transfer.id for transfer in self._registry.all()}
        for adoption in adoptions:
            try:
                for area in self._areas(adoption, known):
                    self._take_in(area)
                    known.add(area.id)
            except (TransferError, OSError) as error:
                failed = failed or error
        taken, self._taken = self._taken, []
        self._registry.resume(taken, adopted=True)
        if failed is not None:
            raise failed
        known = {transfer.id for transfer in self._registry.all()}
        for adoption in adoptions:
            for identifier in adoption.identifiers - known:
                self._registry.ownership.forget(identifier)
            if adoption.identifiers:
                log.warning(
                    "node %s of the cluster is gone: %d of its transfers go on here",
                    adoption.node.name,
                    len(known & adoption.identifiers),
                )

    def stop(self) -> None:
        """Take nothing over any more: what is under way ends at the next transfer, with ``Canceled``."""
        self._stopping.cancel()

    def _take_in(self, area: Area) -> None:
        transfer = self._registry.take_in(area)
        if transfer is not None:
            self._taken.append(transfer)
            self._pushes.take_in([transfer])

    def _may_move(self) -> None:
        self._stopping.check()
        self._registry.ownership.check()  # who was stopped meanwhile may have been taken over from, too

    def _areas(self, adoption: Adoption, known: Container[str]) -> Iterator[Area]:
        if adoption.node.staging and self._shared is not None:
            folder = self._shared / adoption.node.staging
            yield from self._staging.adopt(folder, known, self._may_move)
            self._registry.adopt_undos(folder / UNDOS)
            shutil.rmtree(folder, ignore_errors=True)
            return
        for inherited in adoption.inherited:
            self._may_move()
            area = None if inherited.identifier in known else self._recorded(inherited)
            if area is not None:
                yield area

    def _recorded(self, inherited: Inherited) -> Area | None:
        if inherited.absent is None and inherited.outcome is None:
            return None
        try:
            return self._staging.adopt_record(
                inherited.identifier,
                inherited.manifest or Manifest(()),
                inherited.meta,
                inherited.absent if inherited.outcome is None else None,
                inherited.outcome,
            )
        except TransferError as error:
            log.error("transfer %s cannot be taken over: %s", inherited.identifier, error)
            return None

    def let_go(self) -> None:
        """Another node has all transfers of this one: forget them, and touch nothing of them."""
        log.error("this node of the cluster was silent for too long: another one has its transfers now")
        self._pushes.abandon(self._registry.abandon())
