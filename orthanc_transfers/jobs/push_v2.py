"""Push, version 2: the receiver tells what is missing, and is polled for the outcome of its commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.codec import choose, encode, level_for
from orthanc_transfers.core.errors import BodyRefused, PeerError, PeerStatus
from orthanc_transfers.core.messages_v2 import (
    Capabilities,
    PushStatus,
)
from orthanc_transfers.core.model import Beginning, Manifest, PushState, name_missing
from orthanc_transfers.core.planner import RangePlan
from orthanc_transfers.core.ranges import Range, RangeSet, halves
from orthanc_transfers.jobs.announcement import Announcer
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.extras_push import OutgoingExtras
from orthanc_transfers.jobs.one_server import check_one_server
from orthanc_transfers.jobs.own_files import check_ranges
from orthanc_transfers.jobs.push_report import keep_report
from orthanc_transfers.jobs.push_whole import WholePush, fits
from orthanc_transfers.pipeline.executor import Moved
from orthanc_transfers.pipeline.schedule import MAX_LOSSES, MAX_ROUNDS, Listing, Plan, Schedule
from orthanc_transfers.runtime.threads import Later

T = TypeVar("T")

# Seconds between two polls of a commit: as often, the number of imported instances is new.
_POLL = 1


class Push:
    """One push to one peer. It begins with the first instances (``beginning``) of the ``whole`` manifest."""

    def __init__(
        self, context: RunContext, beginning: Beginning, whole: Later[Manifest], capabilities: Capabilities
    ) -> None:
        self._context = context
        self._manifest, self._more = beginning.manifest, beginning.more
        self._whole = whole
        self._capabilities = capabilities
        self._growing = capabilities.growing
        self._announcer = Announcer(context, capabilities)
        self._body_limit = context.body_limit()
        self._patients_wanted = capabilities.patients_wanted
        self._codecs = frozenset(capabilities.codecs)
        self._began = context.services.clock.now()
        self._executor = context.executor("push", capabilities, sends=True)
        self._extras = OutgoingExtras(context, capabilities)
        self._taken = False
        """Whether the receiver has taken a bucket since it lost the push, if it has."""

    def run(self) -> None:
        """Send what is missing until the receiver has imported it. Raises ``PeerError`` and its subclasses."""
        if not self._growing or self._context.resume.path is not None:
            # The receiver is asked what it has of all the instances.
            self._await_whole()
        if self._patients_wanted:
            order, store = self._context.order, self._context.services.store
            patients = store.patients_of((one.id for one in order.resources), self._context.cancellation)
            self._announcer = replace(self._announcer, patients=patients)
        push = self._send_whole() or self._create()
        self._context.status.resumed = (
            self._manifest.size - push.already_stored_size - sum(item.size for item in push.missing)
        )
        rounds = losses = 0
        while rounds < MAX_ROUNDS:
            rounds += 1
            try:
                push = self._finish(self._send(push))
            except PeerStatus as error:
                # The receiver lost the push, or is already further than this side knew.
                if error.peer_status not in (404, 409):
                    raise
                lost = error.peer_status == 404
                if lost:
                    check_one_server(self._context.peer)
                # Or the list is not what it was when it was begun.
                self._await_whole()
                push = self._create()
                if lost and self._taken and losses < MAX_LOSSES and push.state is PushState.RECEIVING:
                    # It was restarted: that says nothing against these bytes.
                    losses += 1
                    rounds -= 1
                    self._taken = False
                    continue
            if push.state is PushState.COMMITTED:
                self._succeed(push)
                return
            if push.state is PushState.FAILED:
                # The push ended on the receiver: another attempt must not find it again.
                self._context.resume.renew_token()
                reason = push.error or "the import failed"
                self._keep_report(push, {"State": push.state.value, "Error": reason})
                raise self._error(reason)
            if push.missing:
                # Sending them again helps only if they are right here.
                check_ranges(self._context, self._manifest, push.missing)
                if losses < MAX_LOSSES and self._has_lost_all(push):
                    # It went with a node of a cluster that had it on its own disk: no word against these bytes, either.
                    losses += 1
                    rounds -= 1
                    self._taken = False
            else:
                # The receiver broke the commit off without an error: maybe it is being stopped.
                self._context.cancellation.wait(_POLL)
        raise self._error(
            f"after {MAX_ROUNDS} attempts it has not received "
            f"{name_missing(self._manifest, push.missing)} with the announced MD5"
            if push.missing
            else f"it interrupted the import {MAX_ROUNDS} times: see its log, then resubmit the job"
        )

    # --- the steps

    def _has_lost_all(self, push: PushStatus) -> bool:
        """Whether the receiver needs again all that it had taken, beside what its Orthanc has."""
        needed = self._manifest.size - push.already_stored_size
        return self._taken and sum(item.size for item in push.missing) >= needed

    def _await_whole(self) -> None:
        if self._more:
            self._manifest, self._more = self._whole.result(self._context.cancellation), 0

    def _send_whole(self) -> PushStatus | None:
        """Send all in one request, if it fits; ``None`` if not."""
        context = self._context
        if self._more or not fits(context, self._manifest, self._capabilities) or self._extras.items:
            return None
        whole = WholePush(context, self._capabilities, self._executor, self._announcer.patients)
        found = self._with_fresh_token(partial(whole.send, self._manifest))
        return None if found is None else self._begin(*found)

    def _create(self) -> PushStatus:
        create = partial(self._announcer.announce, self._manifest, self._more)
        return self._begin(*self._with_fresh_token(create))

    def _with_fresh_token(self, create: Callable[[], T]) -> T:
        context = self._context
        try:
            return create()
        except PeerStatus as error:
            if error.peer_status != 409:
                raise
            # The receiver knows the token with another manifest: the study changed since.
            if context.resume.path is not None:
                context.peer.drop(context.resume.path)
            context.resume.renew_token()
            return create()

    def _begin(self, push: PushStatus, cookie: str | None) -> PushStatus:
        context = self._context
        context.resume.begin(push.path, cookie=cookie)
        context.on_transaction(push.id)
        context.status.already_stored = push.already_stored
        return push

    def _announce_all(self) -> Listing:
        """Announce all the instances to the receiver, while the first are being sent."""
        manifest = self._whole.result(self._context.cancellation)
        push, _ = self._announcer.announce(manifest, 0)
        self._manifest, self._more = manifest, 0
        self._context.status.already_stored = push.already_stored
        return self._listing(push)

    def _listing(self, push: PushStatus) -> Listing:
        return Listing(len(self._manifest), self._manifest.size, push.missing, self._more)

    def plan(self, missing: RangeSet) -> Plan[tuple[Range, ...]]:
        """See ``Planner``."""
        buckets = RangePlan(missing, self._executor.bucket_size)
        return Plan(buckets, lambda: buckets.total, buckets.extend)

    def count(self, present: RangeSet) -> int:
        """See ``Planner``."""
        target = self._context.services.settings.bucket_size
        return RangePlan(present, lambda left: target).total

    def _send(self, push: PushStatus) -> PushStatus:
        if push.state is not PushState.RECEIVING:
            return push
        context = self._context
        context.status.phase = "Sending"
        schedule = Schedule(self._executor, self, self._listing(push), self._announce_all)
        schedule.run(partial(self._put, push.path))
        self._extras.send(push.path)
        context.status.phase = "Importing"
        return context.peer.commit_v2(push.path, self._manifest.size)

    def _put(self, path: str, bucket: Sequence[Range]) -> Moved:
        """Send a bucket; in halves, if it is larger than what is in front of the peer takes."""
        context, clock = self._context, self._context.services.clock
        chunks = [chunk for item in bucket for chunk in self._manifest.chunks(item)]
        pieces = context.services.reader.read(chunks, self._manifest)
        began = clock.monotonic()
        codec = choose(self._executor.compression(), pieces, self._codecs)
        body = encode(pieces, codec, level_for(context.progress.speed()))
        seconds = clock.monotonic() - began
        del pieces  # what is encoded needs no memory while it is sent
        size, wire = sum(item.size for item in bucket), size_of(body)
        if size < 2 or self._body_limit.allows(wire):
            try:
                context.peer.put_ranges(path, bucket, body, codec)
                self._taken = True
                return Moved(size, wire, codec, seconds)
            except BodyRefused as error:
                self._body_limit.refused(error)
        del body
        first, second = (self._put(path, half) for half in halves(bucket))
        encoding = first.encoding_seconds + second.encoding_seconds
        return Moved(size, first.wire + second.wire, second.codec, encoding)

    def _finish(self, push: PushStatus) -> PushStatus:
        """Poll until the commit ends."""
        context = self._context
        context.status.phase = "Importing"
        while push.state is PushState.COMMITTING:
            context.status.imported = push.imported
            # The receiver responds when the commit ends, or after that time.
            push = context.peer.push_status(push.path, self._manifest.size, wait=_POLL)
        return push

    def _succeed(self, push: PushStatus) -> None:
        self._context.status.imported = push.imported
        self._context.status.report = push.report
        if push.rows is not None and push.report is not None:
            # It was not asked before all was sent.
            self._context.status.already_stored = push.report.get("AlreadyStored", 0)
        self._keep_report(push, {"State": push.state.value, "Report": push.report})

    def _keep_report(self, push: PushStatus, outcome: Mapping[str, Any]) -> None:
        keep_report(
            self._context, self._manifest, push.id, outcome, began=self._began, ask=True, told=push.rows
        )

    def _error(self, sentence: str) -> PeerError:
        peer = self._context.peer.name
        return PeerError(f"peer {peer}: {sentence}", peer)
