"""Orthanc as a store while its index, in PostgreSQL, is away: what fails because of that is tried again.

Orthanc reports such a failure as any other error, which would end a transfer for good. Where it was asked by
``RestApiGet``, it even says that there is no such resource: then what is there would be imported as if it were new, and
deleted if that is undone. So nothing is taken for absent while the database went away.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from orthanc_transfers.cluster.database import Database
from orthanc_transfers.core.errors import Canceled, NotFound, TransferError
from orthanc_transfers.interfaces import InstanceStore

log = logging.getLogger(__name__)

# Seconds between two attempts.
_PAUSE = 0.5

# Seconds for which Orthanc may say that its index is away while the cluster's database is not: it notices that one of
# its connections was cut when it uses it, and fails then, an hour after a restart of the database too (tried on
# 1.13.0 with 6 connections). Each fails once.
_RECONNECTING = 120.0

_ABSENT: dict[str, Callable[[Any, Any], bool]] = {
    "exists": lambda found, _: not found,
    "is_intact": lambda found, _: not found,
    "received": lambda found, _: found is None,
    "transfer_syntax": lambda found, _: found is None,
    "md5s": lambda found, wanted: len(found) < len(frozenset(wanted)),
    "patients_of": lambda *_: True,
    "remove": lambda *_: True,
}
"""Methods that take something for absent without an error -> whether they have, by their result and first argument."""


def waiting_store(store: InstanceStore, database: Database) -> InstanceStore:
    """The same store. What fails is tried again once the database is there, if it was away just now."""
    return cast(InstanceStore, _WaitingStore(store, database))


class _WaitingStore:
    def __init__(self, store: InstanceStore, database: Database) -> None:
        self._store = store
        self._database = database

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method, absent = getattr(self._store, name), _ABSENT.get(name, lambda *_: False)

        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            # It may be done again.
            arguments = tuple(list(one) if isinstance(one, Iterator) else one for one in arguments)
            deadline = time.monotonic() + _RECONNECTING
            while True:
                losses = self._database.losses
                try:
                    found = method(*arguments, **options)
                    if not options.get("sure", True) and self._database.losses == losses:
                        return found
                    if not absent(found, arguments[0] if arguments else None) or not self._lost_since(losses):
                        return found
                    log.warning("asked again what is stored, for the cluster's database was away")
                except Canceled:
                    raise
                except NotFound as error:
                    if not self._lost_since(losses):
                        raise
                    log.warning("tried again, for the cluster's database was away: %s", error)
                except TransferError as error:
                    if not self._was_away(error.index_away and time.monotonic() < deadline):
                        raise
                    log.warning("tried again, for the cluster's database was away: %s", error)
                time.sleep(_PAUSE)

        self.__dict__[name] = call
        return call

    def _was_away(self, index_away: bool) -> bool:
        if self._database.was_away() or index_away:
            return True
        # Its connections end one after the other: Orthanc's may have been the first.
        time.sleep(_PAUSE)
        return self._database.was_away()

    def _lost_since(self, losses: int) -> bool:
        """Whether the database has been lost since it had been so many times; once it is there."""
        self._database.was_away()
        return self._database.losses != losses
