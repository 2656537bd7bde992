"""Jobs that Orthanc reloads after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.jobs.follow import REMOTE_JOB, FollowJob
from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.pull import PullJob
from orthanc_transfers.jobs.push import PushJob
from orthanc_transfers.jobs.resume import parse_order
from orthanc_transfers.jobs.services import Services

_JOBS = {job.type: job for job in (PushJob, PullJob)}


def reload(services: Services, type: str, serialized: Mapping[str, Any]) -> TransferJob:
    """The job that this plugin, or the C++ one, saved. Raises ``BadRequest`` if it is not valid."""
    job = FollowJob if REMOTE_JOB in serialized else _JOBS.get(type)
    if job is None:
        raise BadRequest(f"unknown type of job: {type}")
    return job(services, parse_order(serialized), serialized)
