"""Rules run by hand, for some resources or for all that they have not sent yet; or said only what that would send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import BY_HAND, COARSENESS, Rule
from orthanc_transfers.rules.matching import COPY, Matching
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.queue import Queue
from orthanc_transfers.rules.scans import Scans


class ByHand:
    """Thread-safe. Raises ``sqlite3.Error``, ``OSError``, ``HostError``."""

    def __init__(self, queue: Queue, scans: Scans, matching: Matching, orthanc: LocalOrthanc) -> None:
        self._queue = queue
        self._scans = scans
        self._matching = matching
        self._orthanc = orthanc

    def run(self, rule: Rule, resources: Sequence[Resource] | None, *, dry: bool) -> dict[str, Any]:
        """The response to ``POST /transfers/rules/{name}/run``; ``resources``: ``None`` for all."""
        done: dict[str, Any] = {"Rule": rule.name, "DryRun": dry}
        if resources is not None:
            return {**done, "Resources": self._some(rule, resources, dry=dry)}
        if dry:
            return {**done, **self._scans.dry_run(rule)}
        with self._queue.changing() as changes:
            self._scans.begin(changes.writer, rule.name, BY_HAND)
        return {**done, "Started": True}

    def _some(self, rule: Rule, resources: Sequence[Resource], *, dry: bool) -> list[dict[str, Any]]:
        rows = [self._look_at(rule, resource) for resource in resources]
        if not dry:
            with self._queue.changing() as changes:
                for resource, why, stamp in rows:
                    if why is None:
                        self._queue.add(changes.writer, rule, resource, BY_HAND, stamp=stamp)
        return [
            {"Level": resource.level.value, "ID": resource.id, "Queued": why is None and not dry, "Why": why}
            for resource, why, _ in rows
        ]

    def _look_at(self, rule: Rule, resource: Resource) -> tuple[Resource, str | None, str]:
        """What would be sent, why it is not, and when it last changed."""
        if COARSENESS.index(resource.level) < COARSENESS.index(rule.level):
            resource = self._orthanc.lifted(resource, rule.level) or resource
        stamp = self._orthanc.last_update(resource)
        if stamp is None:
            return (
                resource,
                f"there is no {resource.level.value.lower()} {resource.id[:100]} in this Orthanc",
                "",
            )
        key = self._matching.mismatch(rule, resource)
        why = None if key is None else f'the "{key}" of the filter does not fit'
        return resource, "it is a copy that a rule made" if key == COPY else why, stamp
