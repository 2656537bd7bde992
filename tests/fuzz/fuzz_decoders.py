"""Everything that reads bytes of others, as targets for a fuzzer: what is not refused must be valid.

Whatever a target reads, it may raise errors of ``core/errors.py`` only. README.md beside this file says how to run
the fuzzer; ``test_corpus.py`` runs the corpus through all targets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import atheris

    instrumented: Any = atheris.instrument_imports(include=["orthanc_transfers"])
else:
    instrumented = contextlib.nullcontext()

with instrumented:
    from orthanc_transfers.core import dicom, settings
    from orthanc_transfers.core.codec import Codec, check_gzip, decode, encode, gunzip_parts
    from orthanc_transfers.core.content_encoding import CONTENT_ENCODING, restore, shrink
    from orthanc_transfers.core.errors import BadFile, ConfigurationError, TransferError
    from orthanc_transfers.core.extras import ExtrasMessage
    from orthanc_transfers.core.messages_v1 import (
        LookupResponse,
        PushCreated,
        PushCreationV1,
        TransferRequest,
        parse_resources,
    )
    from orthanc_transfers.core.messages_v2 import (
        Capabilities,
        ChunksRequest,
        PushCreationV2,
        PushStatus,
        WholePull,
    )
    from orthanc_transfers.core.model import Instance, Manifest
    from orthanc_transfers.core.peers import parse_peers
    from orthanc_transfers.core.planner import RangePlan, plan_buckets, plan_pull
    from orthanc_transfers.core.ranges import Range, RangeSet
    from orthanc_transfers.core.safe_json import parse_json
    from orthanc_transfers.jobs.ack_log import AckLogs
    from orthanc_transfers.jobs.resume import ResumeState, parse_order
    from orthanc_transfers.receiver.area import AREA, JOURNAL, MANIFEST, Area
    from orthanc_transfers.receiver.history import replay
    from orthanc_transfers.runtime.journal import Kind, encode_record, read_records

MESSAGES: tuple[Any, ...] = (
    TransferRequest,
    LookupResponse,
    PushCreationV1,
    PushCreated,
    Capabilities,
    PushCreationV2,
    PushStatus,
    ChunksRequest,
    WholePull,
    ExtrasMessage,
)


def fuzz_json(data: bytes) -> None:
    """Text -> JSON -> every message; what is understood means the same once more."""
    with refused():
        value = parse_json(data, max_values=10_000)
        with refused():
            parse_resources(value)
        for message in MESSAGES:
            with refused():
                meant = message.parse(value)
                assert message.parse(json.loads(json.dumps(meant.to_json()))) == meant
                if isinstance(meant, PushCreationV1 | PushCreationV2):
                    plan(meant.manifest)


def plan(manifest: Manifest) -> None:
    """What is sent in buckets is each byte of it, once."""
    if manifest.size > 100_000:
        return
    target = 1000
    for bucket in (*plan_buckets(manifest, target), *plan_pull(manifest, target)):
        assert 0 < bucket.size < 3 * target
    ranges = [item for bucket in RangePlan([manifest.area], lambda left: target) for item in bucket]
    assert sum(item.size for item in ranges) == manifest.size == RangeSet(ranges).size


def fuzz_codec(data: bytes) -> None:
    """A codec, an announced size of up to 64 KB, and a body."""
    if len(data) < 3:
        return
    codec = list(Codec)[data[0] % len(Codec)]
    size, body = int.from_bytes(data[1:3], "big"), data[3:]
    with refused():
        assert decode(body, codec, size).nbytes == size
    if codec is Codec.GZIP:
        with refused():
            check_gzip(body, size)
            assert b"".join(gunzip_parts(body, 1000)) == decode(body, codec, size)
    cut = size % (len(body) + 1)
    encoded = b"".join(encode([body[:cut], memoryview(body)[cut:]], codec))
    assert decode(encoded, codec, len(body)) == body
    if encoded:
        index = size % len(encoded)
        damaged = encoded[:index] + bytes([encoded[index] ^ (data[0] | 1)]) + encoded[index + 1 :]
        with refused():
            assert decode(damaged, codec, len(body)).nbytes == len(body)


def fuzz_content_encoding(data: bytes) -> None:
    """A body with a header ``Content-Encoding``, as long as the first byte says."""
    if not data:
        return
    header = data[1 : 1 + data[0] % 8].decode("latin-1")
    body = data[1 + len(header) :]
    for encoding in (None, header, "zstd"):
        with refused():
            restored = bytes(restore(body, encoding))
            if (encoding or "").lower() != "zstd":
                assert (encoding or "").lower() in ("", "identity")
                assert restored == body
    text = body * (1 + 20_000 // (1 + len(body)))
    small, headers = shrink(text)
    assert restore(small, headers.get(CONTENT_ENCODING)) == text


_MANIFEST = Manifest(Instance(f"i{number}", size, "0" * 32) for number, size in enumerate((300, 0, 5, 1000)))


def fuzz_journal(data: bytes) -> None:
    """A journal: the bytes as they are; and records with right checksums whose payloads are the bytes."""
    check_history(data)
    records = []
    position = 0
    while position + 2 <= len(data):
        kind, length = list(Kind)[data[position] % len(Kind)], data[position + 1]
        records.append(encode_record(kind, data[position + 2 : position + 2 + length]))
        position += 2 + length
    check_history(b"".join(records))


def check_history(journal: bytes) -> None:
    history = replay(read_records(journal), _MANIFEST)
    assert all(item.stop <= _MANIFEST.size for item in history.have)
    for indices in (history.stored, history.absent or frozenset()):
        assert all(0 <= index < len(_MANIFEST) for index in indices)


def fuzz_sent(data: bytes) -> None:
    """The record of a push of version 1: the bytes as they are; as a state under a right checksum, and buckets."""
    token = "0" * 32
    state = encode_record(Kind.SENDING, data) + b"".join(
        encode_record(Kind.SENT, data[start : start + 16]) for start in range(0, min(len(data), 320), 16)
    )
    with tempfile.TemporaryDirectory() as folder:
        for content in (data, state):
            Path(folder, token).write_bytes(content)
            records = AckLogs(Path(folder))
            before = ResumeState({"Token": token}, records).to_json()
            assert ResumeState(before).to_json() == before
            ResumeState({"Token": token}, records).complete(7)
            known = records.of(token).read()
            assert not known or known["Completed"][-1] == [7, 8]


def fuzz_manifest(data: bytes) -> None:
    """The files of a reception: a manifest under a right checksum, of which the bytes are the content."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "0" * 32)
        directory.mkdir()
        head = f"orthanc-transfers-manifest-1 {hashlib.sha256(data).hexdigest()}\n".encode()
        (directory / MANIFEST).write_bytes(head + data)
        (directory / JOURNAL).write_bytes(encode_record(Kind.OUTCOME, b"{}"))
        (directory / AREA).write_bytes(b"")
        with refused(BadFile):
            area = Area.reopen(directory)
            assert area.manifest.size >= 0


def fuzz_ranges(data: bytes) -> None:
    """Ranges put in and taken out: the same set as one of single bytes."""
    ranges, model = RangeSet(), set[int]()
    for change, start, size in zip(data[0::3], data[1::3], data[2::3], strict=False):
        item, numbers = Range(start, start + size), range(start, start + size)
        assert (
            ranges.prefix(item)
            == next((number for number in numbers if number not in model), start + size) - start
        )
        assert ranges.missing(item).size == len(set(numbers) - model)
        if change % 2:
            ranges.add(item)
            model.update(numbers)
        else:
            ranges.discard(item)
            model.difference_update(numbers)
        assert {byte for kept in ranges for byte in range(kept.start, kept.stop)} == model
    edges = [edge for item in ranges for edge in (item.start, item.stop)]
    assert edges == sorted(set(edges))


def fuzz_settings(data: bytes) -> None:
    """The section ``Transfers``."""
    value = any_json(data)
    with refused(ConfigurationError):
        parsed = settings.parse_settings(value)
        assert parsed.threads >= 1
        assert parsed.bucket_size >= 1024
        assert math.isfinite(parsed.max_bandwidth)


def fuzz_peers(data: bytes) -> None:
    """The section ``OrthancPeers``."""
    with refused(ConfigurationError):
        for peer in parse_peers(any_json(data)).values():
            for secret in (peer.password, peer.certificate_key_password):
                assert (
                    len(secret) < 8
                    or secret in (peer.name + peer.url + peer.username)
                    or secret not in repr(peer)
                )


def fuzz_saved(data: bytes) -> None:
    """A job as Orthanc saved it, of ours or of the C++ plugin."""
    value = any_json(data)
    if not isinstance(value, dict):
        return
    again = ResumeState(value).to_json()
    assert ResumeState(again).to_json() == again
    with refused():
        parse_order(value)


def fuzz_dicom(data: bytes) -> None:
    """The transfer syntax of a file, by the bytes behind its preamble."""
    dicom.transfer_syntax(data)
    dicom.transfer_syntax(b"\0" * 128 + b"DICM" + data)


def any_json(data: bytes) -> Any:
    """JSON that is parsed already."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@contextlib.contextmanager
def refused(kind: type[TransferError] = TransferError) -> Iterator[None]:
    """It may be refused, in one sentence for a human."""
    try:
        yield
    except kind as error:
        if not str(error).encode():
            raise ValueError("an error without a word") from error


TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): function
    for name, function in list(globals().items())
    if name.startswith("fuzz_")
}

if __name__ == "__main__":
    logging.disable()
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
