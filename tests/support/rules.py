"""Rules of a real Orthanc, in tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.dicom_data import small_instances
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

STABLE = {"StableAge": 2}
"""Configuration of Orthanc: a study is stable after two seconds. After one, it was that now and then on a busy machine
before all of it had been stored, and then once more."""


def rule(name: str = "all", to: str | list[str] = "b", **keys: Any) -> dict[str, Any]:
    """The JSON of a rule."""
    return {"Name": name, "Trigger": "StableStudy", "Destinations": to, **keys}


def set_rule(server: OrthancServer, name: str = "all", **keys: Any) -> dict[str, Any]:
    """Add a rule, or change it."""
    done: dict[str, Any] = server.put(f"transfers/rules/{name}", rule(name, **keys))
    return done


def remove_rules(server: OrthancServer) -> None:
    """Those that were set at run time."""
    for one in server.get("transfers/rules")["Rules"]:
        server.delete(f"transfers/rules/{one['Name']}")


def queue(server: OrthancServer, **query: Any) -> list[dict[str, Any]]:
    """What waits and runs."""
    found: list[dict[str, Any]] = server.get("transfers/queue", params={"limit": 1000, **query})["Entries"]
    return found


def history(server: OrthancServer, **query: Any) -> list[dict[str, Any]]:
    """What has ended, the newest first."""
    found = server.get("transfers/queue/history", params={"limit": 1000, **query})["Entries"]
    return list(found)


def states(server: OrthancServer, study: str) -> list[str]:
    """States of the entries of a resource, ended ones first."""
    entries = [*history(server)[::-1], *queue(server)]
    return [one["State"] for one in entries if one["Resource"]["ID"] == study]


def study(server: OrthancServer, count: int = 2) -> str:
    """Upload a small study, and return its identifier."""
    (found,) = {one["ParentStudy"] for one in server.upload_all(small_instances(count))}
    return str(found)


def has(server: OrthancServer, studies: Iterable[str]) -> bool:
    """Whether all of these studies are there."""
    return set(studies) <= set(server.get("studies"))


def wait_ended(server: OrthancServer, study: str, state: str = "Done") -> dict[str, Any]:
    """Wait until the last entry of a resource has ended in that state."""

    def last() -> dict[str, Any] | None:
        found = [one for one in history(server) if one["Resource"]["ID"] == study]
        return found[0] if found and found[0]["State"] == state else None

    ended: dict[str, Any] = wait_until(last, f"the entry of {study} is {state}")
    return ended
