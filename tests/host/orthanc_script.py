"""The script of a real Orthanc: each route shows one part of ``host/``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orthanc_transfers.core import errors
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule_filter import Wanted
from orthanc_transfers.core.settings import parse_settings
from orthanc_transfers.host import lifecycle, logs
from orthanc_transfers.host.durability import Durability
from orthanc_transfers.host.jobs import JobEngine
from orthanc_transfers.host.native import context
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.peers import OrthancPeers
from orthanc_transfers.host.router import Router
from orthanc_transfers.host.rule_facts import OrthancFacts
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.host.storage_check import StorageCheck
from orthanc_transfers.host.store import OrthancStore
from orthanc_transfers.host.study_texts import OrthancTexts
from orthanc_transfers.interfaces import PeerRequest, StepOutcome, StopReason
from orthanc_transfers.rest.http import Request, Response, Route, json_response
from orthanc_transfers.runtime.cancellation import Cancellation

METHODS = ("GET", "POST", "PUT", "DELETE")


class CountingSdk(Sdk):
    """Counts what Orthanc is asked for, and how often that was the state of a job."""

    looks = 0
    asked: int = 0
    """How often Orthanc was asked for anything."""
    kinds: list[str]
    """Of these questions, since this was last emptied: the path, and what is searched for."""
    after: Callable[[], None] = staticmethod(lambda: None)
    """Called after each time."""

    def rest_get(self, uri: str) -> bytes:
        answer = super().rest_get(uri)
        self.looks += uri.startswith("/jobs/")
        self.kinds.append("/".join(uri.split("/")[:2] + uri.split("/")[3:]))
        self._count()
        return answer

    def rest_post(self, uri: str, body: bytes) -> bytes:
        answer = super().rest_post(uri, body)
        if uri.startswith("/tools/"):
            asked = json.loads(body)
            keys = sorted(
                key for key in (*asked, *asked.get("Query", ())) if key.startswith(("Parent", "SOP"))
            )
            self.kinds.append(" by ".join([f"{uri} {asked['Level']}", *keys]))
        self._count()
        return answer

    def _count(self) -> None:
        self.asked += 1
        self.after()


sdk = CountingSdk(context.find_context())
sdk.kinds = []
log = logs.install(sdk)
storage = Path(sdk.configuration()["StorageDirectory"])
storage_check = StorageCheck(storage, sdk.storage_is_elsewhere)
durability = Durability(storage, storage, files_synced=True)
store = OrthancStore(sdk, StorageArea(storage), durability, storage_check)
peers = OrthancPeers(sdk, sdk.configuration(), parse_settings({}))
moments: list[str] = []
calls: list[str] = []
large = bytes(range(256)) * (16 * 4096)


class SteppingJob:
    """Does as many steps as it is told to, then succeeds or fails."""

    type = "PushTransfer"
    waits = False

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.state = {"Steps": 3, "Done": 0, "Fails": False, "Raises": False, **wanted}
        self.resume = threading.Event()

    def set_identifier(self, identifier: str) -> None:
        calls.append(f"known as {identifier}")

    def step(self) -> StepOutcome:
        if self.state["Raises"]:
            raise ValueError("a step that raises")
        time.sleep(0.02)
        self.state["Done"] += 1
        if self.state["Done"] < self.state["Steps"]:
            return StepOutcome.CONTINUE
        return StepOutcome.FAILURE if self.state["Fails"] else StepOutcome.SUCCESS

    def stop(self, reason: StopReason) -> None:
        calls.append(f"stop {reason.name}")

    def rest(self) -> None:
        calls.append("rest")

    def hurry(self) -> None:
        calls.append("hurry")

    def reset(self) -> None:
        calls.append("reset")
        self.state["Done"] = 0
        self.state["Fails"] = False

    def content(self) -> dict[str, Any]:
        return {"Done": self.state["Done"], "Name": "Müller ☃"}

    def serialized(self) -> dict[str, Any]:
        return dict(self.state)

    def progress(self) -> float:
        return float(min(1, self.state["Done"] / self.state["Steps"]))

    def failure(self) -> str | None:
        ended = self.state["Done"] >= self.state["Steps"]
        return "the sentence of a failed job" if self.state["Fails"] and ended else None

    def release(self) -> None:
        calls.append("release")
        log.warning("released after %d steps", self.state["Done"])


def reload(type_: str, saved: dict[str, Any]) -> SteppingJob:
    log.warning("reloaded %s without Type: %s, at step %d", type_, "Type" not in saved, saved["Done"])
    return SteppingJob(saved)


engine = JobEngine(sdk, reload)


def echo(request: Request) -> Response:
    return json_response(
        {
            "method": request.method,
            "path": request.path,
            "groups": request.groups,
            "query": dict(request.query),
            "headers": dict(request.headers),
            "md5": hashlib.md5(request.body).hexdigest(),
            "size": len(request.body),
            "readonly": request.body.readonly,
        }
    )


def refuse(request: Request) -> Response:
    kind = getattr(errors, request.groups[0])
    if issubclass(kind, errors.HostError):
        raise kind("a sentence", 17)
    if issubclass(kind, errors.PeerError):
        raise kind("a sentence", "peer")
    raise kind("a sentence")


def fail(request: Request) -> Response:
    raise ValueError("a mistake in a handler")


def headers(request: Request) -> Response:
    return Response(memoryview(b"bytes")[1:], "application/octet-stream", {"x-one": "1", "x-two": "zwei"})


def submit(request: Request) -> Response:
    return json_response(engine.submit(SteppingJob(request.json()), 5))


def manifest(request: Request) -> Response:
    resources = [Resource(Level(item["Level"]), item["ID"]) for item in request.json()]
    sdk.kinds.clear()
    started = time.perf_counter()
    found = store.manifest(resources)
    seconds = time.perf_counter() - started
    instances = [asdict(instance) for instance in found]
    return json_response({"instances": instances, "seconds": seconds, "kinds": sdk.kinds})


def beginning(request: Request) -> Response:
    resources = [Resource(Level(item["Level"]), item["ID"]) for item in request.json()]
    before = sdk.asked
    found = store.beginning(resources, int(request.groups[0]))
    return json_response(
        {
            "instances": [asdict(instance) for instance in found.manifest],
            "more": found.more,
            "asked": sdk.asked - before,
        }
    )


def md5s(request: Request) -> Response:
    """Of instances; their SOP Instance UIDs may be given."""
    wanted = request.json()
    sdk.kinds.clear()
    started = time.perf_counter()
    found = store.md5s(wanted, None, wanted.get if isinstance(wanted, dict) else None)
    seconds = time.perf_counter() - started
    return json_response({"md5s": found, "seconds": seconds, "kinds": sdk.kinds})


def study_text(request: Request) -> Response:
    level, identifier = request.groups
    texts = OrthancTexts(sdk)
    texts.text(Resource(Level(level), identifier))  # which version this is, is asked once
    sdk.kinds.clear()
    text = texts.text(Resource(Level(level), identifier))
    return json_response({"text": None if text is None else asdict(text), "kinds": sdk.kinds})


def intact(request: Request) -> Response:
    """Whether the file of an instance is as the index says, or else has that MD5."""
    return json_response({"intact": store.is_intact(request.groups[0], request.groups[1])})


def interrupted(request: Request) -> Response:
    """How often Orthanc was asked in all, if a cancellation comes after so many times."""
    kind, limit, wanted = request.groups[0], int(request.groups[1]), request.json()
    cancellation = Cancellation()
    before = sdk.asked

    def look() -> None:
        if sdk.asked - before == limit:
            cancellation.cancel()

    sdk.after = look
    try:
        if kind == "md5s":
            store.md5s(wanted, cancellation)
        elif kind == "beginning":
            store.beginning([Resource(Level(item["Level"]), item["ID"]) for item in wanted], 64, cancellation)
        else:
            store.manifest([Resource(Level(item["Level"]), item["ID"]) for item in wanted], cancellation)
        canceled = False
    except errors.Canceled:
        canceled = True
    finally:
        del sdk.after
    return json_response({"asked": sdk.asked - before, "canceled": canceled})


def read_part(request: Request) -> Response:
    identifier, offset, size = request.groups
    part = bytearray(int(size))
    found = store.read_into(memoryview(part), identifier, int(offset))
    return Response(bytes(part) if found else b"", "application/octet-stream")


def read(request: Request) -> Response:
    return Response(store.read(request.groups[0]), "application/dicom")


def add(request: Request) -> Response:
    forms = {"view": request.body, "bytes": bytes(request.body), "bytearray": bytearray(request.body)}
    imported = store.add(forms[request.groups[0]])
    return json_response([imported.status.value, imported.id])


def remove(request: Request) -> Response:
    store.remove(request.groups[0])
    return json_response({})


def syntax(request: Request) -> Response:
    return json_response(store.transfer_syntax(request.groups[0]))


def rule_facts(request: Request) -> Response:
    level, identifier = request.groups
    wanted = request.json()
    known = wanted.pop("known")
    wanted = Wanted(**{**wanted, "tags": frozenset(wanted.get("tags", ()))})
    reader = OrthancFacts(sdk, lambda instance: frozenset(known or ()), ["1030"])
    before = sdk.asked
    found = reader.facts(Resource(Level(level), identifier), wanted)
    asked = sdk.asked - before
    shown = None if found is None else asdict(found)
    return json_response(
        json.loads(
            json.dumps(
                [reader.why_unusable(wanted), asked, shown], default=lambda some: sorted(some, key=str)
            )
        )
    )


def list_peers(request: Request) -> Response:
    return json_response({name: peers.remote_self(name) for name in peers.names()})


def call_peer(request: Request) -> Response:
    wanted = request.json()
    try:
        transport = peers.connect(wanted["peer"], 2)
        with contextlib.closing(transport):
            answer = transport.send(
                PeerRequest(
                    wanted["method"],
                    wanted["path"],
                    body=[piece.encode() for piece in wanted["pieces"]],
                    headers=wanted["headers"],
                    limit=wanted.get("limit"),
                )
            )
        outcome: dict[str, Any] = {"body": bytes(answer.body).decode(), "headers": dict(answer.headers)}
    except TransferError as error:
        outcome = {
            "error": type(error).__name__,
            "text": str(error),
            "status": getattr(error, "peer_status", 0),
        }
        return json_response(outcome)
    return json_response({**outcome, "transport": type(transport).__name__, "shown": repr(transport)})


written: list[Request] = []


def count_written(request: Request) -> Response:
    """The number of its own responses that are written."""
    return Response(str(len(written)).encode(), "text/plain", written=lambda: written.append(request))


def said(request: Request) -> Response:
    lifecycle.publish_metrics(sdk, {"orthanc_transfers_test_value": 42})
    return json_response(
        {
            "version": sdk.version,
            "moments": moments,
            "calls": calls,
            "looks": sdk.looks,
            "other": context.other_transfers_plugin_loaded(),
            "core plugins": json.loads(sdk.rest_get("/plugins")),
        }
    )


def stop() -> None:
    log.warning("told to stop")
    engine.release_all()


def start() -> None:
    moments.append("started")
    sdk.check_version()


lifecycle.on_life(sdk, started=start, stopped=stop)
lifecycle.on_life(sdk, started=lambda: moments.append("started, told twice"), stopped=lambda: None)
Router(sdk).register(
    [
        Route("/host/echo/([a-z]*)/?([0-9]*)", dict.fromkeys(METHODS, echo)),
        Route("/host/errors/(.*)", {"GET": refuse}),
        Route("/host/mistake", {"GET": fail}),
        Route("/host/headers", {"GET": headers}),
        Route("/host/large", {"GET": lambda request: Response(large, "application/octet-stream")}),
        Route("/host/two-methods", {"GET": echo, "PUT": echo}),
        Route("/host/said", {"GET": said}),
        Route("/host/written", {"GET": count_written}),
        Route("/host/jobs", {"POST": submit}),
        Route("/host/manifest", {"POST": manifest}),
        Route("/host/beginning/([0-9]*)", {"POST": beginning}),
        Route("/host/text/([A-Za-z]*)/(.*)", {"GET": study_text}),
        Route("/host/md5s", {"POST": md5s}),
        Route("/host/intact/(.*)/(.*)", {"POST": intact}),
        Route("/host/interrupted/([a-z0-9]*)/([0-9]*)", {"POST": interrupted}),
        Route("/host/read-part/(.*)/([0-9]+)/([0-9]+)", {"GET": read_part}),
        Route("/host/read/(.*)", {"GET": read}),
        Route("/host/add/(.*)", {"POST": add}),
        Route("/host/instances/(.*)", {"DELETE": remove}),
        Route("/host/syntax/(.*)", {"GET": syntax}),
        Route("/host/rule-facts/([a-zA-Z]*)/(.*)", {"POST": rule_facts}),
        Route("/host/peers", {"GET": list_peers}),
        Route("/host/peer", {"POST": call_peer}),
    ]
)
