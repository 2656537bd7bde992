"""Takes over what another node of the cluster was receiving when it died, and lets go of what others took over.

A node with shared staging leaves a folder, which is opened like the one of an earlier process. Of a node with staging
on its own disk only the database tells: an import that it had begun is finished if all is in Orthanc, and undone else;
its sender starts over.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.ownership import Adoption, Inherited
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.staging import UNDOS, Staging

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

    def adopt(self, adoption: Adoption) -> None:
        """Go on with the transfers of a node that is gone. Raises ``TransferError``, ``OSError``: call it again."""
        areas = self._areas(adoption)
        taken = self._registry.take_in(areas)
        self._pushes.take_in(taken)
        self._registry.resume(taken, adopted=True)
        known = {transfer.id for transfer in self._registry.all()}
        for identifier in adoption.identifiers - known:
            self._registry.ownership.forget(identifier)
        if adoption.identifiers:
            log.warning(
                "node %s of the cluster is gone: %d of its transfers go on here",
                adoption.node.name,
                len(known & adoption.identifiers),
            )

    def _areas(self, adoption: Adoption) -> list[Area]:
        if adoption.node.staging and self._shared is not None:
            folder = self._shared / adoption.node.staging
            areas = self._staging.adopt(folder)
            self._registry.adopt_undos(folder / UNDOS)
            shutil.rmtree(folder, ignore_errors=True)
            return areas
        return [area for area in map(self._recorded, adoption.inherited) if area is not None]

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
