"""Metrics of the rules: what waits, for how long, what failed, by rule and peer."""

from __future__ import annotations

import re

from orthanc_transfers.rules.queue import Queue

_PREFIX = "orthanc_transfers_rules"


def metrics_of(queue: Queue) -> dict[str, float]:
    """Present values. Orthanc's metrics have no labels: the name of the rule, and of the peer, is part of the name."""
    found: dict[str, float] = {}
    for rule, peer, waiting, oldest, failed in queue.totals():
        name = _name(rule) if not peer else f"{_name(rule)}_to_{_name(peer)}"
        found[f"{_PREFIX}_waiting_{name}"] = waiting
        found[f"{_PREFIX}_oldest_seconds_{name}"] = round(oldest)
        found[f"{_PREFIX}_failed_{name}"] = failed
    found[f"{_PREFIX}_waiting"] = sum(
        value for key, value in found.items() if key.startswith(f"{_PREFIX}_waiting_")
    )
    return found


def _name(text: str) -> str:
    return re.sub("[^A-Za-z0-9]", "_", text)
