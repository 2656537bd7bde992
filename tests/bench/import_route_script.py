"""A script for Orthanc: the plugin, and a route that imports files as the plugin does, and times it."""

# ruff: noqa: E402  (importable from here on only)

import json
import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orthanc

runpy.run_path(str(Path(__file__).resolve().parents[2] / "orthanc_transfers" / "entry.py"))

from orthanc_transfers.host.native.context import find_context
from orthanc_transfers.host.native.sdk import Sdk

_sdk = Sdk(find_context())


def _import(output, uri, **request):
    body = json.loads(request["body"])
    contents = [Path(file).read_bytes() for file in body["Files"]]
    cpu, began = time.process_time(), time.monotonic()
    with ThreadPoolExecutor(body["Threads"]) as pool:
        answers = list(pool.map(lambda data: _sdk.rest_post("/instances", data), contents))
    spent = {"Wall": time.monotonic() - began, "Cpu": time.process_time() - cpu}
    assert all(json.loads(answer)["Status"] == "Success" for answer in answers)
    output.AnswerBuffer(json.dumps(spent), "application/json")


orthanc.RegisterRestCallback("/bench/import", _import)
