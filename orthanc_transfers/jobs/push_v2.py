"""Push, version 2: the receiver says what is missing, and is asked for the outcome of its commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.codec import Codec, choose, encode, level_for
from orthanc_transfers.core.errors import PeerError, PeerStatus
from orthanc_transfers.core.messages_v2 import (
    Capabilities,
    PushCreationV2,
    PushStatus,
)
from orthanc_transfers.core.model import Beginning, Manifest, PushState, name_missing
from orthanc_transfers.core.planner import RangePlan
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.jobs.job import RunContext
from orthanc_transfers.jobs.push_report import keep_report
from orthanc_transfers.pipeline.executor import Moved
from orthanc_transfers.pipeline.schedule import MAX_ROUNDS, Listing, Plan, Schedule
from orthanc_transfers.runtime.threads import Later

# Seconds between two questions for the outcome of a commit: as often, the number of imported instances is new.
_POLL = 1


class Push:
    """One push to one peer: of the ``beginning`` of what is to be sent, which becomes the ``whole``."""

    def __init__(
        self, drive: RunContext, beginning: Beginning, whole: Later[Manifest], capabilities: Capabilities
    ) -> None:
        self._drive = drive
        self._manifest, self._more = beginning.manifest, beginning.more
        self._whole = whole
        self._growing = capabilities.growing
        self._codecs = frozenset(capabilities.codecs)
        self._began = drive.environment.clock.now()
        self._executor = drive.executor("push", capabilities)

    def run(self) -> None:
        """Send what is missing, and see it imported. Raises ``PeerError`` and its like."""
        if not self._growing or self._drive.continuation.path is not None:
            # What the receiver has already, it tells of all.
            self._await_whole()
        status = self._create()
        self._drive.facts.resumed = (
            self._manifest.size - status.already_stored_size - sum(item.size for item in status.missing)
        )
        for _ in range(MAX_ROUNDS):
            try:
                status = self._finish(self._send(status))
            except PeerStatus as error:
                # The receiver lost the push, or is already further than this side knew.
                if error.peer_status not in (404, 409):
                    raise
                # Or the list is not what it was when it was begun.
                self._await_whole()
                status = self._create()
            if status.state is PushState.COMMITTED:
                self._succeed(status)
                return
            if status.state is PushState.FAILED:
                # It is over on the receiver: another attempt must not find it again.
                self._drive.continuation.renew_token()
                reason = status.error or "the import failed"
                self._keep_report(status, {"State": status.state.value, "Error": reason})
                raise self._error(reason)
            if not status.missing:
                # It broke the commit off without an error: it is being stopped, perhaps.
                self._drive.cancellation.wait(_POLL)
        raise self._error(
            f"after {MAX_ROUNDS} attempts it has not received "
            f"{name_missing(self._manifest, status.missing)} with the announced MD5"
            if status.missing
            else f"{MAX_ROUNDS} times it broke off the import"
        )

    # --- the steps

    def _await_whole(self) -> None:
        if self._more:
            self._manifest, self._more = self._whole.result(self._drive.cancellation), 0

    def _create(self) -> PushStatus:
        drive = self._drive
        create = partial(self._post_creation, self._manifest, self._more)
        try:
            status, cookie = create()
        except PeerStatus as error:
            if error.peer_status != 409:
                raise
            # The receiver knows the token with another manifest: the study changed since.
            if drive.continuation.path is not None:
                drive.client.drop(drive.continuation.path)
            drive.continuation.renew_token()
            status, cookie = create()
        drive.continuation.begin(status.path, cookie=cookie)
        drive.enter(status.id)
        drive.facts.already_stored = status.already_stored
        return status

    def _post_creation(self, manifest: Manifest, more: int) -> tuple[PushStatus, str | None]:
        drive = self._drive
        creation = PushCreationV2(drive.continuation.token, manifest, more)
        return drive.client.create_push_v2(
            creation,
            timeout=drive.environment.settings.peer_commit_timeout,
            compress=Codec.ZSTD in self._codecs,
        )

    def _announce_all(self) -> Listing:
        """Let the receiver know all the instances, while the first are being sent."""
        manifest = self._whole.result(self._drive.cancellation)
        status, _ = self._post_creation(manifest, 0)
        self._manifest, self._more = manifest, 0
        self._drive.facts.already_stored = status.already_stored
        return self._listing(status)

    def _listing(self, status: PushStatus) -> Listing:
        return Listing(len(self._manifest), self._manifest.size, status.missing, self._more)

    def plan(self, missing: RangeSet) -> Plan[tuple[Range, ...]]:
        """See ``Planner``."""
        buckets = RangePlan(missing, self._executor.bucket_size)
        return Plan(buckets, lambda: buckets.total, buckets.extend)

    def count(self, present: RangeSet) -> int:
        """See ``Planner``."""
        target = self._drive.environment.settings.bucket_size
        return RangePlan(present, lambda left: target).total

    def _send(self, status: PushStatus) -> PushStatus:
        if status.state is not PushState.RECEIVING:
            return status
        drive, clock = self._drive, self._drive.environment.clock
        drive.facts.phase = "Sending"
        schedule = Schedule(self._executor, self, self._listing(status), self._announce_all)

        def send(bucket: Sequence[Range]) -> Moved:
            chunks = [chunk for item in bucket for chunk in self._manifest.chunks(item)]
            pieces = drive.environment.reader.read(chunks, self._manifest)
            began = clock.monotonic()
            codec = choose(self._executor.compression(), pieces, self._codecs)
            body = encode(pieces, codec, level_for(drive.progress.speed()))
            seconds = clock.monotonic() - began
            del pieces  # what is encoded needs no memory while it is sent
            drive.client.put_ranges(status.path, bucket, body, codec)
            return Moved(sum(item.size for item in bucket), size_of(body), codec, seconds)

        schedule.run(send)
        drive.facts.phase = "Importing"
        return drive.client.commit_v2(status.path, self._manifest.size)

    def _finish(self, status: PushStatus) -> PushStatus:
        """Ask until the commit is over."""
        drive = self._drive
        drive.facts.phase = "Importing"
        while status.state is PushState.COMMITTING:
            drive.facts.imported = status.imported
            # The receiver answers when the commit is over, or after that time.
            status = drive.client.push_status(status.path, self._manifest.size, wait=_POLL)
        return status

    def _succeed(self, status: PushStatus) -> None:
        self._drive.facts.imported = status.imported
        self._drive.facts.report = status.report
        self._keep_report(status, {"State": status.state.value, "Report": status.report})

    def _keep_report(self, status: PushStatus, outcome: Mapping[str, Any]) -> None:
        keep_report(self._drive, self._manifest, status.id, outcome, began=self._began, ask=True)

    def _error(self, sentence: str) -> PeerError:
        peer = self._drive.peer.name
        return PeerError(f"peer {peer}: {sentence}", peer)
