"""The limits on bandwidth that a user sets, in the configuration or at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orthanc_transfers.core.bandwidth_schedule import Schedule, limit_at, parse_kbs, parse_schedule
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import json_object, known_keys, shown
from orthanc_transfers.core.settings import Settings

KB = 1024

MAX_PEERS = 1000

_KEYS = ("LimitKBs", "PeerLimitKBs", "Peers", "Schedule")


@dataclass(frozen=True, slots=True)
class BandwidthLimits:
    """All in KB (1024 bytes) a second; 0: no limit."""

    limit_kbs: float = 0.0
    """Of all sending and fetching together, when ``schedule`` says nothing."""
    peer_limit_kbs: float = 0.0
    """Of each peer that is not in ``peers``."""
    peers: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule = ()

    @classmethod
    def configured(cls, settings: Settings) -> BandwidthLimits:
        """Those of the configuration."""
        return cls(
            limit_kbs=_kbs(settings.max_bandwidth),
            peer_limit_kbs=_kbs(settings.max_peer_bandwidth),
            schedule=settings.bandwidth_schedule,
        )

    def changed(self, value: Any) -> BandwidthLimits:
        """With the keys that a user gives. Raises ``BadRequest``, naming the key."""
        body = json_object(value, '"Bandwidth"')
        known_keys(body, _KEYS, '"Bandwidth"')
        changes: dict[str, Any] = {}
        for key, name in (("LimitKBs", "limit_kbs"), ("PeerLimitKBs", "peer_limit_kbs")):
            if key in body:
                changes[name] = _number(f'"{key}"', body[key])
        if "Peers" in body:
            peers = json_object(body["Peers"], '"Peers"')
            if len(peers) > MAX_PEERS:
                raise BadRequest(f'"Peers" may name {MAX_PEERS} peers at most, and names {len(peers)}')
            changes["peers"] = {
                name: _number(f'"Peers", {shown(name)}', limit) for name, limit in peers.items()
            }
        if "Schedule" in body:
            try:
                changes["schedule"] = parse_schedule(body["Schedule"])
            except ValueError as error:
                raise BadRequest(f'"Schedule" must be {error}') from None
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """What ``changed`` takes."""
        return {
            "LimitKBs": self.limit_kbs,
            "PeerLimitKBs": self.peer_limit_kbs,
            "Peers": dict(self.peers),
            "Schedule": [row.to_json() for row in self.schedule],
        }

    def of_all(self, minute: int) -> float:
        """The limit of all together, at a minute of the week."""
        scheduled = limit_at(self.schedule, minute)
        return self.limit_kbs if scheduled is None else scheduled

    def of_peer(self, name: str) -> float:
        """The limit of one peer."""
        return self.peers.get(name, self.peer_limit_kbs)


def _number(name: str, value: Any) -> float:
    try:
        return parse_kbs(value)
    except ValueError as error:
        raise BadRequest(f"{name} must be {error}, and is {shown(value)}") from None


def _kbs(bits_per_second: int) -> float:
    # As people write it: 1464.8 for 12 Mbit/s.
    return round(bits_per_second / 8 / KB, 3)
