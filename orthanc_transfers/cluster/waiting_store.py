"""Orthanc as a store while its index, in PostgreSQL, is away: what fails because of that is tried again.

Orthanc reports such a failure as any other error, which would end a transfer for good.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, cast

from orthanc_transfers.cluster.database import Database
from orthanc_transfers.core.errors import Canceled, NotFound, TransferError
from orthanc_transfers.interfaces import InstanceStore

log = logging.getLogger(__name__)

# Seconds between two attempts.
_PAUSE = 0.5


def waiting_store(store: InstanceStore, database: Database) -> InstanceStore:
    """The same store. What fails is tried again once the database is there, if it was away just now."""
    return cast(InstanceStore, _WaitingStore(store, database))


class _WaitingStore:
    def __init__(self, store: InstanceStore, database: Database) -> None:
        self._store = store
        self._database = database

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            while True:
                try:
                    return method(*arguments, **options)
                except (NotFound, Canceled):
                    raise
                except TransferError as error:
                    if not self._database.was_away():
                        raise
                    log.warning("tried again, for the cluster's database was away: %s", error)
                time.sleep(_PAUSE)

        self.__dict__[name] = call
        return call
