"""What is known of a peer: whether it can be reached, what it is and speaks."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import BadFile, ConfigurationError, PeerError, TooLarge, UnknownPeer
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import PeerRequest, PeerTransport
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

# Peers asked at the same moment: waiting costs nothing but a thread each.
_PEERS_AT_ONCE = 64

# Bytes of what a peer says of itself.
_MAX_ANSWER = 256 * 1024

_MAX_TEXT = 64


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """``state`` as in ``GET /transfers/peers``; ``error`` is a sentence where it is ``disabled``."""

    state: str
    error: str | None = None
    url: str | None = None
    orthanc_version: str | None = None
    name: str | None = None
    capabilities: Capabilities | None = None
    round_trip: float | None = None
    """Seconds of a TCP handshake, else of a whole request."""

    def to_json(self) -> dict[str, Any]:
        found = self.capabilities
        return {
            "State": self.state,
            "Error": self.error,
            "Url": self.url,
            "Name": self.name,
            "OrthancVersion": self.orthanc_version,
            "Version": None if found is None else found.version[:_MAX_TEXT],
            "Protocol": None if self.state == "disabled" else 1 if found is None else 2,
            "RoundTripSeconds": self.round_trip,
            "Codecs": [] if found is None else [codec.value for codec in found.codecs],
            "Measurable": found is not None and found.measurable,
        }


def peer_states(services: Services, *, plugins_only: bool) -> dict[str, PeerStatus]:
    """All peers, asked in parallel. ``plugins_only``: no more is asked for than needed for ``state``."""
    names = services.peers.names()
    found = {name: PeerStatus("disabled") for name in names}

    def ask(name: str) -> None:
        found[name] = _status(services, name, plugins_only)

    threads.run_all("peers", min(len(names), _PEERS_AT_ONCE), names, ask, Cancellation())
    return found


def _status(services: Services, name: str, plugins_only: bool) -> PeerStatus:
    url = None
    try:
        transport = services.peers.connect(name, 1)
    except ConfigurationError as error:
        # One peer that is configured badly is no reason to hide the others.
        log.warning("peer %s is shown as disabled, correct it in OrthancPeers: %s", name, error)
        return PeerStatus("disabled", str(error))
    except UnknownPeer as error:
        return PeerStatus("disabled", str(error))
    try:
        url = transport.url
        return _ask(services, transport, plugins_only)
    except (PeerError, UnknownPeer, BadFile, TooLarge) as error:
        return PeerStatus("disabled", str(error), url)
    finally:
        transport.close()


def _ask(services: Services, transport: PeerTransport, plugins_only: bool) -> PeerStatus:
    timeout = services.settings.peer_connectivity_timeout

    def get(path: str) -> Any:
        request = PeerRequest("GET", path, timeout=timeout, limit=_MAX_ANSWER)
        return parse_json(transport.send(request).body)

    began = time.monotonic()
    plugins = get(paths.PLUGINS)
    took = time.monotonic() - began
    name = transport.name
    has_plugin = isinstance(plugins, list) and "transfers" in plugins
    reach = "installed" if services.peers.remote_self(name) is None else "bidirectional"
    state = reach if has_plugin else "disabled"
    if plugins_only:
        return PeerStatus(state)
    system = get(paths.SYSTEM)
    system = system if isinstance(system, dict) else {}
    return PeerStatus(
        state,
        None if has_plugin else f"peer {name} has no transfers plugin: install it there",
        transport.url,
        _text(system.get("Version")),
        _text(system.get("Name")),
        services.capabilities.capabilities(transport) if has_plugin else None,
        took if transport.round_trip is None else transport.round_trip,
    )


def _text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None
