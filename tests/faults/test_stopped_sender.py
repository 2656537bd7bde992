"""A sender is stopped (SIGSTOP) in the middle of a request, for longer than the receiver waits for its body."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import pair, start_together
from tests.support.slowly import slowly
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

PATIENCE = 2
"""Seconds that the receiver waits for more of a body (``HttpRequestTimeout``, 30 by default); Orthanc tries twice."""


def test_it_sends_the_request_again(make_server: MakeServer) -> None:
    a = make_server("a", configuration={"Transfers": {"BucketSize": 1024, "Threads": 1}})
    b = make_server("b", configuration={"HttpRequestTimeout": PATIENCE})
    pair(a, b)
    start_together(a, b)
    (study,) = {one["ParentStudy"] for one in a.upload_all(ct_study(8, size=512))}
    with slowly(a, kbs=400):  # a bucket in 2.5 s
        wanted = {"Resources": [resource("Study", study)], "Peer": "b", "Compression": "none"}
        job = a.post("transfers/send", wanted)["ID"]
        wait_until(
            lambda: a.job(job)["Content"].get("CompletedHttpQueries", 0) >= 1,
            "it is in one of the next buckets",
        )
        time.sleep(0.5)
        os.kill(a.pid, signal.SIGSTOP)
        time.sleep(2 * PATIENCE + 2)
        os.kill(a.pid, signal.SIGCONT)
        # Orthanc says 400 without a word: not all of the request came in time.
        wait_until(lambda: a.job(job)["Content"].get("CompletedHttpQueries", 0) >= 2, "it goes on")
    a.wait_for_job(job, ["Success"])
    assert b.md5s() == a.md5s()
