"""Rolls forward a commit that was interrupted by the death of its process.

What is not in Orthanc yet is verified once more, because the bytes of the area are not fsynced (``area.py`` says
why). If some turn out to be broken, what was imported is undone, and the transfer goes on receiving, or fails
where the sender (version 1) cannot send anything again. Bytes that were in memory are gone: if all was imported, that
is the outcome, else it is undone, and all is asked for again. What is in Orthanc is verified too: a power failure may
leave an instance in its index whose file is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from orthanc_transfers.core.errors import Corrupted
from orthanc_transfers.receiver.commit import Commit
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)


class InterruptedCommit(Commit):
    """A commit whose import was begun by an earlier process: ``area.absent`` tells of what it may have imported."""

    resumed = True

    def _prepare(self, cancellation: Cancellation) -> dict[str, str | None]:
        try:
            stored = self._look_up(cancellation)
            assert self._area.absent is not None
            self._begin(self._area.absent)
            # What it died of twice is not touched any more.
            broken = set() if self._log.exhausted else self._delete_broken(stored, cancellation)
        except Exception:
            # What was imported before the restart cannot be known: whatever was absent then has to go.
            self._importer, self._blindly = self._new_importer(), True
            raise
        return {identifier: md5 for identifier, md5 in stored.items() if identifier not in broken}

    def _delete_broken(self, stored: Mapping[str, str | None], cancellation: Cancellation) -> set[str]:
        """Delete what this commit imported before the restart, and whose file is not what Orthanc's index says.

        A power failure leaves such: during an undo the file may be gone, and the index not know it yet.
        Returns their identifiers.
        """
        broken: set[str] = set()

        def check(index: int) -> None:
            instance = self._manifest.instances[index]
            with self._log.importing(index):
                intact = self._store.is_intact(instance.id, instance.md5, cancellation)
            if not intact:
                log.warning("the file of instance %s is lost or damaged: it is imported again", instance.id)
                self._ownership.check()
                self._store.remove(instance.id)
                broken.add(instance.id)

        assert self._area.absent is not None
        brought = [index for index in self._area.absent if self._manifest.instances[index].id in stored]
        threads.run_all("transfers-verify", self._threads, brought, check, cancellation)
        return broken

    def _verify_again(
        self, stored: Mapping[str, str | None], wanted: Iterable[int], cancellation: Cancellation
    ) -> None:
        if self._area.bytes_lost:
            # Nothing is left to be verified, nor to be imported; an import that is not tried again says so itself.
            if not self._log.exhausted:
                self._require_all(wanted)
            return
        self._lose_vanished(stored)
        self._verify(wanted, cancellation)
        self._require_complete()

    def _require_all(self, wanted: Iterable[int]) -> None:
        for index in wanted:
            instance = self._manifest.instances[index]
            raise Corrupted(
                f"instance {instance.id} was not imported before the end of the process, and is needed once more;"
                " nothing was kept"
            )
