"""Failpoints in named methods of the plugin, inside Orthanc: the process dies, stops, waits or is slowed there.

The plugin itself is the real one; some of its methods are wrapped. A failpoint is armed by a file
``failpoints/<name> before`` or ``failpoints/<name> after`` in the working directory, which holds one of

    kill N       the process dies of SIGKILL at the N-th call from now
    stop N       the process is stopped (SIGSTOP) at the N-th call from now
    kill N FOLDER, stop N FOLDER    the same for the first of several processes that makes this folder
    wait         every thread that gets there waits until the file is gone
    wait N       the same, from the N-th call from now on
    slow S       every thread that gets there takes S seconds longer

and the file ``failpoints/.<name> … reached`` says that a thread got there.

A name is that of the method (``Area.write``); a request to a peer is named by its kind too
(``RequestsTransport.send POST commit``). Tests arm failpoints by ``failpoints.Failpoint``. That each name used in a
test is one of these, and each of these a method of the product, is shown by ``test_failpoint_names``.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orthanc_transfers.interfaces import PeerRequest

METHODS = {
    "host.durability": ["Durability.sync_index"],
    "host.store": [
        *("OrthancStore.beginning", "OrthancStore.manifest", "OrthancStore.md5s"),
        *("OrthancStore.add", "OrthancStore.remove"),
    ],
    "host.native.sdk": ["Sdk.rest_get"],
    "host.extras_store": ["OrthancExtras.put"],
    "receiver.extras_folder": ["ExtrasFolder.take", "ExtrasFolder.keep_before"],
    "rest.peer_routes": [
        *("PeerRoutes.lookup", "PeerRoutes.get_chunks", "PeerRoutes.post_chunks"),
        *("PeerRoutes.create_push_v1", "PeerRoutes.put_bucket", "PeerRoutes.commit_push_v1"),
        *("PeerRoutes.create_push_v2", "PeerRoutes.put_ranges", "PeerRoutes.commit_push_v2"),
        "PeerRoutes.whole_push",
    ],
    "receiver.area": [
        *(
            "Area.grow",
            "Area.write",
            "Area.journal_ranges",
            "Area.journal_committing",
            "Area.journal_receiving",
            "Area.journal_outcome",
        ),
    ],
    "receiver.commit": ["Commit.run"],
    "receiver.memory_area": [
        *("MemoryArea.write", "MemoryArea.journal_committing", "MemoryArea.journal_outcome"),
    ],
    "jobs.ack_log": ["AckLog.write", "AckLog.append"],
    "jobs.pull": ["PullJob.work"],
    "jobs.push": ["PushJob.work"],
    "receiver.reports": ["Reports.write", "Reports._sync_all"],
    "pipeline.chunk_reader": ["ChunkReader.read"],
    "receiver.staging": ["Staging.create"],
    "net.requests_transport": ["RequestsTransport.send"],
    "cluster.ownership": ["PostgresOwnership.claim", "PostgresOwnership.end"],
    "rest.handing_on": ["HandingOn.send"],
    "rules.intake": ["Intake.catch_up"],
    "rules.queue": ["Queue.add"],
    "rules.running": ["RunningJobs.new_transfer", "RunningJobs.submit", "RunningJobs._submit"],
    "rules.outcomes": ["Outcomes.record"],
    "rules.finishing": ["Finishing.finish"],
    "rules.finisher": ["Finisher._finish"],
}
"""Module of the product -> its methods that have failpoints."""

FOLDER = Path("failpoints")

_lock = threading.Lock()
_calls: Counter[str] = Counter()


def methods() -> Iterator[tuple[str, type, str]]:
    """Name, class and method of each of ``METHODS``. Raises ``LookupError`` naming the one that does not exist."""
    for module_name, names in METHODS.items():
        for name in names:
            class_name, method = name.split(".")
            try:
                class_ = getattr(importlib.import_module(f"orthanc_transfers.{module_name}"), class_name)
                vars(class_)[method]
            except (ImportError, AttributeError, KeyError):
                raise LookupError(
                    f"failpoint_hooks.METHODS: orthanc_transfers.{module_name} has no {name}"
                ) from None
            yield name, class_, method


def install() -> None:
    """Wrap all of ``METHODS``. Raises ``LookupError``."""
    for name, class_, method in list(methods()):
        setattr(class_, method, with_failpoints(name, vars(class_)[method]))


def with_failpoints(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, with a failpoint before it and one after it."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        full = name + request_kind(arguments)
        _hit(f"{full} before")
        result = method(*arguments, **options)
        _hit(f"{full} after")
        return result

    return call


def request_kind(arguments: tuple[Any, ...]) -> str:
    """`` POST commit`` of a request to ``/transfers/v2/push/<id>/commit``; empty for other arguments."""
    if len(arguments) < 2 or not isinstance(request := arguments[1], PeerRequest):
        return ""
    path = request.path.partition("?")[0]
    words = re.findall("[a-z]{4,}", re.sub("[0-9a-f]{8,}.*?(?=/|$)", "", path))
    return f" {request.method} {words[-1]}"


def _hit(name: str) -> None:
    """Do what the failpoint is armed for, if it is."""
    file = FOLDER / name
    try:
        order = file.read_text()
    except FileNotFoundError:
        return
    action, value, claimed = (*order.split(" ", 2), "", "")[:3]
    reached = FOLDER / f".{name} reached"
    if action == "slow":
        reached.touch()
        time.sleep(float(value))
        return
    try:
        with _lock:
            # The same order given again is another one: its file has another time.
            key = f"{name} {file.stat().st_mtime_ns}"
            _calls[key] += 1
            calls = _calls[key]
            if action != "wait" and calls == int(value):
                reached.touch()
                file.unlink()
                if claimed:
                    os.mkdir(claimed)
                # Sent to this very thread, so that it does not get any further.
                signal.pthread_kill(
                    threading.get_ident(), signal.SIGSTOP if action == "stop" else signal.SIGKILL
                )
    except (FileNotFoundError, FileExistsError):
        return  # disarmed just now, or it is another one's turn
    if action == "wait" and calls >= int(value or 1):
        reached.touch()
        while file.exists():
            time.sleep(0.01)
