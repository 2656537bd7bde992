"""What ``GET /transfers/status`` responds: active transfers, then ended ones, as one filtered list in pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.core.transfer_record import TransferRecord
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.ledger.actions import possible_actions
from orthanc_transfers.ledger.active import ActiveTransfers
from orthanc_transfers.ledger.ledger import Ledger
from orthanc_transfers.ledger.search import midnight, words_of
from orthanc_transfers.ledger.shown import orthanc_time, record_to_json, text_to_json
from orthanc_transfers.ledger.texts import Texts, first_resource

TEXTS_AT_ONCE = 20
"""Texts that one request asks Orthanc's index for; the others come with later ones."""


class Listing:
    """Thread-safe."""

    def __init__(self, active: ActiveTransfers, ledger: Ledger, texts: Texts, clock: Clock) -> None:
        self._active = active
        self._ledger = ledger
        self._texts = texts
        self._clock = clock

    def page(self, query: TransferQuery) -> dict[str, Any]:
        """The keys of the response, but those of bandwidth."""
        records = self._active.records()
        asking = iter(range(TEXTS_AT_ONCE))
        matching: list[TransferRecord | dict[str, Any]] = []
        for record in records:
            if self._matches(query, record):
                if not query.words:
                    matching.append(record)
                    continue
                shown = self._shown(record, asking)
                words = words_of(shown)
                if all(word in words for word in query.words):
                    matching.append(shown)
        page = [
            one if isinstance(one, dict) else self._shown(one, asking)
            for one in matching[query.offset : query.offset + query.limit]
        ]
        past = self._ledger.find(query, query.limit - len(page), max(0, query.offset - len(matching)))
        ended = {one["ID"] for one in past.shown}
        # What ended between the two looks is shown as that.
        active = [one for one in page if one["ID"] not in ended]
        for shown in past.shown:
            shown["Actions"] = possible_actions(shown)
        return {
            "Now": orthanc_time(self._clock.now()),
            "Total": len(matching) - (len(page) - len(active)) + past.total,
            "Active": len(records),
            "SpeedBytes": sum(record.speed or 0 for record in records),
            "HistoryError": self._ledger.obstacle,
            "Transfers": active + past.shown,
        }

    def _shown(self, record: TransferRecord, asking: Iterator[int]) -> dict[str, Any]:
        """``asking`` ends when no more texts shall be asked for."""
        shown = record_to_json(record)
        resource = first_resource(shown)
        text = None
        if resource is not None:
            known, text = self._texts.remembered(resource)
            if not known and next(asking, None) is not None:
                with suppress(TransferError):
                    text = self._texts.ask(resource)
        return {**shown, **text_to_json(text), "Report": False, "Actions": possible_actions(shown)}

    def _matches(self, query: TransferQuery, record: TransferRecord) -> bool:
        """The rules that ``past_transfers.condition`` has for what has ended, but for words; this ends now."""
        now = self._clock.now()
        return (
            (not query.states or record.state in query.states)
            and (not query.ids or record.id in query.ids)
            and query.peer in (None, record.peer)
            and query.direction in (None, record.direction)
            and (query.since is None or now >= midnight(query.since))
            and (query.until is None or now < midnight(query.until, 1))
        )
