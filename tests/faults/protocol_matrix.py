"""One Orthanc that receives in four ways: pushed to it or pulled by it, in either version of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tests.support.orthanc_client import StatusError
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.recording_proxy import RecordingProxy
from tests.support.waiting import wait_until

VARIANTS = ("push-1", "push-2", "pull-1", "pull-2")
PUSH_VARIANTS = VARIANTS[:2]

Resources = Sequence[dict[str, str]]


class Between(Protocol):
    """What stands between the two."""

    url: str

    def forget(self) -> None:
        """As if nothing had passed so far."""


B = TypeVar("B", bound=Between)


@dataclass(frozen=True)
class Transfer:
    """A job, on the server where it runs."""

    server: OrthancServer
    job: str

    def end(self) -> dict[str, Any]:
        """The job once it has ended."""
        return self.server.wait_for_job(self.job)

    def failure(self) -> str:
        """Why it failed."""
        job = self.end()
        assert job["State"] == "Failure", job
        error: str = job["Content"]["Error"]
        return error

    def content(self) -> dict[str, Any]:
        """What it says of itself now, while it goes on, or waits for its peer."""
        job = self.server.job(self.job)
        assert job["State"] in ("Pending", "Running") or "Waiting" in job["Content"], job
        content: dict[str, Any] = job["Content"]
        return content

    def again(self) -> Transfer:
        """Resubmit it."""
        self.server.post(f"jobs/{self.job}/resubmit")
        return self

    def succeed(self) -> dict[str, Any]:
        """Its content, once it has succeeded."""
        job = self.end()
        assert job["State"] == "Success", job
        content: dict[str, Any] = job["Content"]
        return content


@dataclass(frozen=True)
class ProtocolMatrix(Generic[B]):
    """``a`` has the data, ``b`` receives."""

    a: OrthancServer
    b: OrthancServer
    staging: Path
    """Of ``b``."""
    proxies: dict[str, B]
    """By the ways of the transfers that go through them."""

    def start(self, variant: str, resources: Resources, **options: Any) -> Transfer:
        """Begin to transfer, in one of ``VARIANTS``."""
        kind, _, version = variant.partition("-")
        if kind == "push":
            return Transfer(self.a, self.a.send(resources, f"{self.b.name}{version}", **options)["ID"])
        return Transfer(self.b, self.b.pull(resources, f"{self.a.name}{version}", **options)["ID"])

    def receiving(self) -> list[Path]:
        """The folders of what ``b`` is receiving; those of finished ones hold no ``area``."""
        return [path.parent for path in self.staging.glob(f"{'[0-9a-f]' * 32}/area")]

    def received(self) -> int:
        """Bytes on the disk of ``b``, of what it is receiving."""
        return sum((path / "area").stat().st_blocks * 512 for path in self.receiving())

    def nothing_is_left(self) -> None:
        """Wait until ``b`` receives nothing any more, and its staging holds no byte of it."""
        wait_until(lambda: not self.receiving(), "the staging is empty")

    def clear(self) -> None:
        """Delete what is stored, and forget what was asked."""
        for server in (self.a, self.b):
            server.clear()
        for proxy in self.proxies.values():
            proxy.forget()


def nginx(folder: Path, server: OrthancServer, version: int) -> RecordingProxy:
    """What stands between the two unless something else is wanted."""
    return RecordingProxy(folder / f"{server.name}{version}", server, version=version)


@contextmanager
def start_matrix(
    a: OrthancServer,
    b: OrthancServer,
    folder: Path,
    staging: Path,
    transfers: dict[str, Any],
    *,
    between: Callable[[Path, OrthancServer, int], AbstractContextManager[B]] = nginx,
    **properties: Any,
) -> Iterator[ProtocolMatrix[B]]:
    """Start the two; ``transfers`` is laid over the section ``Transfers`` of both.

    ``between`` makes what stands before a server and shows one version of the protocol; ``properties`` are those
    of the peers.
    """
    for server in (a, b):
        server.configuration["Transfers"] = {**server.configuration.get("Transfers", {}), **transfers}
    b.configuration["Transfers"]["StagingDirectory"] = str(staging)
    with ExitStack() as stack:
        proxies = {}
        for variant in VARIANTS:
            kind, _, version = variant.partition("-")
            asking, asked = (a, b) if kind == "push" else (b, a)
            proxies[variant] = stack.enter_context(between(folder, asked, int(version)))
            asking.add_peer(f"{asked.name}{version}", asked, **{"Url": proxies[variant].url, **properties})
        start_together(a, b)
        yield ProtocolMatrix(a, b, staging, proxies)


def status_of(error: StatusError) -> tuple[int, str]:
    """The status of an answer that was an error, and what it said."""
    return error.status, error.body.decode(errors="replace")
