"""The script of a real Orthanc that imports a file of this machine: gigabytes through HTTP take a minute."""

from __future__ import annotations

import json
import mmap
import os
import runpy
from pathlib import Path
from typing import Any

import orthanc

from orthanc_transfers.host.native.context import find_context
from orthanc_transfers.host.native.sdk import Sdk

runpy.run_path(os.environ["TRANSFERS_ENTRY"])
sdk = Sdk(find_context())


def import_file(output: Any, uri: str, **request: Any) -> None:
    """``POST /test/import`` with the path of a file."""
    with (
        Path(json.loads(request["body"])).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        answer = sdk.rest_post("/instances", data)
    output.AnswerBuffer(answer, "application/json")


orthanc.RegisterRestCallback("/test/import", import_file)
