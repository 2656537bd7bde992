"""Client of Orthanc's REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from tests.support.waiting import wait_until

FINISHED = ("Success", "Failure")
"""The states in which a job of Orthanc has ended."""


class OrthancError(Exception):
    """An Orthanc that is missing, does not start, or answers something else than 200."""


class StatusError(OrthancError):
    """An HTTP status other than 200. ``status`` is it, ``body`` what came with it."""

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class OrthancClient:
    """Talks to one Orthanc; over HTTPS if there is a ``certificate``, a PEM file. ``name`` is for messages."""

    def __init__(
        self,
        name: str,
        host: str,
        http_port: int,
        *,
        user: str | None = None,
        password: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.http_port = http_port
        self.user = user
        self.password = password
        self.certificate = certificate
        self._session = self._new_session()

    @property
    def url(self) -> str:
        """Root of the REST API, with a slash at its end."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{self.host}:{self.http_port}/"

    def check_alive(self, context: str) -> None:
        """Raises ``OrthancError`` with ``context`` if it is known that waiting is in vain."""

    # -- REST ---------------------------------------------------------------------------------------

    def request(self, method: str, path: str, *, timeout: float = 120.0, **options: Any) -> requests.Response:
        """One request, whatever its status. ``options`` are those of ``requests``."""
        address = self.url + path.lstrip("/")
        if method == "GET":
            return self._session.get(address, timeout=timeout, **options)
        # Orthanc closes a connection that was idle for a second, maybe under the next request. That one is
        # simply asked again if it is a GET; the others must not happen twice, and get a connection each.
        with self._new_session() as session:
            return session.request(method, address, timeout=timeout, **options)

    def get(self, path: str, **options: Any) -> Any:
        """JSON, or text where it is none. Raises ``StatusError``."""
        return self._answer("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """``body`` is sent as it is if it is bytes, else as JSON. Raises ``StatusError``."""
        return self._answer("POST", path, **_body(body), **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        """As ``post``."""
        return self._answer("PUT", path, **_body(body), **options)

    def delete(self, path: str, **options: Any) -> Any:
        """Raises ``StatusError``."""
        return self._answer("DELETE", path, **options)

    def download(self, path: str) -> bytes:
        """The bytes of an answer. Raises ``StatusError``."""
        return self._checked("GET", path).content

    # -- DICOM --------------------------------------------------------------------------------------

    def upload(self, data: bytes) -> dict[str, Any]:
        """Store one file; what Orthanc says of it (``ID``, ``Status``, ``ParentStudy``…)."""
        answer: dict[str, Any] = self.post("instances", data)
        return answer

    def upload_all(self, files: Iterable[bytes], threads: int = 4) -> list[dict[str, Any]]:
        """Store files, several at once; the answers in their order."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._upload_beside_others, files))

    def _upload_beside_others(self, data: bytes) -> dict[str, Any]:
        try:
            return self.upload(data)
        except StatusError as error:
            # Two threads of Orthanc that make the same folder at once: one of them may fail with 2001.
            if b'"OrthancStatus" : 2001' not in error.body:
                raise
            return self.upload(data)

    def instances(self) -> list[str]:
        """The identifiers of all that is stored, sorted."""
        found: list[str] = self.get("instances")
        return sorted(found)

    def md5s(self, resource: str = "") -> dict[str, str]:
        """MD5 of the file of each instance, of all or below a resource such as ``studies/<id>``.

        Comes from Orthanc's index: what the files had when they were stored.
        """
        below = self.get(f"{resource}/instances") if resource else None
        found = self.instances() if below is None else [item["ID"] for item in below]
        with ThreadPoolExecutor(4) as pool:
            values = pool.map(lambda one: self.get(f"instances/{one}/attachments/dicom/md5"), found)
            return dict(sorted(zip(found, values, strict=True)))

    def clear(self) -> None:
        """Delete all that is stored."""
        for patient in self.get("patients"):
            self.delete(f"patients/{patient}")

    # -- Transfers ----------------------------------------------------------------------------------

    def send(self, resources: Sequence[Mapping[str, str]], peer: str, **options: Any) -> dict[str, Any]:
        """``POST /transfers/send``: its answer. ``options`` are further keys of the body."""
        answer: dict[str, Any] = self.post(
            "transfers/send", {"Resources": list(resources), "Peer": peer, **options}
        )
        return answer

    def pull(self, resources: Sequence[Mapping[str, str]], peer: str, **options: Any) -> dict[str, Any]:
        """``POST /transfers/pull``: its answer. ``options`` are further keys of the body."""
        answer: dict[str, Any] = self.post(
            "transfers/pull", {"Resources": list(resources), "Peer": peer, **options}
        )
        return answer

    def job(self, identifier: str) -> dict[str, Any]:
        """What ``GET /jobs/{id}`` says."""
        answer: dict[str, Any] = self.get(f"jobs/{identifier}")
        return answer

    def wait_for_job(
        self, identifier: str, states: Sequence[str] = FINISHED, timeout: float = 120.0
    ) -> dict[str, Any]:
        """The job once it is in one of the states.

        Raises ``TimeoutError`` with what it was last, ``OrthancError`` if ``check_alive`` does.
        """
        last: dict[str, Any] = {}

        def arrived() -> bool:
            self.check_alive(f"the job was {last}")
            last.clear()
            last.update(self.job(identifier))
            return last["State"] in states

        try:
            wait_until(arrived, f"job {identifier}", timeout)
        except TimeoutError:
            raise TimeoutError(f"the job is not {' or '.join(states)} after {timeout:g} s: {last}") from None
        return last

    # -- Inside -------------------------------------------------------------------------------------

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # Neither a proxy nor the certificates of this machine have a part in talking to oneself.
        session.trust_env = False
        session.verify = str(self.certificate) if self.certificate else True
        if self.user is not None:
            # Bytes, for text would go out as Latin-1, where Orthanc expects UTF-8.
            session.auth = (self.user.encode(), (self.password or "").encode())
        retry = requests.adapters.Retry(connect=0, read=2, status=0, other=0, backoff_factor=0.05)
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=16, max_retries=retry)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def forget_connections(self) -> None:
        self._session.close()
        self._session = self._new_session()

    def _checked(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self.request(method, path, **options)
        if answer.status_code != 200:
            raise StatusError(
                f"{self.name}: {method} /{path.lstrip('/')}: {answer.status_code} {answer.text[:500]}",
                answer.status_code,
                answer.content,
            )
        return answer

    def _answer(self, method: str, path: str, **options: Any) -> Any:
        answer = self._checked(method, path, **options)
        try:
            return answer.json()
        except ValueError:
            return answer.text


def _body(body: Any) -> dict[str, Any]:
    if body is None:
        return {"data": b""}
    return {"data": body} if isinstance(body, bytes) else {"json": body}


def resource(level: str, identifier: str) -> dict[str, str]:
    """One entry of ``Resources``."""
    return {"Level": level, "ID": identifier}
