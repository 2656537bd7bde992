"""Assertions on HTTP responses that hold for all routes."""

from __future__ import annotations

import requests

from tests.support.orthanc_server import OrthancServer


def refused(answer: requests.Response, status: int, code: int) -> str:
    """Assert that an answer is an error as Orthanc has them, with its status and its code; its sentence."""
    error = answer.json()
    assert (answer.status_code, error["OrthancStatus"]) == (status, code), error
    assert set(error) == {
        "Details",
        "HttpError",
        "HttpStatus",
        "Message",
        "Method",
        "OrthancError",
        "OrthancStatus",
        "Uri",
    }
    assert (error["HttpStatus"], error["Method"]) == (status, answer.request.method)
    assert error["Details"]
    return str(error["Details"])


def nothing_staged(server: OrthancServer) -> bool:
    """Whether nothing is being received, of the four pushes that may be, and no byte of any is kept."""
    metrics = server.request("GET", "tools/metrics-prometheus").text
    areas = list((server.storage / "Transfers").rglob("area"))
    return "orthanc_transfers_available_push_count 4" in metrics and not areas
