"""The error tree.

Each error carries three things: the HTTP status of the response, the code of Orthanc it stands for
(``OrthancPluginErrorCode`` of the SDK), and whether a retry may help.
Its text is one sentence for a user: what failed, on which peer or instance, what to do.

    TransferError
    ├── BadRequest            400   the caller's message is wrong
    │   └── BadFile           400   a DICOM file or an encoding that cannot be read
    ├── NotFound              404
    │   ├── UnknownResource
    │   ├── UnknownPeer
    │   ├── UnknownTransaction
    │   └── LostFile                an instance whose file here is gone, damaged or replaced
    ├── ReadOnly              403   this Orthanc may not store anything
    ├── ForeignSite           403   a browser sends what a page of another site wants
    ├── NotJson               415   a request that changes something, in another format than JSON
    ├── Forbidden             403   the configuration does not allow it
    ├── FatalInstance         403   an instance whose import ended this Orthanc before
    ├── Conflict              409   not possible in this state (PUT after commit…)
    ├── TooLarge              413   a manifest or a body beyond the limits
    ├── WrongSize             500   a body of another size than announced (error 9)
    ├── Corrupted             500   a checksum differs (error 20)
    ├── ImportRefused         500   Orthanc did not take an instance; the commit was undone
    ├── Busy                  503   no slot for another push now; carries retry_after
    ├── NoSpace               507   not enough room for staging
    ├── Canceled              500   the job was canceled or paused while this ran
    ├── ConfigurationError          a value of the configuration; keeps the plugin from loading
    ├── HostError                   a call into Orthanc's SDK failed; carries its code
    └── PeerError             500   the other side; carries the peer's name
        ├── PeerUnreachable         refused, reset, DNS, time-out            (retryable)
        │   └── PeerUntrusted       TLS failed: certificate or version       (not retryable)
        ├── PeerStatus              an HTTP status that is not 200; carries it
        │   └── BodyRefused         413 of what is in front of the peer; carries the size
        ├── PeerInvalidResponse     an invalid response (HTML, wrong size…)  (retryable)
        └── PeerMismatch            the peer is not the one expected (originator)
"""

from __future__ import annotations

from collections.abc import Mapping


class TransferError(Exception):
    """Root of all errors of this project."""

    status = 500
    code = 1
    retryable = False
    concerns_peer = False
    """Whether other transfers with the same peer would fail as well, now."""
    index_away = False
    """Whether Orthanc could not reach its index."""


class BadRequest(TransferError):
    """The message of a caller is malformed, of a wrong type or out of range."""

    status = 400
    code = 3


class BadFile(BadRequest):
    """Something that should be JSON, gzip, zstd or DICOM, and is not."""

    code = 15


class NotFound(TransferError):
    """Something named in a request does not exist here."""

    status = 404
    code = 17


class UnknownResource(NotFound):
    """No such patient, study, series or instance."""


class UnknownPeer(NotFound):
    """No such name among the peers of the configuration."""


class UnknownTransaction(NotFound):
    """No such push: never created, dropped or expired."""


class LostFile(NotFound):
    """An instance is in Orthanc's index, but its file is gone, cannot be read, or is not what the index says.

    Reading it again does not help: 404, so that no peer asks again.
    """


class ReadOnly(TransferError):
    """This Orthanc may not store anything, by its option of that name."""

    status = 403

    def __init__(self) -> None:
        super().__init__(
            "this Orthanc has ReadOnly in its configuration and receives nothing:"
            " set ReadOnly to false there, or choose another receiver"
        )


class FatalInstance(TransferError):
    """The import of an instance has ended this Orthanc twice: it is not tried again, and no retry helps."""

    status = 403


class ForeignSite(TransferError):
    """A page of another site made a browser send this request."""

    status = 403


class Forbidden(TransferError):
    """The configuration of this Orthanc does not allow it; the text names the option."""

    status = 403


class NotJson(TransferError):
    """A request that must be JSON, and says that it is something else, or nothing."""

    status = 415
    code = 3000


class Conflict(TransferError):
    """The request is valid, but not in the present state."""

    status = 409
    code = 6


class TooLarge(TransferError):
    """Beyond a limit that protects this server."""

    status = 413
    code = 4


class WrongSize(TransferError):
    """A body holds another number of bytes than its bucket."""

    code = 9


class Corrupted(TransferError):
    """The checksum of received data differs from the one announced."""

    code = 20
    retryable = True


class ImportRefused(TransferError):
    """Orthanc refused an instance at the commit; everything was undone."""

    code = 1


class Busy(TransferError):
    """No slot for one more push now. ``retry_after`` is in seconds."""

    status = 503
    code = 36
    retryable = True
    concerns_peer = True

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoSpace(TransferError):
    """Not enough free disk space, or the limit on staging is reached."""

    status = 507
    code = 19


class Canceled(TransferError):
    """The work was told to stop: its job was paused or canceled, or Orthanc stops."""

    code = 37


class ConfigurationError(TransferError):
    """A value of the configuration that cannot be used; the text names it."""

    code = 3


ABSENT = (17, 7, 13)
"""Error codes of Orthanc for a resource that does not exist, or no longer: UnknownResource, InexistentItem, -File."""

_INDEX_AWAY = 36
"""Its code where it cannot reach its index, in a database: DatabaseUnavailable."""


class HostError(TransferError):
    """A call into Orthanc's SDK failed. ``code`` is its ``OrthancPluginErrorCode``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.index_away = code == _INDEX_AWAY

    @property
    def absent(self) -> bool:
        """Whether what was asked for does not exist."""
        return self.code in ABSENT


class PeerError(TransferError):
    """The other Orthanc failed. ``peer`` is its name in the configuration."""

    code = 9

    def __init__(self, message: str, peer: str) -> None:
        super().__init__(message)
        self.peer = peer


class PeerUnreachable(PeerError):
    """No response: connection refused or reset, name unknown, time-out."""

    retryable = True
    concerns_peer = True


class PeerUntrusted(PeerUnreachable):
    """TLS failed: a certificate of either side is not accepted, or the version. A retry does not help."""

    retryable = False


class PeerStatus(PeerError):
    """The peer responded with a status other than 200.

    ``peer_status`` is that status, ``body`` its text (cut at a few KB), ``headers`` have
    lower-case names, ``retry_after`` is in seconds (``None`` if the peer named none).
    """

    def __init__(
        self,
        message: str,
        peer: str,
        peer_status: int,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, peer)
        self.peer_status = peer_status
        self.headers = dict(headers or {})
        self.body = body
        self.retry_after = retry_after

    @property
    def outage(self) -> bool:
        """Whether the server behind a proxy is unreachable: to be waited for, as when the peer itself is."""
        return self.peer_status in (502, 503, 504)

    @property
    def concerns_peer(self) -> bool:  # type: ignore[override]
        return self.outage or self.peer_status in (401, 403, 404, 407, 429)

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        return self.peer_status in (408, 425, 429) or self.peer_status >= 500


class BodyRefused(PeerStatus):
    """413 of something in front of the peer: ``sent`` bytes are more than it takes in one request."""

    def __init__(self, message: str, answer: PeerStatus, sent: int) -> None:
        super().__init__(message, answer.peer, answer.peer_status, headers=answer.headers, body=answer.body)
        self.sent = sent


class PeerInvalidResponse(PeerError):
    """A response of 200 that cannot be used: not JSON, missing keys, a wrong number of bytes."""

    retryable = True
    concerns_peer = True


class PeerMismatch(PeerError):
    """The peer that responded is not the one that was expected."""

    concerns_peer = True
