"""Orders jobs of an Orthanc and looks at them, with little of the processor time that is being measured."""

from __future__ import annotations

import json
from datetime import datetime
from http.client import HTTPConnection, HTTPSConnection, RemoteDisconnected
from ssl import create_default_context
from typing import Any

from tests.support.orthanc_client import OrthancClient


class JobClient:
    """One connection, kept: a new one for each of hundreds of jobs takes longer than a small transfer."""

    def __init__(self, server: OrthancClient) -> None:
        if server.certificate is None:
            self._connection = HTTPConnection(server.host, server.http_port)
        else:
            trusted = create_default_context(cafile=str(server.certificate))
            self._connection = HTTPSConnection(server.host, server.http_port, context=trusted)

    def begin(self, path: str, body: Any) -> str:
        """The identifier of the job that a POST begins. Raises ``RuntimeError`` if it is refused."""
        return str(self._ask("POST", path, json.dumps(body))["ID"])

    def look(self, job: str) -> dict[str, Any]:
        """What ``GET /jobs/{id}`` says."""
        try:
            return self._ask("GET", f"jobs/{job}")
        except RemoteDisconnected:  # Orthanc closes a connection that was idle for a second
            self._connection.close()
            return self._ask("GET", f"jobs/{job}")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        self._connection.request(method, f"/{path}", body)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} /{path}: {answer.status} {text[:500]!r}")
        found: dict[str, Any] = json.loads(text)
        return found


_NO_SUMS = ("Protocol", "CompressionRatio", "NetworkSpeedKBs", "EstimatedSecondsLeft")


def own_seconds(job: dict[str, Any]) -> float:
    """From the request for a job that has ended until its end, by its own times."""
    created, completed = (
        datetime.strptime(job[key], "%Y%m%dT%H%M%S.%f") for key in ("CreationTime", "CompletionTime")
    )
    return (completed - created).total_seconds()


def in_sum(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """The contents of several jobs as one: numbers, also those in objects, added up; of anything else, the last."""
    merged: dict[str, Any] = {}
    for content in contents:
        for key, value in content.items():
            known = merged.get(key)
            if key in _NO_SUMS:
                merged[key] = value
            elif isinstance(value, dict):
                merged[key] = in_sum([known or {}, value])
            elif isinstance(value, int | float) and known is not None:
                merged[key] = known + value
            else:
                merged[key] = value
    return merged
