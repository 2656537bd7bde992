"""Starts a transfer and shows it until its end; lists transfers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from orthanc_transfers.cli.client import Client
from orthanc_transfers.core import paths

# Seconds between two looks at a job.
_LOOK = 0.5

_STARTED = {"send": paths.SEND, "pull": paths.PULL}


def start(client: Client, command: str, order: Mapping[str, Any], *, wait: bool) -> int:
    """Start a transfer; ``wait`` for its end and show it. Returns 0 if it succeeded, or was only started."""
    response = client.post(_STARTED[command], order)
    # An older plugin on that side starts no job here when the peer pulls.
    job = response.get("ID")
    if job is None or not wait:
        print(job or response.get("URL"))
        return 0
    try:
        return _watch(client, job)
    except KeyboardInterrupt:
        print(f"The transfer goes on: job {job}. To end it: curl -X POST {client.url}{paths.job(job)}/cancel")
        raise


def _watch(client: Client, identifier: str) -> int:
    with tqdm(total=100, unit="%", bar_format="{percentage:3.0f}% |{bar}| {elapsed} {postfix}") as bar:
        while True:
            job = client.get(paths.job(identifier))
            content = job.get("Content", {})
            bar.n = job.get("Progress", 0)
            bar.set_postfix_str(_now(job["State"], content))
            if job["State"] in ("Success", "Failure"):
                break
            time.sleep(_LOOK)
    if job["State"] == "Failure":
        print(f"failed: {content.get('Error') or job.get('ErrorDescription')}")
        return 1
    report = content.get("Report", {})
    counted = ", ".join(f"{key}: {value}" for key, value in report.items() if isinstance(value, int))
    print(
        f"done: {content.get('TotalInstances', '?')} instances, {content.get('TotalSizeMB', '?')} MB ({counted})"
    )
    return 0


def _now(state: str, content: Mapping[str, Any]) -> str:
    """What a transfer does at this moment, in a few words."""
    if content.get("Waiting"):
        return f"waits: {content['Waiting']}"
    words = [str(content.get("Phase") or state)]
    if content.get("NetworkSpeedKBs"):
        words.append(f"{content['NetworkSpeedKBs'] / 1024:.1f} MB/s")
    if content.get("EstimatedSecondsLeft") is not None:
        words.append(f"{content['EstimatedSecondsLeft']} s left")
    return ", ".join(words)


def show_status(client: Client, limit: int) -> int:
    """Print the newest transfers, one a line."""
    transfers = client.get(f"{paths.STATUS}?limit={limit}")["Transfers"]
    if not transfers:
        print("no transfers yet")
    for one in transfers:
        size = one.get("Bytes") or 0
        done = f"{100 * (one.get('DoneBytes') or 0) // size:3d}%" if size else "   -"
        waiting = one.get("Waiting") or {}
        words = (
            one.get("Error") or (f"waits: {waiting['For']}" if waiting.get("For") else one.get("Phase")) or ""
        )
        way = "to" if one.get("Direction") == "send" else "from"
        peer = one.get("Peer") or one.get("RemoteAddress") or "?"
        print(f"{one['ID']}  {one['State']:<8} {done}  {size / 1e6:9.1f} MB  {way} {peer}  {words}".rstrip())
    return 0
