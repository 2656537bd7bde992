"""One message of each kind, as JSON and as an object: those of docs/protocol.md."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec, Compression
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.extras import Accepted, Kind
from orthanc_transfers.core.messages_transcoding import TranscodedList, TranscodedRequest
from orthanc_transfers.core.messages_v1 import (
    LookupResponse,
    PushCreated,
    PushCreationV1,
    TransferRequest,
)
from orthanc_transfers.core.messages_v2 import (
    Capabilities,
    ChunksRequest,
    PushCreationV2,
    PushStatus,
    WholePull,
)
from orthanc_transfers.core.model import Chunk, Instance, Level, Manifest, PushState, Resource
from orthanc_transfers.core.ranges import Range

A = "0946fcb6-cf12ab43-bad958c1-bf057ad5-0fc6f54c"
B = "6e2c0ec2-5d99c8ca-c1c21cee-79a09605-68391d12"
MD5_A = "0cc175b9c0f1b6a831c399e269772661"
MD5_B = "92eb5ffee6ae2fec3ad71c777531578f"
UUID = "de305d54-75b4-431b-adb2-eb6b9e546014"
TOKEN = "0123456789abcdef0123456789abcdef"

INSTANCES = (Instance(A, 525016, MD5_A), Instance(B, 3_000_000_000, MD5_B))
INSTANCES_JSON = [
    {"ID": A, "Size": "525016", "MD5": MD5_A},
    {"ID": B, "Size": "3000000000", "MD5": MD5_B},
]

GOLDEN: dict[str, tuple[Any, Any]] = {
    "send": (
        {
            "Resources": [{"Level": "Study", "ID": A}, {"Level": "images", "ID": B, "Type": "extra"}],
            "Peer": "hospital",
            "Compression": "gzip",
            "Priority": -3,
            "SenderTransferID": UUID,
        },
        TransferRequest(
            resources=(Resource(Level.STUDY, A), Resource(Level.INSTANCE, B)),
            resources_json=[{"Level": "Study", "ID": A}, {"Level": "images", "ID": B, "Type": "extra"}],
            peer="hospital",
            compression=Compression.GZIP,
            priority=-3,
            sender_transfer_id=UUID,
        ),
    ),
    "pull": (
        {
            "Resources": [],
            "Peer": "hospital",
            "Compression": "none",
            "Priority": 0,
            "Originator": UUID,
        },
        TransferRequest(
            resources=(),
            resources_json=[],
            peer="hospital",
            compression=Compression.NONE,
            originator=UUID,
        ),
    ),
    "lookup": (
        {
            "Instances": INSTANCES_JSON,
            "Originator": UUID,
            "CountInstances": 2,
            "TotalSize": "3000525016",
            "TotalSizeMB": 2862,
        },
        LookupResponse(INSTANCES, UUID),
    ),
    "push": (
        {
            "Compression": "gzip",
            "Instances": INSTANCES_JSON,
            "Buckets": [
                [{"ID": B, "Offset": "2147483648", "Size": "852516352"}],
                [{"ID": A, "Offset": "0", "Size": "525016"}, {"ID": B, "Offset": "0", "Size": "7"}],
            ],
        },
        PushCreationV1(
            Compression.GZIP,
            Manifest(INSTANCES),
            ((Chunk(B, 2147483648, 852516352),), (Chunk(A, 0, 525016), Chunk(B, 0, 7))),
        ),
    ),
    "pushed": (
        {"ID": UUID, "Path": f"/transfers/push/{UUID}"},
        PushCreated(UUID, f"/transfers/push/{UUID}"),
    ),
    "capabilities": (
        {
            "Protocols": [1, 2],
            "Version": "1.8.0",
            "Originator": UUID,
            "Codecs": ["none", "gzip", "zstd", "split16+zstd", "delta16+zstd"],
            "MaxBodySize": 67108864,
            "Growing": True,
            "Parts": True,
            "Whole": True,
            "Headers": ["transfers-codec", "transfers-first"],
            "MaxConnections": 25,
            "WholePulls": True,
            "Measurable": True,
            "Transcodes": True,
            "Extras": ["Labels", "report"],
        },
        Capabilities(
            (1, 2),
            "1.8.0",
            UUID,
            tuple(Codec),
            67108864,
            growing=True,
            parts=True,
            whole=True,
            whole_pulls=True,
            headers=frozenset({"transfers-codec", "transfers-first"}),
            measurable=True,
            transcodes=True,
            extras=Accepted(frozenset({Kind.LABEL}), frozenset({"report"})),
            max_connections=25,
        ),
    ),
    "capabilities, limited": (
        {
            "Protocols": [2],
            "Version": "1.8.0",
            "Originator": UUID,
            "Codecs": ["none"],
            "MaxBodySize": 67108864,
            "Growing": False,
            "Parts": False,
            "Whole": False,
            "PatientsWanted": True,
        },
        Capabilities((2,), "1.8.0", UUID, (Codec.NONE,), 67108864, patients_wanted=True),
    ),
    "lookup, with patients": (
        {
            "Instances": INSTANCES_JSON,
            "Originator": UUID,
            "CountInstances": 2,
            "TotalSize": "3000525016",
            "TotalSizeMB": 2862,
            "Patients": [A, B],
        },
        LookupResponse(INSTANCES, UUID, patients=frozenset((A, B))),
    ),
    "push2, with patients": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "Patients": [A, B]},
        PushCreationV2(TOKEN, Manifest(INSTANCES), patients=frozenset((A, B))),
    ),
    "push2, with a name": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "SenderName": "Köln <b>"},
        PushCreationV2(TOKEN, Manifest(INSTANCES), sender_name="Köln <b>"),
    ),
    "push2, with a process": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "Originator": UUID},
        PushCreationV2(TOKEN, Manifest(INSTANCES), originator=UUID),
    ),
    "push2, the beginning": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "More": 9872},
        PushCreationV2(TOKEN, Manifest(INSTANCES), 9872),
    ),
    "push2, a part": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON, "More": 9872, "Before": 128},
        PushCreationV2(TOKEN, Manifest(INSTANCES), 9872, 128),
    ),
    "push2": (
        {"Token": TOKEN, "Instances": INSTANCES_JSON},
        PushCreationV2(TOKEN, Manifest(INSTANCES)),
    ),
    "receiving": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "receiving",
            "Missing": [[0, 10], [3000000000, 3000525016]],
            "Imported": 0,
            "Total": 2,
            "AlreadyStored": 1,
            "AlreadyStoredSize": "525006",
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.RECEIVING,
            missing=(Range(0, 10), Range(3000000000, 3000525016)),
            total=2,
            already_stored=1,
            already_stored_size=525006,
        ),
    ),
    "committed": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "committed",
            "Missing": [],
            "Imported": 2,
            "Total": 2,
            "AlreadyStored": 0,
            "AlreadyStoredSize": "0",
            "Report": {"Stored": 1, "AlreadyStored": 1, "FilteredOut": 0},
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.COMMITTED,
            imported=2,
            total=2,
            report={"Stored": 1, "AlreadyStored": 1, "FilteredOut": 0},
        ),
    ),
    "failed": (
        {
            "ID": UUID,
            "Path": f"/transfers/v2/push/{UUID}",
            "State": "failed",
            "Missing": [],
            "Imported": 0,
            "Total": 2,
            "AlreadyStored": 0,
            "AlreadyStoredSize": "0",
            "Error": "instance 1 is not a DICOM file",
        },
        PushStatus(
            id=UUID,
            path=f"/transfers/v2/push/{UUID}",
            state=PushState.FAILED,
            total=2,
            error="instance 1 is not a DICOM file",
        ),
    ),
    "chunks": (
        {
            "Chunks": [[A, 0, 525016], [B, 0, 8]],
            "Codecs": ["none", "zstd"],
            "Compression": "auto",
            "Level": 1,
        },
        ChunksRequest((Chunk(A, 0, 525016), Chunk(B, 0, 8)), (Codec.NONE, Codec.ZSTD), Compression.AUTO),
    ),
    "chunks2, transcoded": (
        {
            "Transcode": "1.2.840.10008.1.2.4.50",
            "AllowLossy": True,
            "Chunks": [[A, 0, 525016]],
            "Codecs": ["none"],
            "Compression": "auto",
            "Level": 1,
        },
        ChunksRequest((Chunk(A, 0, 525016),), (Codec.NONE,), transcode="1.2.840.10008.1.2.4.50"),
    ),
    "transcoded?": (
        {"Transcode": "1.2.840.10008.1.2.4.80", "Instances": [A, B]},
        TranscodedRequest("1.2.840.10008.1.2.4.80", (A, B)),
    ),
    "transcoded": (
        {
            "Instances": [{**INSTANCES_JSON[0], "Original": B}, INSTANCES_JSON[1]],
            "Transcoded": 1,
            "NotTranscoded": 1,
        },
        TranscodedList(INSTANCES, (B, B), 1, 1),
    ),
    "whole pull": (
        {"MaxSize": 4194304, "Codecs": ["none", "zstd"], "Compression": "zstd", "Level": 3},
        WholePull(4194304, (Codec.NONE, Codec.ZSTD), Compression.ZSTD, 3),
    ),
}


def parse(name: str, value: Any) -> Any:
    return type(GOLDEN[name][1]).parse(value)


def refused(name: str, value: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(name, value)
    assert caught.value.status == 400
    return str(caught.value)


def changed(name: str, **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOLDEN[name][0]), **values}


def with_size(name: str, size: Any) -> dict[str, Any]:
    return changed(name, Instances=[{"ID": A, "Size": size, "MD5": MD5_A}])
