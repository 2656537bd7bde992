"""Notifications of a rule: which events are told to which address, and how they are signed.

A signature is the HMAC-SHA256, by the rule's secret, of the time in seconds since the epoch, a dot, and the body; it
travels as ``t=TIME,v1=HEX``. So what is replayed later is known by its time.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.json_fields import json_object, known_keys, shown, string_field

SIGNATURE_HEADER = "transfers-signature"
EVENT_HEADER = "transfers-event"
HIDDEN = "********"
"""Stands for a secret where it is shown."""

_MAX_URL = 2000
_MIN_SECRET, _MAX_SECRET = 16, 256
_MAX_WAITING = 366 * 24 * 3600
_KEYS = ("Url", "Secret", "Events", "WaitingMinutes")


class Event(enum.Enum):
    """What is told."""

    SUCCESS = "Success"
    FAILURE = "Failure"
    WAITING = "Waiting"
    """It has waited for long, once for each."""


@dataclass(frozen=True, slots=True)
class Notify:
    """``Notify`` of a rule. ``url`` and ``secret`` are not to be shown or logged."""

    url: str
    secret: str | None = None
    events: frozenset[Event] = frozenset(Event)
    waiting: float = 3600.0
    """Seconds after which what still waits is told."""

    def __repr__(self) -> str:
        return f"Notify({self.where!r})"

    @classmethod
    def parse(cls, value: Any) -> Notify:
        """Raises ``BadRequest`` with a sentence that names the key."""
        body = json_object(value, '"Notify"')
        known_keys(body, _KEYS, '"Notify"')
        secret = string_field(body, "Secret") if "Secret" in body else None
        if secret is not None and (secret == HIDDEN or not _MIN_SECRET <= len(secret) <= _MAX_SECRET):
            raise BadRequest(f'"Secret" must have {_MIN_SECRET} to {_MAX_SECRET} characters')
        minutes = body.get("WaitingMinutes", 60)
        if type(minutes) not in (int, float) or not 0 < minutes * 60 <= _MAX_WAITING:
            raise BadRequest(
                f'"WaitingMinutes" must be a number above 0, a year at most, and is {shown(minutes)}'
            )
        return cls(_url(string_field(body, "Url")), secret, _events(body), minutes * 60.0)

    @property
    def where(self) -> str:
        """The server that is told, for messages."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"

    def headers(self, event: str, body: bytes, now: float) -> dict[str, str]:
        """Those of a notification that is sent ``now`` (seconds since the epoch)."""
        headers = {"content-type": "application/json", EVENT_HEADER: event}
        if self.secret is not None:
            headers[SIGNATURE_HEADER] = signature(self.secret, int(now), body)
        return headers


def signature(secret: str, moment: int, body: bytes) -> str:
    """The value of the header for a body that is sent at that moment (seconds since the epoch)."""
    return f"t={moment},v1={hmac.new(secret.encode(), b'%d.%s' % (moment, body), hashlib.sha256).hexdigest()}"


def hide_secrets(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a rule, as it may be shown."""
    notify = rule.get("Notify")
    if not isinstance(notify, dict) or "Secret" not in notify:
        return dict(rule)
    return {**rule, "Notify": {**notify, "Secret": HIDDEN}}


def keep_secrets(rule: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The JSON of a changed rule: a secret that is still hidden stays what it was ``before``."""
    notify, known = rule.get("Notify"), (before or {}).get("Notify")
    if not isinstance(notify, dict) or notify.get("Secret") != HIDDEN or not isinstance(known, dict):
        return dict(rule)
    if notify.get("Url") != known.get("Url"):
        raise BadRequest('"Secret" must be given anew where "Url" is changed')
    return {**rule, "Notify": {**notify, "Secret": known.get("Secret")}}


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or len(value) > _MAX_URL or not re.fullmatch("[!-~]+", value):
        raise BadRequest(
            f'"Url" must be an address that begins with http:// or https://, and is {shown(value)}'
        )
    return value


def _events(body: Mapping[str, Any]) -> frozenset[Event]:
    names = [event.value for event in Event]
    value = body.get("Events", names)
    items = value if isinstance(value, list) else [value]
    if not items or any(item not in names for item in items):
        raise BadRequest(f'"Events" must be an array of some of {", ".join(names)}')
    return frozenset(map(Event, items))
