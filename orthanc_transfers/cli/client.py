"""HTTP client to the Orthanc that a user names."""

from __future__ import annotations

from typing import Any

import requests

_TIMEOUT = 60.0


class Refused(Exception):
    """That Orthanc refused a request; says what it said."""


class Client:
    """``user`` is ``USER:PASSWORD``. Methods raise ``Refused`` and ``requests.RequestException``."""

    def __init__(self, url: str, user: str | None) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        if user:
            name, _, password = user.partition(":")
            self._session.auth = (name, password)

    def get(self, path: str) -> Any:
        """JSON of a ``GET``."""
        return self._asked("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """JSON of a ``POST`` of JSON."""
        return self._asked("POST", path, body)

    def _asked(self, method: str, path: str, body: Any) -> Any:
        response = self._session.request(method, self.url + path, json=body, timeout=_TIMEOUT)
        if response.status_code == 401:
            raise Refused(f"{self.url} wants another login: --user USER:PASSWORD")
        try:
            value = response.json()
        except ValueError:
            raise Refused(
                f"{self.url}{path} responds with status {response.status_code} and no JSON: is that an Orthanc?"
            ) from None
        if not response.ok:
            details = value.get("Details") or value.get("Message") if isinstance(value, dict) else None
            raise Refused(details or f"{self.url}{path}: status {response.status_code}")
        return value
