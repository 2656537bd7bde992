"""Protocols that the packages ask of Orthanc, of peers and of time. ``host/`` and ``net/`` implement them.

Every method may be called from several threads at once, and may block; none is called with a lock held.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom import UidOf
from orthanc_transfers.core.disk_room import OrthancDisks
from orthanc_transfers.core.extras import Extra, Kind
from orthanc_transfers.core.model import Beginning, Instance, Manifest, Resource
from orthanc_transfers.core.rule_filter import Facts, Wanted
from orthanc_transfers.core.storage_limits import Kept, StorageLimits
from orthanc_transfers.core.transfer_record import StudyText, TransferRecord
from orthanc_transfers.runtime.cancellation import Cancellation


class ImportStatus(enum.Enum):
    """``Status`` in the response to Orthanc's ``POST /instances``, for a file that it did not refuse."""

    SUCCESS = "Success"
    ALREADY_STORED = "AlreadyStored"
    FILTERED_OUT = "FilteredOut"


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import: ``id`` is the identifier that Orthanc computed from the file."""

    status: ImportStatus
    id: str


class InstanceStore(Protocol):
    """The Orthanc in whose process the plugin runs, as a store of DICOM files."""

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        """The instances below the resources, each once, in ascending order of identifier.

        Sizes and MD5s come from Orthanc's index; files are read only where the index has no MD5.
        Raises ``UnknownResource``, naming the one that does not exist; ``Canceled``.
        """

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        """The first ``count`` instances of ``manifest``, much faster where it has many more. Raises the same."""

    def md5s(
        self,
        identifiers: Iterable[str],
        cancellation: Cancellation | None = None,
        uid_of: UidOf | None = None,
        *,
        sure: bool = True,
    ) -> dict[str, str | None]:
        """The MD5s of those that are stored here, from the index, or of the file; ``None`` if it cannot be read.

        ``uid_of`` tells SOP Instance UIDs, by which a large archive finds them sooner. Not ``sure``: the index may be
        away, and some may be left out because of that. Raises ``Canceled``."""

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        """Read a stored file: whether its MD5 is the index's, or ``md5`` if that has none. Raises ``Canceled``."""

    def exists(self, resource: Resource) -> bool:
        """Whether that patient, study, series or instance is stored here."""

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        """Identifiers of the patients of those resources, of any level, that are stored. Raises ``Canceled``."""

    def instance(self, identifier: str) -> Instance:
        """One instance as it was last listed, or else as it is in the index now. Raises ``UnknownResource``.

        The MD5 is empty where the index has none.
        """

    def read(self, identifier: str) -> memoryview:
        """The whole file. The memory lives as long as the view. Raises ``UnknownResource``, ``LostFile``."""

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        """Fill ``view`` from ``offset`` bytes on; ``False`` where only whole files can be read, or this one cannot.

        Raises ``UnknownResource``.
        """

    def add(self, data: Buffer) -> Imported:
        """Import one file. Raises ``ImportRefused`` (bad file, full storage, …), saying why."""

    def received(self, identifier: str) -> str | None:
        """When a stored instance was received, as Orthanc writes it; empty if unknown, ``None`` if not stored."""

    def remove(self, identifier: str) -> None:
        """Delete one instance; an absent one is no error."""

    def sync(self) -> None:
        """Let all that was imported and deleted so far survive a power failure. Raises ``TransferError``."""

    def transfer_syntax(self, identifier: str) -> str | None:
        """UID of the transfer syntax of a stored instance, ``None`` if unknown."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a resource has now: a label, the value of a metadata, or an attachment."""

    md5: str = ""
    """Of an attachment."""
    data: bytes = b""
    """Of a metadata."""
    revision: str = ""
    """What Orthanc's ``If-Match`` takes; empty for labels."""


class ExtrasStore(Protocol):
    """What this Orthanc keeps of its resources beside DICOM. ``Extra.number`` is that of this Orthanc."""

    name: str
    """Of this Orthanc, as it is told to receivers."""

    kinds: frozenset[Kind]
    """Those that its version knows."""

    def listed(
        self, resources: Sequence[Resource], kinds: Collection[Kind], cancellation: Cancellation
    ) -> tuple[list[Extra], list[str]]:
        """What these resources, those below and those above them have; and sentences on what cannot be transferred.

        Raises ``Canceled``, ``HostError``.
        """

    def resolved(self, extra: Extra) -> Extra | str:
        """A sender's item with its number here; or why it cannot have one, in a sentence."""

    def holds_any(self, resource: Resource, instances: Container[str], cancellation: Cancellation) -> bool:
        """Whether a resource is stored, and one of the instances is, or belongs to it. Raises ``Canceled``."""

    def held(self, extra: Extra) -> Held | None:
        """What is there in its place; ``None`` if nothing is, or its resource is not stored. Raises ``HostError``."""

    def attachment(self, resource: Resource, number: int) -> bytes:
        """Raises ``UnknownResource``, ``HostError``."""

    def put(self, extra: Extra, data: Buffer, instead: Held | None) -> None:
        """Store an item where ``instead`` was. Raises ``Conflict`` if that has changed since, ``HostError``."""

    def remove(self, extra: Extra, instead: Held) -> None:
        """Take an item away. Raises ``Conflict`` if it has changed since, ``HostError``."""


class Capacity(Protocol):
    """The limits of this Orthanc on what it stores."""

    limits: StorageLimits

    def kept(self, cancellation: Cancellation) -> Kept:
        """What it deletes for no import, as far as it tells in good time. Raises ``Canceled``."""


class Disks(Protocol):
    """The disks of this Orthanc's storage and index."""

    def look(self, *, exactly: bool) -> OrthancDisks:
        """As they are now. ``exactly``: ask Orthanc, too, how much its recycling lets them grow. Never raises."""


class StudyTexts(Protocol):
    """What this Orthanc's index says of patients and studies."""

    def text(self, resource: Resource) -> StudyText | None:
        """Of the study that a resource belongs to, or the first one of a patient; ``None`` if it is not stored."""


class ResourceFacts(Protocol):
    """What this Orthanc's index says of resources that rules may send."""

    def facts(self, resource: Resource, wanted: Wanted) -> Facts | None:
        """Those that are wanted; ``None`` if it is not stored, as far as that was asked for. Raises ``HostError``."""

    def why_unusable(self, wanted: Wanted) -> str | None:
        """Why these can never be told here, one sentence: an unknown tag, labels before Orthanc 1.12."""


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """One HTTP request to a peer."""

    method: str
    """``GET``, ``PUT``, ``POST`` or ``DELETE``."""

    path: str
    """Relative to the root of the peer's REST API; starts with a slash, may have a query."""

    body: Sequence[Buffer] = ()
    """Pieces, sent one after the other without being joined."""

    headers: Mapping[str, str] = field(default_factory=dict)

    timeout: float | None = None
    """Seconds for each wait on the network; ``None``: the peer's own timeout."""

    limit: int | None = None
    """Maximum size of the response body in bytes; ``None``: what the transport allows."""

    repeatable: bool = False
    """Sending it twice has the same effect as once, although ``method`` is a POST."""

    takes_slot: bool = False
    """It asks for one of the peer's slots for pushes, so it waits behind those that ask already."""


@dataclass(frozen=True, slots=True)
class PeerResponse:
    """A 200 response of a peer. Header names are in lower case; of several equal ones, the last one counts."""

    body: Buffer
    headers: Mapping[str, str] = field(default_factory=dict)


class PeerTransport(Protocol):
    """HTTP client to one peer: one method, so that a test needs no network."""

    name: str
    """Name in the configuration."""

    @property
    def url(self) -> str:
        """Root of the peer's REST API, without user or password."""

    @property
    def silence(self) -> str | None:
        """What the peer does, if no request in progress shows a sign of life of it; ``None`` if one does."""

    @property
    def round_trip(self) -> float | None:
        """Seconds of the fastest TCP handshake; ``None`` if there was none yet."""

    def send(self, request: PeerRequest) -> PeerResponse:
        """Send one request and return the response if its status is 200.

        Raises ``PeerUnreachable`` (no response), ``PeerStatus`` (another status), ``PeerInvalidResponse`` (a body
        beyond ``request.limit``), ``Canceled`` after ``abort``.
        """

    def prepare(self) -> None:
        """Open one more connection, for a request soon. Errors are ignored here; the next request reports them."""

    def abort(self) -> None:
        """Cut the connections in use: requests in progress end now with ``Canceled``."""

    def close(self) -> None:
        """Close idle connections."""


class KnownPeer(Protocol):
    """A peer as it was at one moment; equal to what it is at another if nothing has changed by which it is reached."""

    def connect(self, connections: int) -> PeerTransport:
        """A new transport to it, with up to that many connections. Raises ``ConfigurationError``."""


class Peers(Protocol):
    """The peers in Orthanc's configuration and database at this moment."""

    def names(self) -> list[str]:
        """All names, sorted."""

    def remote_self(self, name: str) -> str | None:
        """The ``RemoteSelf`` property. Raises ``UnknownPeer``."""

    def known(self, name: str) -> KnownPeer:
        """The peer of that name. Raises ``UnknownPeer``."""

    def connect(self, name: str, connections: int) -> PeerTransport:
        """A new transport to the peer of that name. Raises ``UnknownPeer``, ``ConfigurationError``."""


class StepOutcome(enum.Enum):
    """The result of a step of a job."""

    SUCCESS = 1
    FAILURE = 2
    CONTINUE = 3


class StopReason(enum.Enum):
    """Why Orthanc stops stepping a job (values of ``OrthancPluginJobStopReason``)."""

    SUCCESS = 1
    PAUSED = 2
    FAILURE = 3
    CANCELED = 4


class Job(Protocol):
    """A job of Orthanc's jobs engine."""

    type: ClassVar[str]
    """``PushTransfer`` or ``PullTransfer``."""

    def step(self) -> StepOutcome:
        """Called repeatedly by one thread of Orthanc; waits 200 ms at most. Never raises."""

    def stop(self, reason: StopReason) -> None:
        """Called after the last step before a pause, a cancel or the end. Returns at once."""

    @property
    def waits(self) -> bool:
        """Whether it runs, and has nothing to do but to wait for its peer: that needs no thread of Orthanc."""

    def rest(self) -> None:
        """It is stepped no more for a while, and not stopped: it goes on waiting, and does nothing else meanwhile.

        The next step ends its rest. Returns at once.
        """

    def hurry(self) -> None:
        """A user does not want it to wait any longer: its peer is tried soon. Returns at once."""

    def set_identifier(self, identifier: str) -> None:
        """Called once Orthanc's identifier of this job is known: queued, or reloaded. Never raises."""

    def reset(self) -> None:
        """Start over at the next step: a user resubmitted the failed or canceled job."""

    def content(self) -> dict[str, Any]:
        """What ``GET /jobs/{id}`` shows as ``Content``. Never blocks."""

    def serialized(self) -> dict[str, Any]:
        """What Orthanc saves with the job, as JSON, to survive a restart. Has no key ``Type``. Never blocks."""

    def progress(self) -> float:
        """0 to 1. Never blocks."""

    def failure(self) -> str | None:
        """One sentence, once the job failed."""

    def record(self) -> TransferRecord | None:
        """What it does now, or how it ended; ``None`` without an identifier, or if it had ended before a restart.

        As far as the job knows: one that is paused is ``PENDING``. Never blocks.
        """

    def hand_over(self) -> dict[str, Any]:
        """What ``serialized`` returns, for another job that carries on; this one does and deletes nothing any more."""

    def release(self) -> None:
        """Orthanc removes the job, or stops: end all work within a second or two, keep what is on disk."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job in Orthanc's jobs engine that has an identifier there."""

    identifier: str
    job: Job
    paused: bool
    """By a user: it is not in the queue."""
    parked: bool
    """Paused while it waits for its peer."""


class JobQueue(Protocol):
    """Orthanc's jobs engine."""

    def jobs(self) -> list[QueuedJob]:
        """Those of our jobs that Orthanc knows, some of them ended. Never blocks."""

    def submit(self, job: Job, priority: int, *, durable: bool = True) -> str:
        """Queue a job, tell it its identifier, and return that.

        ``durable``: it survives a power failure, soon after.
        """

    def command(self, identifier: str, name: str) -> bytes:
        """Let Orthanc ``pause``, ``resume``, ``cancel`` or ``resubmit`` any of its jobs, for a user.

        Returns its response. Raises ``BadRequest`` if there is no such job, ``HostError``.
        """

    def describe(self, identifier: str) -> bytes:
        """What Orthanc says of any of its jobs, as JSON. Raises ``NotFound``, ``HostError``."""

    def delete(self, identifier: str) -> None:
        """Let Orthanc forget any of its jobs, for a user. Raises ``NotFound``, ``HostError``."""


class Clock(Protocol):
    """Time, replaceable in tests."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
