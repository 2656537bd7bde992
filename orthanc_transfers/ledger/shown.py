"""A transfer as JSON, as ``GET /transfers/status`` shows it: docs/status-api.md has every key."""

from __future__ import annotations

import time
from typing import Any

from orthanc_transfers.core.transfer_record import StudyText, TransferRecord


def record_to_json(record: TransferRecord) -> dict[str, Any]:
    """All keys but those that a record does not know: ``Patient``, ``Study``, ``Report`` and ``Actions``."""
    waiting = None
    if record.waiting is not None:
        waiting = {"For": record.waiting, "Since": orthanc_time(record.waiting_since)}
    return {
        "ID": record.id,
        "Job": record.job,
        "Direction": record.direction,
        "Mode": record.mode,
        "Peer": record.peer,
        "RemoteAddress": record.remote_address,
        "State": record.state.value,
        "Phase": record.phase,
        "Resources": [dict(one) for one in record.resources],
        "ResourcesCount": record.resources_count,
        "Instances": record.instances,
        "DoneInstances": record.done_instances,
        "Bytes": record.size,
        "DoneBytes": record.done_size,
        "WireBytes": record.wire_size,
        "SpeedBytes": record.speed,
        "SecondsLeft": record.seconds_left,
        "Ratio": record.ratio,
        "Codecs": dict(record.codecs),
        "CompressionAsked": record.compression,
        "CompressionUsed": record.compression_used,
        "Waiting": waiting,
        "Error": record.error,
        "Priority": record.priority,
        "Created": orthanc_time(record.created),
        "Started": orthanc_time(record.started),
        "Ended": orthanc_time(record.ended),
    }


def text_to_json(text: StudyText | None) -> dict[str, Any]:
    """The keys ``Patient`` and ``Study``."""
    if text is None:
        return {"Patient": None, "Study": None}
    study = None
    if text.study is not None:
        study = {
            "ID": text.study,
            "Description": text.description,
            "Date": text.date,
            "Modality": text.modality,
        }
    return {"Patient": {"ID": text.patient_id, "Name": text.patient_name}, "Study": study}


def orthanc_time(seconds: float | None) -> str | None:
    """Seconds since the epoch as in Orthanc's own JSON: ``20261127T102030.123456``, UTC."""
    if seconds is None:
        return None
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(whole))}.{micros:06d}"
