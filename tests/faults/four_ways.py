"""One Orthanc that receives in four ways: pushed to it or pulled by it, in either version of the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.front import Front
from tests.support.orthanc_server import OrthancServer, StatusError, start_together, wait_until

WAYS = ("push-1", "push-2", "pull-1", "pull-2")
PUSHES = WAYS[:2]

Resources = Sequence[dict[str, str]]


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
        """What it says of itself now, while it goes on."""
        job = self.server.job(self.job)
        assert job["State"] in ("Pending", "Running"), job
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
class FourWays:
    """``a`` has the data, ``b`` receives."""

    a: OrthancServer
    b: OrthancServer
    staging: Path
    """Of ``b``."""
    fronts: dict[str, Front]
    """By the ways of the transfers that go through them."""

    def start(self, way: str, resources: Resources, **options: Any) -> Transfer:
        """Begin to transfer, in one of ``WAYS``."""
        kind, _, version = way.partition("-")
        if kind == "push":
            return Transfer(self.a, self.a.send(resources, f"b{version}", **options)["ID"])
        return Transfer(self.b, self.b.pull(resources, f"a{version}", **options)["ID"])

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
        for front in self.fronts.values():
            front.forget()


@contextmanager
def four_ways(
    a: OrthancServer, b: OrthancServer, folder: Path, staging: Path, transfers: dict[str, Any]
) -> Iterator[FourWays]:
    """Start the two; ``transfers`` is laid over the section ``Transfers`` of both."""
    for server in (a, b):
        server.configuration["Transfers"] = {**server.configuration.get("Transfers", {}), **transfers}
    b.configuration["Transfers"]["StagingDirectory"] = str(staging)
    with (
        Front(folder / "b1", b, version=1) as b1,
        Front(folder / "b2", b) as b2,
        Front(folder / "a1", a, version=1) as a1,
        Front(folder / "a2", a) as a2,
    ):
        for name, front in (("b1", b1), ("b2", b2)):
            a.add_peer(name, b, Url=front.url)
        for name, front in (("a1", a1), ("a2", a2)):
            b.add_peer(name, a, Url=front.url)
        start_together(a, b)
        yield FourWays(a, b, staging, dict(zip(WAYS, (b1, b2, a1, a2), strict=True)))


def status_of(error: StatusError) -> tuple[int, str]:
    """The status of an answer that was an error, and what it said."""
    return error.status, error.body.decode(errors="replace")
