"""URL paths of the REST API, relative to the root of Orthanc: those of the user and of both protocol versions."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Bucket, Level, Resource
from orthanc_transfers.core.ranges import Range

# --- Orthanc's own, extended by the plugin

PLUGINS = "/plugins"
EXPLORER_SCRIPT = "/plugins/explorer.js"
PLUGIN = "/plugins/transfers"
JOBS = "/jobs"
CHANGES = "/changes"
COLLECTIONS = {
    Level.PATIENT: "patients",
    Level.STUDY: "studies",
    Level.SERIES: "series",
    Level.INSTANCE: "instances",
}
SYSTEM = "/system"
TOOLS_FIND = "/tools/find"
BULK_CONTENT = "/tools/bulk-content"

# --- for users

SEND = "/transfers/send"
PULL = "/transfers/pull"
PEERS = "/transfers/peers"
REPORTS = "/transfers/reports"
STATUS = "/transfers/status"
PAGE = "/transfers/app"
FIND = "/transfers/find"
PEERS_STATUS = "/transfers/peers/status"
SETTINGS = "/transfers/settings"
ACTIONS = "/transfers/actions"
RULES = "/transfers/rules"
RULE_QUEUE = "/transfers/queue"
RULE_HISTORY = "/transfers/queue/history"

# --- for peers

CAPABILITIES = "/transfers/capabilities"
LOOKUP = "/transfers/lookup"
CHUNKS_V1 = "/transfers/chunks"
CHUNKS_V2 = "/transfers/v2/chunks"
PUSH_V1 = "/transfers/push"
PUSH_V2 = "/transfers/v2/push"
WHOLE_PUSH = "/transfers/v2/push/whole"
EXTRAS = "/transfers/v2/extras"
TRANSCODED = "/transfers/v2/transcoded"
ATTACHMENTS = "/transfers/v2/attachments"
MEASURE = "/transfers/v2/measure"


def job(identifier: str) -> str:
    """A job of Orthanc."""
    return f"{JOBS}/{identifier}"


def resource_path(resource: Resource) -> str:
    """A patient, study, series or instance of Orthanc."""
    return f"/{COLLECTIONS[resource.level]}/{resource.id}"


def job_command(identifier: str, name: str) -> str:
    """A command to a job of Orthanc."""
    return f"{job(identifier)}/{name}"


def report(identifier: str) -> str:
    """The report of a push or a job."""
    return f"{REPORTS}/{identifier}"


def measure_peer(name: str) -> str:
    """Measures the link to a peer."""
    return f"{PEERS}/{name}/measure"


def rule(name: str) -> str:
    """One rule."""
    return f"{RULES}/{name}"


def run_rule(name: str) -> str:
    """Runs a rule by hand."""
    return f"{rule(name)}/run"


def compare_rule(name: str) -> str:
    """Compares with the destinations of a mirror."""
    return f"{rule(name)}/compare"


def measured_bytes(size: str) -> str:
    """So many made-up bytes."""
    return f"{MEASURE}/{size}"


def chunks_v1(bucket: Bucket, codec: Codec) -> str:
    """A bucket of ``planner.plan_pull``: its instances laid end to end, an offset in the first one, a size."""
    identifiers = ".".join(quote(chunk.id, safe="") for chunk in bucket.chunks)
    offset = bucket.chunks[0].offset
    return f"{CHUNKS_V1}/{identifiers}?offset={offset}&size={bucket.size}&compression={codec.value}"


def push_v1(identifier: str) -> str:
    """A push of version 1."""
    return f"{PUSH_V1}/{identifier}"


def push_v2(identifier: str) -> str:
    """A push of version 2."""
    return f"{PUSH_V2}/{identifier}"


def bucket(push: str, index: int | str) -> str:
    """A bucket of the version-1 push at the path ``push``."""
    return f"{push}/{index}"


def ranges(push: str, items: Iterable[Range]) -> str:
    """Byte ranges of the version-2 push at the path ``push``: the offset and the size of each."""
    return "/".join([push, *(f"{item.start}/{item.size}" for item in items)])


def commit(push: str) -> str:
    """The commit of the push at the path ``push``."""
    return f"{push}/commit"


def push_extras(push: str) -> str:
    """What travels beside DICOM with the version-2 push at the path ``push``."""
    return f"{push}/extras"


def push_attachment(push: str, index: int | str, offset: int | str) -> str:
    """Bytes of an attachment of the version-2 push at the path ``push``, from ``offset`` on."""
    return f"{push}/attachments/{index}/{offset}"


def attachment(resource: Resource, number: int, offset: int, size: int) -> str:
    """Bytes of an attachment of a resource."""
    return f"{ATTACHMENTS}{resource_path(resource)}/{number}/{offset}/{size}"


def status(push: str, wait: int) -> str:
    """The status of the version-2 push at the path ``push``, sent after ``wait`` seconds or when its commit ends."""
    return f"{push}?wait={wait}"
