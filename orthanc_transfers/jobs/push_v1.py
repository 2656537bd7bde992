"""Push, version 1: buckets are planned in advance, the commit is one long request."""

from __future__ import annotations

from functools import cached_property

from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.codec import Codec, Compression, choose, encode
from orthanc_transfers.core.errors import (
    BodyRefused,
    Corrupted,
    PeerError,
    PeerInvalidResponse,
    PeerStatus,
    PeerUnreachable,
)
from orthanc_transfers.core.messages_v1 import PushCreationV1
from orthanc_transfers.core.model import Bucket, Chunk, Manifest, name_instances
from orthanc_transfers.core.planner import plan_buckets
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.one_server import check_one_server
from orthanc_transfers.jobs.own_files import check_files
from orthanc_transfers.jobs.push_report import keep_report
from orthanc_transfers.net.peer_client import orthanc_code
from orthanc_transfers.pipeline.executor import Moved

KNOWN_CODECS = frozenset({Codec.NONE, Codec.GZIP})

_MAX_TRANSACTIONS = 2

# A C++ receiver also loses a push to others that are begun meanwhile: not too often.
_MAX_LOSSES = 5

_SAMPLES = 4
_SAMPLE_SIZE = 256 * 1024


class Push:
    """One push to one peer."""

    def __init__(self, context: RunContext, manifest: Manifest) -> None:
        self._context = context
        self._manifest = manifest
        self._timeout = context.services.settings.peer_commit_timeout
        self._limit = context.body_limit()
        self._plan(self._max_target())
        self._codec = Codec.NONE
        self._taken = False
        """Whether the receiver has taken a bucket since it lost the push, if it has."""
        self._sent_before = False
        """Whether all buckets had arrived before a pause or a restart: the commit may have begun then."""
        self._began = context.services.clock.now()

    def run(self) -> None:
        """Send every bucket that the receiver does not have from before a pause, then commit."""
        left, losses = _MAX_TRANSACTIONS, 0
        while True:
            path = self._resume() or self._create()
            try:
                self._send(path)
                self._commit(path)
            except BodyRefused as error:
                # Its buckets were announced, so that a new push is needed for smaller ones.
                self._limit.refused(error)
                self._context.peer.drop(path)
                self._context.resume.end()
                self._plan(self._max_target())
            except PeerStatus as error:
                corrupted = orthanc_code(error) == Corrupted.code
                if error.peer_status == 404 and self._taken and losses < _MAX_LOSSES:
                    losses += 1
                else:
                    left -= 1
                self._taken = False
                if corrupted:
                    # Version 1 does not say which instance has a wrong MD5, in a way that can be relied on.
                    check_files(self._context, self._manifest, self._manifest)
                if error.peer_status == 404:
                    check_one_server(self._context.peer)
                if not left or not (corrupted or error.peer_status == 404):
                    raise
                if corrupted:
                    # Version 1 does not say which bucket was damaged on its way.
                    self._context.peer.drop(path)
                # Else the receiver does not know the push any more: it was restarted, or made room for another.
                self._context.resume.end()
            else:
                keep_report(
                    self._context,
                    self._manifest,
                    _identifier(path),
                    {"State": "committed"},
                    began=self._began,
                    ask=False,
                )
                return

    # --- the transaction

    def _resume(self) -> str | None:
        path, plan = self._context.resume.path, self._context.resume.plan
        self._sent_before = False
        codec, _, fingerprint = (plan or "").partition(":")
        if path is None:
            return None
        target = fingerprint.partition(":")[0]
        if target.isdecimal() and 0 < int(target) < self._target:
            # Smaller, for larger buckets were refused before a restart.
            self._plan(int(target))
        if fingerprint != self._fingerprint:
            # What is to be sent changed during the pause.
            self._context.peer.drop(path)
            return None
        self._codec = Codec(codec)
        self._sent_before = len(self._context.resume.completed()) == len(self._buckets)
        self._begin(path)
        return path

    def _create(self) -> str:
        context = self._context
        context.status.phase = "Sending"
        self._codec = self._choose()
        creation = PushCreationV1(
            Compression(self._codec.value), self._manifest, tuple(bucket.chunks for bucket in self._buckets)
        )
        try:
            path, cookie = context.peer.create_push_v1(creation, self._timeout)
        except PeerStatus as error:
            if error.peer_status != 404:
                raise
            peer = context.peer.name
            raise PeerError(f"peer {peer} does not have the transfers accelerator", peer) from error
        context.resume.begin(path, f"{self._codec.value}:{self._fingerprint}", cookie)
        self._begin(path)
        return path

    def _max_target(self) -> int:
        """Bytes to aim at for a bucket: it may have nearly twice as many, and gzip may add a few."""
        limit, configured = self._limit.known, self._context.services.settings.bucket_size
        return configured if limit is None else max(1, min(configured, limit * 31 // 64))

    def _plan(self, target: int) -> None:
        self._target = target
        self._buckets = plan_buckets(self._manifest, target)

    @property
    def _fingerprint(self) -> str:
        return f"{self._target}:{self._manifest_fingerprint}"

    @cached_property
    def _manifest_fingerprint(self) -> str:
        return self._manifest.fingerprint()

    def _choose(self) -> Codec:
        """One codec for the whole push: gzip if any of a few samples gains by it."""
        wanted = self._context.order.compression
        if wanted in (Compression.NONE, Compression.GZIP):
            return Codec(wanted.value)
        instances = [instance for instance in self._manifest if instance.size]
        for instance in instances[:: max(1, len(instances) // _SAMPLES)][:_SAMPLES]:
            chunk = Chunk(instance.id, 0, min(instance.size, _SAMPLE_SIZE))
            pieces = self._context.services.reader.read([chunk], self._manifest)
            if choose(Compression.AUTO, pieces, KNOWN_CODECS) is not Codec.NONE:
                return Codec.GZIP
        return Codec.NONE

    def _begin(self, path: str) -> None:
        context = self._context
        context.on_transaction(_identifier(path))
        context.status.already_stored = 0
        completed = context.resume.completed()
        left = sum(bucket.size for bucket in self._buckets if bucket.index not in completed)
        context.status.resumed = self._manifest.size - left
        context.progress.plan(lambda: len(self._buckets), len(completed), left)

    # --- the buckets

    def _send(self, path: str) -> None:
        context = self._context
        context.status.phase = "Sending"
        completed = context.resume.completed()

        def move(bucket: Bucket) -> Moved:
            body = encode(context.services.reader.read(bucket.chunks, self._manifest), self._codec)
            context.peer.put_bucket(path, bucket.index, body)
            self._taken = True
            return Moved(bucket.size, size_of(body), self._codec)

        context.executor("push", None, sends=True).run(
            [bucket for bucket in self._buckets if bucket.index not in completed],
            move,
            lambda bucket: context.resume.complete(bucket.index),
        )

    # --- the commit

    def _commit(self, path: str) -> None:
        context = self._context
        context.status.phase = "Importing"
        try:
            context.peer.commit_v1(path, self._timeout, retry=False)
        except (PeerUnreachable, PeerInvalidResponse) as error:
            lost: PeerError = error
        except PeerStatus as error:
            if error.peer_status == 404 and self._sent_before and not self._missing():
                return  # a C++ peer knows nothing of a push after its commit
            if not error.outage:
                raise
            lost = error
        else:
            return

        # The response is lost, the commit may have happened, or be going on. Asked again, a C++ peer
        # finishes the first one, and then knows nothing of it.
        try:
            context.peer.commit_v1(path, self._timeout, retry=True)
        except PeerStatus as error:
            if error.peer_status != 404:
                raise
            self._verify(lost)

    def _verify(self, lost: PeerError) -> None:
        """Compare what the receiver has with what was sent. Raises ``PeerError`` unless it has all of it."""
        peer = self._context.peer.name
        problem = self._missing()
        if problem:
            raise PeerError(
                f"the response of peer {peer} to the commit was lost ({lost}), and it does not show "
                f"{name_instances(problem)} as sent: the outcome is unknown, look at the peer",
                peer,
            ) from lost

    def _missing(self) -> list[str]:
        """The instances that the receiver does not show as they were sent; all, if it shows none."""
        context = self._context
        resources = [{"Level": "Instance", "ID": instance.id} for instance in self._manifest]
        try:
            there = context.peer.look_up(resources, timeout=self._timeout)
        except (PeerStatus, PeerInvalidResponse):
            return [instance.id for instance in self._manifest]
        stored = {instance.id: instance.md5 for instance in there.instances}
        return [one.id for one in self._manifest if stored.get(one.id) != one.md5]


def _identifier(path: str) -> str:
    return path.rpartition("/")[2]
