"""Push, version 2: the receiver says what is missing, and is asked for the outcome of its commit."""

from __future__ import annotations

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import choose, content_type, encode
from orthanc_transfers.core.errors import PeerAnswer, PeerError, PeerStatus
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.planner import plan_ranges
from orthanc_transfers.core.protocol import (
    CODEC_HEADER,
    XXH3_HEADER,
    Capabilities,
    PushCreation2,
    PushState,
    PushStatus,
)
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.transfer.carrying import Carried, Carrier
from orthanc_transfers.transfer.driving import Drive
from orthanc_transfers.transfer.messages import drop, identify, post, size_of, understand
from orthanc_transfers.transfer.missing import name_missing

CREATE = "/transfers/v2/push"

MOST_ROUNDS = 4
"""Times that bytes are sent: once, and again if the receiver misses some in spite of that."""

# Seconds between two questions for the outcome of a commit: small transfers are over at once.
_FIRST_POLL = 0.05
_LONGEST_POLL = 1.5
_POLL_GROWTH = 1.5


class Push:
    """One push to one peer."""

    def __init__(self, drive: Drive, manifest: Manifest, capabilities: Capabilities) -> None:
        self._drive = drive
        self._manifest = manifest
        self._codecs = frozenset(capabilities.codecs)
        # A range may be twice the target.
        self._target = max(1, min(drive.environment.settings.bucket_size, capabilities.max_body_size // 2))

    def run(self) -> None:
        """Send what is missing, and see it imported. Raises ``PeerError`` and its like."""
        status = self._create()
        self._drive.facts.resumed = (
            self._manifest.size - status.already_stored_size - sum(item.size for item in status.missing)
        )
        for _ in range(MOST_ROUNDS):
            try:
                status = self._finish(self._send(status))
            except PeerStatus as error:
                # The receiver lost the push, or is already further than this side knew.
                if error.peer_status not in (404, 409):
                    raise
                status = self._create()
            if status.state is PushState.COMMITTED:
                self._succeed(status)
                return
            if status.state is PushState.FAILED:
                # It is over on the receiver: another attempt must not find it again.
                self._drive.continuation.renew_token()
                raise self._error(status.error or "the receiver does not say why")
        raise self._error(
            f"after {MOST_ROUNDS} attempts it has not received "
            f"{name_missing(self._manifest, status.missing)} with the announced MD5"
        )

    # --- the steps

    def _create(self) -> PushStatus:
        drive = self._drive
        drive.facts.phase = "Sending"
        while True:
            creation = PushCreation2(drive.continuation.token, self._manifest)
            try:
                status = post(
                    drive.peer,
                    CREATE,
                    creation.to_json(),
                    drive.order,
                    PushStatus.parse,
                    drive.environment.settings.peer_commit_timeout,
                )
            except PeerStatus as error:
                if error.peer_status != 409:
                    raise
                # The receiver knows that token with another manifest: the study changed since.
                if drive.continuation.path is not None:
                    drop(drive.once, drive.continuation.path, drive.order)
                drive.continuation.renew_token()
                continue
            drive.continuation.begin(status.path)
            self._check(status)
            drive.facts.transaction = status.id
            drive.facts.already_stored = status.already_stored
            return status

    def _send(self, status: PushStatus) -> PushStatus:
        if status.state is not PushState.RECEIVING:
            return status
        drive = self._drive
        drive.facts.phase = "Sending"
        there = RangeSet(status.missing).missing(self._manifest.area)
        settled = len(plan_ranges(there, self._target))
        ranges = plan_ranges(status.missing, self._target)
        drive.progress.plan(settled + len(ranges), settled, sum(item.size for item in ranges))

        def put(item: Range) -> Carried:
            pieces = drive.environment.source.pieces(self._manifest.chunks(item), self._manifest)
            codec = choose(drive.order.compression, pieces, self._codecs)
            body = encode(pieces, codec)
            headers = {
                "content-type": content_type(codec),
                CODEC_HEADER: codec.value,
                XXH3_HEADER: xxh3(body),
                **identify(drive.order),
            }
            path = f"{status.path}/{item.start}/{item.size}"
            drive.peer.request("PUT", path, body=body, headers=headers)
            return Carried(item.size, size_of(body), codec)

        Carrier("push", drive.environment.settings.threads, drive.progress, drive.cancellation).carry(
            ranges, put
        )
        answer = post(drive.peer, f"{status.path}/commit", {}, drive.order, PushStatus.parse)
        self._check(answer)
        return answer

    def _finish(self, status: PushStatus) -> PushStatus:
        """Ask until the commit is over."""
        drive = self._drive
        pause = _FIRST_POLL
        while status.state is PushState.COMMITTING:
            drive.facts.phase = "Importing"
            drive.facts.imported = status.imported
            drive.cancellation.wait(pause)
            pause = min(_LONGEST_POLL, pause * _POLL_GROWTH)
            answer = drive.peer.request("GET", status.path, headers=identify(drive.order))
            status = understand(drive.peer, status.path, answer, PushStatus.parse)
        return status

    def _succeed(self, status: PushStatus) -> None:
        self._drive.facts.imported = status.imported
        self._drive.facts.report = status.report

    def _check(self, status: PushStatus) -> None:
        if any(item.stop > self._manifest.size for item in status.missing):
            peer = self._drive.peer.peer
            raise PeerAnswer(f"peer {peer} misses bytes that the push does not have", peer)

    def _error(self, sentence: str) -> PeerError:
        peer = self._drive.peer.peer
        return PeerError(f"peer {peer}: {sentence}", peer)
