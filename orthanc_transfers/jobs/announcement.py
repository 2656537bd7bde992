"""Announces the instances of a push of version 2: at once, or in parts where large requests are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import BodyRefused
from orthanc_transfers.core.messages_v2 import Capabilities, PushCreationV2, PushStatus
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.jobs.context import RunContext

# Bytes that the JSON of one instance has at most, as Orthanc writes identifiers and MD5s; compressed, about half.
_BYTES_PER_INSTANCE = 120


@dataclass(frozen=True, slots=True)
class Announcer:
    """Announces to a peer of these ``capabilities``."""

    context: RunContext
    capabilities: Capabilities
    patients: frozenset[str] | None = None
    """Identifiers of the patients, if the peer wants to know."""

    def announce(self, manifest: Manifest, more: int) -> tuple[PushStatus, str | None]:
        """Create the push, or extend it, with all of ``manifest``; ``more`` instances will follow.

        Returns the push, and the cookie that it begins with. Raises what ``PeerClient.create_push_v2`` does.
        """
        limit = self.context.body_limit()
        count = len(manifest)
        known = limit.known
        step = count
        if known is not None and self.capabilities.parts:
            step = max(1, known // _BYTES_PER_INSTANCE)
        cookie: str | None = None
        before = 0
        while True:
            stop = min(count, before + step)
            try:
                push, set_now = self._post(manifest, before, stop, more)
            except BodyRefused as error:
                limit.refused(error)
                if not self.capabilities.parts or stop - before < 2:
                    raise
                step = (stop - before) // 2
                continue
            cookie = cookie or set_now
            if stop == count:
                return push, cookie
            before = stop

    def _post(self, manifest: Manifest, before: int, stop: int, more: int) -> tuple[PushStatus, str | None]:
        whole = PushCreationV2(
            self.context.resume.token,
            manifest,
            more,
            patients=self.patients,
            sender_name=self.context.services.name,
            originator=self.context.services.originator,
        )
        part = whole
        if (before, stop) != (0, len(manifest)):
            instances = Manifest(manifest.instances[before:stop])
            part = replace(whole, manifest=instances, before=before, more=more + len(manifest) - stop)
        return self.context.peer.create_push_v2(
            part,
            Manifest(manifest.instances[:stop]).size if part.before else part.manifest.size,
            timeout=self.context.services.settings.peer_commit_timeout,
            compress=Codec.ZSTD in self.capabilities.codecs,
            new=self.context.resume.path is None and not part.before,
        )
