"""Metrics of the rules: what waits, for how long, what failed, by rule and peer."""

from __future__ import annotations

import re

from orthanc_transfers.rules.queue import Queue

_PREFIX = "orthanc_transfers_rules"


def metrics_of(queue: Queue) -> dict[str, float]:
    """Present values. Orthanc's metrics have no labels: the name of the rule, and of the peer, is part of the name."""
    found: dict[str, float] = {f"{_PREFIX}_waiting": 0}
    for rule, peer, waiting, oldest, failed in queue.totals():
        names = [_name(rule), f"{_name(rule)}_to_{_name(peer)}"] if peer else [_name(rule)]
        for name in names:
            _add(found, f"{_PREFIX}_waiting_{name}", waiting)
            _add(found, f"{_PREFIX}_failed_{name}", failed)
            key = f"{_PREFIX}_oldest_seconds_{name}"
            found[key] = max(found.get(key, 0), round(oldest))
        found[f"{_PREFIX}_waiting"] += waiting
    return found


def _add(found: dict[str, float], key: str, value: float) -> None:
    found[key] = found.get(key, 0) + value


def _name(text: str) -> str:
    return re.sub("[^A-Za-z0-9]", "_", text)
