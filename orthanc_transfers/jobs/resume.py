"""Resume state of a job: kept over a pause, and saved with the job over a restart of Orthanc."""

from __future__ import annotations

import re
import secrets
import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.core.transfer_syntaxes import transcode_to_json
from orthanc_transfers.jobs.ack_log import AckLogs

_TOKEN = re.compile("[0-9a-f]{32}")
_PATH = re.compile("/[!-~]*")
_HEADER = re.compile("[ -~]+")


def _new_token() -> str:
    return secrets.token_hex(16)


class ResumeState:
    """How far a transfer got, so that it goes on instead of starting over. Thread-safe.

    ``saved`` is what Orthanc saved of the job; ``ack_logs`` know more of a push of version 1.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None, ack_logs: AckLogs | None = None) -> None:
        saved = saved or {}
        self._lock = threading.Lock()
        token = saved.get("Token")
        self._token = token if isinstance(token, str) and _TOKEN.fullmatch(token) else _new_token()
        self._ack_logs = ack_logs
        self._log = ack_logs.of(self._token) if ack_logs is not None else None
        # Orthanc saves a job now and then, the log is written at once: it is never the older one.
        known = self._log.read() if self._log is not None else {}
        older, saved = saved, {**saved, **known}
        path = saved.get("Transaction")
        self._path = path if isinstance(path, str) and _PATH.fullmatch(path) else None
        cookie = saved.get("Cookie")
        self._cookie = cookie if isinstance(cookie, str) and _HEADER.fullmatch(cookie) else None
        plan = saved.get("Plan")
        self._plan = plan if isinstance(plan, str) else None
        self._completed = _parse_set(saved.get("Completed"))
        if known and all(saved.get(key) == older.get(key) for key in ("Transaction", "Plan")):
            for item in _parse_set(older.get("Completed")):
                self._completed.add(item)
        self.originator_verified = saved.get("OriginatorVerified") is True
        """Whether the peer was the expected one: its identifier changes when it restarts."""

    @property
    def token(self) -> str:
        """Names this transfer to the receiver: the same one asks for the same transfer again."""
        return self._token

    def renew_token(self) -> str:
        """Change the token: what the receiver (or our own staging) has under the old one is of no use."""
        self._forget()
        with self._lock:
            self._token = _new_token()
            self._log = self._ack_logs.of(self._token) if self._ack_logs is not None else None
            return self._token

    @property
    def path(self) -> str | None:
        """Path of the push on the receiver, relative to its root; ``None`` if there is none."""
        return self._path

    @property
    def cookie(self) -> str | None:
        """The cookie that a load balancer in front of the receiver set when the push began."""
        return self._cookie

    @property
    def plan(self) -> str | None:
        """Fingerprint of the buckets that a push of version 1 was created with, ``None`` for version 2."""
        return self._plan

    def begin(self, path: str, plan: str | None = None, cookie: str | None = None) -> None:
        """The receiver created the push at this path; no bucket of version 1 was sent yet."""
        with self._lock:
            self._path = path
            # A load balancer sets its cookie on the first request only.
            self._cookie = cookie or self._cookie
            self._plan = plan
            self._completed = RangeSet()
        state = self._state()
        if state is None:
            self._forget()
        elif self._log is not None:
            self._log.write(state)

    def end(self) -> None:
        """The receiver has no such push any more, or need not be told about it."""
        with self._lock:
            self._path = self._plan = None
            self._completed = RangeSet()
        self._forget()

    def complete(self, index: int) -> None:
        """A bucket of a push of version 1 arrived."""
        with self._lock:
            self._completed.add(Range(index, index + 1))
        if self._log is not None:
            self._log.append(index, self._state)

    def completed(self) -> set[int]:
        """The buckets of a push of version 1 that arrived."""
        with self._lock:
            return {index for item in self._completed for index in range(item.start, item.stop)}

    def to_json(self) -> dict[str, Any]:
        """What ``ResumeState`` takes as ``saved``. Never waits for a disk."""
        with self._lock:
            value: dict[str, Any] = {"Token": self._token, **self._push()}
        if self.originator_verified:
            value["OriginatorVerified"] = True
        return value

    def _push(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if self._path is not None:
            value["Transaction"] = self._path
        if self._cookie is not None:
            value["Cookie"] = self._cookie
        if self._plan is not None:
            value["Plan"] = self._plan
            value["Completed"] = [[item.start, item.stop] for item in self._completed]
        return value

    def _state(self) -> dict[str, Any] | None:
        """What the ack log keeps; ``None`` unless there is a push of version 1."""
        with self._lock:
            return self._push() if self._plan is not None else None

    def _forget(self) -> None:
        if self._log is not None:
            self._log.delete()


def parse_order(saved: Mapping[str, Any]) -> TransferRequest:
    """What the user ordered, from a saved job of ours or of the C++ plugin.

    Raises ``BadRequest``.
    """
    return with_identifier(TransferRequest.parse(dict(saved)))


def with_identifier(order: TransferRequest) -> TransferRequest:
    """The same order with a ``sender_transfer_id``, whether the user named one or not."""
    return order if order.sender_transfer_id else replace(order, sender_transfer_id=str(uuid.uuid4()))


def order_to_json(order: TransferRequest) -> dict[str, Any]:
    """The keys of a saved job of the C++ plugin, and ``Priority``, which it leaves to Orthanc."""
    value: dict[str, Any] = {
        "Peer": order.peer,
        "Resources": order.resources_json,
        "Compression": order.compression.value,
        "SenderTransferID": order.sender_transfer_id,
        "Priority": order.priority,
    }
    if order.originator is not None:
        value["Originator"] = order.originator
    return {**value, **transcode_to_json(order.transcode), **order.extras.to_json()}


def _parse_set(value: Any) -> RangeSet:
    found = RangeSet()
    try:
        for start, stop in value or ():
            if type(start) is not int or type(stop) is not int:
                raise TypeError("not numbers of buckets")
            found.add(Range(start, stop))
    except (TypeError, ValueError):
        # Damaged: the buckets are sent again.
        return RangeSet()
    return found
