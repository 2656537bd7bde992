"""The script of an Orthanc that dies, waits or dawdles in the middle of a named method of the plugin.

The plugin itself is the real one: this only stands at the door of some of its methods. A trap is a file
``traps/<name> before`` or ``traps/<name> after`` in the working directory, which holds one of

    kill N       the process dies of SIGKILL at the N-th time from now
    stop N       the process stands still (SIGSTOP) at the N-th time from now
    wait         every thread that comes there waits until the file is gone
    slow S       every thread that comes there takes S seconds longer

and the file ``traps/.<name> … reached`` says that somebody came there.

Names are those of the methods (``Area.write``); a request to a peer is named by its kind too
(``RequestsTransport.send POST commit``). See ``world.Trap`` for how tests set them.
"""

from __future__ import annotations

import functools
import importlib
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
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
    "rest.peer_routes": [
        *("PeerRoutes.lookup", "PeerRoutes.get_chunks", "PeerRoutes.post_chunks", "PeerRoutes.report"),
        *("PeerRoutes.create_push", "PeerRoutes.put_bucket", "PeerRoutes.commit_push"),
        *(
            "PeerRoutes.create_push_2",
            "PeerRoutes.put_ranges",
            "PeerRoutes.commit_push_2",
            "PeerRoutes.push_status",
        ),
    ],
    "receiver.area": [
        *(
            "Area.grow",
            "Area.write",
            "Area.note",
            "Area.note_committing",
            "Area.note_receiving",
            "Area.note_outcome",
        ),
    ],
    "receiver.commit": ["Commit.run"],
    "receiver.writer": ["AreaWriter.check"],
    "jobs.ack_log": ["AckLog.write", "AckLog.note"],
    "jobs.pull": ["PullJob.work"],
    "jobs.push": ["PushJob.work"],
    "receiver.reports": ["Reports.write"],
    "pipeline.instance_cache": ["InstanceCache.pieces"],
    "receiver.staging": ["Staging.create"],
    "net.requests_transport": ["RequestsTransport.send"],
}

TRAPS = Path("traps")

_lock = threading.Lock()
_visits: Counter[str] = Counter()


def kind(arguments: tuple[Any, ...]) -> str:
    """`` POST commit`` of a request to ``/transfers/v2/push/<id>/commit``; nothing of other arguments."""
    if len(arguments) < 2 or not isinstance(request := arguments[1], PeerRequest):
        return ""
    path = request.path.partition("?")[0]
    words = re.findall("[a-z]{4,}", re.sub("[0-9a-f]{8,}.*?(?=/|$)", "", path))
    return f" {request.method} {words[-1]}"


def come_by(place: str) -> None:
    """What is to happen here, if anything."""
    file = TRAPS / place
    try:
        order = file.read_text()
    except FileNotFoundError:
        return
    (TRAPS / f".{place} reached").touch()
    action, _, value = order.partition(" ")
    if action == "slow":
        time.sleep(float(value))
    elif action == "wait":
        while file.exists():
            time.sleep(0.01)
    else:
        with _lock:
            # The same order given again is another one: its file has another time.
            key = f"{place} {file.stat().st_mtime_ns}"
            _visits[key] += 1
            if _visits[key] == int(value):
                file.unlink()
                # Sent to this very thread, so that it does not get any further.
                signal.pthread_kill(
                    threading.get_ident(), signal.SIGSTOP if action == "stop" else signal.SIGKILL
                )


def guarded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        place = name + kind(arguments)
        come_by(f"{place} before")
        result = method(*arguments, **options)
        come_by(f"{place} after")
        return result

    return call


for module_name, names in METHODS.items():
    module = importlib.import_module(f"orthanc_transfers.{module_name}")
    for name in names:
        owner, method_name = name.split(".")
        class_ = getattr(module, owner)
        setattr(class_, method_name, guarded(name, vars(class_)[method_name]))

import orthanc_transfers  # noqa: E402  (its methods are guarded from here on only)

orthanc_transfers.register()
