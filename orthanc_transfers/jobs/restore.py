"""The jobs, as the rest of the plugin meets them again after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.pull import PullJob
from orthanc_transfers.jobs.push import PushJob
from orthanc_transfers.jobs.resume import parse_order
from orthanc_transfers.jobs.services import Services

_JOBS = {job.type: job for job in (PushJob, PullJob)}


def reload(environment: Services, type: str, serialized: Mapping[str, Any]) -> TransferJob:
    """A job as it was saved, by this plugin or by the C++ one. Raises ``BadRequest`` if it makes no sense."""
    job = _JOBS.get(type)
    if job is None:
        raise BadRequest(f"unknown type of job: {type}")
    return job(environment, parse_order(serialized), serialized)
