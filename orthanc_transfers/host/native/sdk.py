"""Calls into Orthanc's SDK, and nothing else.

WARNING: this is C through ctypes. A wrong structure is a crash of Orthanc, not an exception: compare with
``orthanc/OrthancCPlugin.h`` before touching anything here or in ``structures.py``.

Everything goes through ``context->InvokeService(context, service, &params)``. That call releases the GIL,
so whatever blocks in it (an answer to a slow client, a file, a peer) blocks nobody else. Callbacks take
the GIL; no exception leaves one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
from collections.abc import Callable, Mapping
from ctypes import byref, c_char_p, c_uint16, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import ConfigurationError, HostError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import owned, pinned, strings
from orthanc_transfers.host.native.structures import (
    ChangeType,
    Code,
    HttpMethod,
    HttpRequest,
    MemoryBuffer,
    PluginProperty,
    Service,
)

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LARGEST = 0xFFFFFFFF

_invoke_prototype = ctypes.CFUNCTYPE(ctypes.c_int32, c_void_p, ctypes.c_int32, c_void_p)
_free_prototype = ctypes.CFUNCTYPE(None, c_void_p)


@dataclass(frozen=True, slots=True)
class PeerCall:
    """What ``CallPeerApi`` gave: ``code`` of Orthanc, HTTP ``status`` (0: none came), and a 200's content."""

    code: int
    status: int
    body: memoryview
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobCallbacks:
    """The C functions that Orthanc calls for a job; made by ``Sdk.job_callbacks``."""

    finalize: Any
    progress: Any
    content: Any
    serialized: Any
    step: Any
    stop: Any
    reset: Any


class Sdk:
    """The SDK behind one context. Thread-safe.

    Calls raise ``HostError`` with the code of Orthanc unless they say otherwise.
    """

    def __init__(self, context: int) -> None:
        native = structures.Context.from_address(context)
        self.version: str = native.orthancVersion.decode("ascii")
        """Version of Orthanc, as in ``GET /system``."""
        self._context = context
        self._invoke = _invoke_prototype(native.InvokeService)
        self._free = _free_prototype(native.Free)

    def check_version(self) -> None:
        """Compare with what the server says of itself, once it has started.

        Raises ``ConfigurationError``: then this is not the context of this Orthanc, and must not be used.
        """
        said = json.loads(self.rest_get("/system"))["Version"]
        if said != self.version:
            raise ConfigurationError(f"the plugin context says Orthanc {self.version}, the server {said}")

    # -- Log ------------------------------------------------------------------------------------------

    def log_error(self, text: str) -> None:
        self._invoke(self._context, Service.LOG_ERROR, _text(text))

    def log_warning(self, text: str) -> None:
        self._invoke(self._context, Service.LOG_WARNING, _text(text))

    def log_info(self, text: str) -> None:
        self._invoke(self._context, Service.LOG_INFO, _text(text))

    # -- The server -----------------------------------------------------------------------------------

    def configuration(self) -> dict[str, Any]:
        """The whole configuration at this moment: all its files merged, and peers as set at run time."""
        value = json.loads(self._string(Service.GET_CONFIGURATION, "reading the configuration"))
        return value if isinstance(value, dict) else {}

    def configuration_path(self) -> str:
        """The file or the folder that Orthanc was started with; empty if there was none."""
        path = self._string(Service.GET_CONFIGURATION_PATH, "asking for the path of the configuration")
        return path.decode(errors="surrogateescape")

    def describe(self, code: int) -> str:
        """Orthanc's words for one of its error codes."""
        target = c_char_p()
        parameters = structures.GetErrorDescription(ctypes.pointer(target), code)
        if self._invoke(self._context, Service.GET_ERROR_DESCRIPTION, byref(parameters)) or not target.value:
            return f"error {code}"
        return target.value.decode(errors="replace")

    def on_change(self, callback: Callable[[int], None]) -> None:
        """Register a callback that gets the type of every change (``ChangeType`` has the ones of interest).

        May be called several times; does not disturb the one callback of the ``orthanc`` module.
        """

        def changed(change: int, _level: int, _resource: bytes | None) -> int:
            callback(change)
            return Code.SUCCESS

        thunk = structures.OnChangeCallback(_guarded(changed, Code.PLUGIN))
        parameters = structures.RegisterOnChangeCallback(_immortal(thunk))
        self._call(Service.REGISTER_ON_CHANGE_CALLBACK, parameters, "registering for changes")

    def set_metric(self, name: str, value: float) -> None:
        """Give the present value of a metric. A 32-bit float in Orthanc."""
        parameters = structures.SetMetricsValue(_text(name), value, 0)
        self._invoke(self._context, Service.SET_METRICS_VALUE, byref(parameters))

    def on_metrics(self, callback: Callable[[], None]) -> None:
        """Register a callback that gives the present values whenever somebody asks for the metrics."""
        thunk = structures.RefreshMetricsCallback(_guarded(callback, None))
        parameters = structures.RegisterRefreshMetricsCallback(_immortal(thunk))
        self._call(Service.REGISTER_REFRESH_METRICS_CALLBACK, parameters, "registering for metrics")

    def extend_explorer(self, plugin: str, javascript: str) -> None:
        """Add JavaScript to Orthanc Explorer on behalf of a loaded plugin; replaces what it gave before."""
        parameters = structures.SetPluginProperty(
            _text(plugin), PluginProperty.ORTHANC_EXPLORER, _text(javascript)
        )
        self._call(Service.SET_PLUGIN_PROPERTY, parameters, "extending Orthanc Explorer")

    # -- Routes ---------------------------------------------------------------------------------------

    def register_route(self, pattern: str, callback: Callable[[int, str, HttpRequest], int]) -> None:
        """Serve the paths that match a regular expression as a whole; not in mutual exclusion.

        ``callback`` gets the output (an address, for the methods below), the path, and the request, which is
        valid until it returns. It answers by those methods and returns an Orthanc code; the core turns
        any but 0 into its usual JSON error.
        """

        def called(output: int, url: bytes, request: ctypes._Pointer[HttpRequest]) -> int:
            return callback(output, url.decode(errors="replace"), request.contents)

        thunk = structures.RestCallback(_guarded(called, Code.PLUGIN))
        parameters = structures.RegisterRestCallback(_text(pattern), _immortal(thunk))
        self._call(Service.REGISTER_REST_CALLBACK_NO_LOCK, parameters, f"registering the route {pattern}")

    def answer(self, output: int, body: Buffer, content_type: str) -> None:
        """Answer 200 with a body; returns once the client has it, or is gone."""
        with pinned(body) as (address, size):
            parameters = structures.AnswerBuffer(output, address, _uint32(size), _text(content_type))
            # A code other than 0 means that the client went away: nobody to tell.
            self._invoke(self._context, Service.ANSWER_BUFFER, byref(parameters))

    def send_status(self, output: int, status: int, body: Buffer) -> None:
        """Answer another status with a body."""
        with pinned(body) as (address, size):
            parameters = structures.SendHttpStatus(output, status, address, _uint32(size))
            self._invoke(self._context, Service.SEND_HTTP_STATUS, byref(parameters))

    def send_method_not_allowed(self, output: int, allowed: str) -> None:
        """Answer 405; ``allowed`` is the value of ``Allow``."""
        parameters = structures.OutputPlusArgument(output, _text(allowed))
        self._invoke(self._context, Service.SEND_METHOD_NOT_ALLOWED, byref(parameters))

    def set_header(self, output: int, name: str, value: str) -> None:
        """Add a header to the answer that follows. Raises ``ValueError`` for one with a line break."""
        if "\r" in value or "\n" in value:
            raise ValueError(f"a line break in the header {name}")
        parameters = structures.SetHttpHeader(output, _text(name), _text(value))
        self._invoke(self._context, Service.SET_HTTP_HEADER, byref(parameters))

    def set_error_details(self, output: int, details: str) -> None:
        """Give the ``Details`` of the core's JSON error, made from the code that the callback returns."""
        parameters = structures.SetHttpErrorDetails(output, _text(details), 0)
        self._invoke(self._context, Service.SET_HTTP_ERROR_DETAILS, byref(parameters))

    # -- The core's own REST API ----------------------------------------------------------------------

    def rest_get(self, uri: str) -> bytes:
        """``GET`` from the core, past all plugins."""
        target = MemoryBuffer()
        parameters = structures.RestApiGet(ctypes.pointer(target), _text(uri))
        self._call(Service.REST_API_GET, parameters, f"GET {uri}")
        return self._taken_bytes(target)

    def rest_post(self, uri: str, body: Buffer) -> bytes:
        """``POST`` to the core, past all plugins. The body is not copied on its way."""
        return self._rest_send(Service.REST_API_POST, uri, body, "POST")

    def rest_put(self, uri: str, body: Buffer) -> bytes:
        """``PUT`` to the core, past all plugins. The body is not copied on its way."""
        return self._rest_send(Service.REST_API_PUT, uri, body, "PUT")

    def rest_delete(self, uri: str) -> None:
        """``DELETE`` in the core, past all plugins."""
        code = self._invoke(self._context, Service.REST_API_DELETE, _text(uri))
        self._check(code, f"DELETE {uri}")

    def dicom(self, instance: str) -> memoryview:
        """The DICOM file of an instance, in the memory that Orthanc read it into."""
        target = MemoryBuffer()
        parameters = structures.GetDicomForInstance(ctypes.pointer(target), _text(instance))
        self._call(Service.GET_DICOM_FOR_INSTANCE, parameters, f"reading instance {instance}")
        return self._taken_view(target)

    # -- Peers ----------------------------------------------------------------------------------------

    def peers(self) -> int:
        """A snapshot of the peers as Orthanc knows them now; to be given to ``free_peers``."""
        target = c_void_p()
        self._call(Service.GET_PEERS, structures.GetPeers(ctypes.pointer(target)), "listing the peers")
        if not target.value:
            raise HostError("Orthanc gave no list of its peers", Code.PLUGIN)
        return target.value

    def free_peers(self, peers: int) -> None:
        self._invoke(self._context, Service.FREE_PEERS, byref(structures.FreePeers(peers)))

    def peers_count(self, peers: int) -> int:
        target = c_uint32()
        parameters = structures.GetPeersCount(ctypes.pointer(target), peers)
        self._call(Service.GET_PEERS_COUNT, parameters, "counting the peers")
        return target.value

    def peer_name(self, peers: int, index: int) -> str:
        return self._peer_property(Service.GET_PEER_NAME, peers, index, None) or ""

    def peer_url(self, peers: int, index: int) -> str:
        return self._peer_property(Service.GET_PEER_URL, peers, index, None) or ""

    def peer_user_property(self, peers: int, index: int, name: str) -> str | None:
        """A property of a peer beyond those that Orthanc knows; ``None`` if it has none of that name."""
        return self._peer_property(Service.GET_PEER_USER_PROPERTY, peers, index, name)

    def call_peer(
        self,
        peers: int,
        index: int,
        method: HttpMethod,
        path: str,
        headers: Mapping[str, str],
        body: Buffer,
        timeout: int,
    ) -> PeerCall:
        """One request by Orthanc's own HTTP client. ``timeout`` in seconds, 0 for Orthanc's default.

        Never raises: the outcome is in the answer.
        """
        answer, answer_headers, status = MemoryBuffer(), MemoryBuffer(), c_uint16()
        with pinned(body) as (address, size):
            parameters = structures.CallPeerApi(
                ctypes.pointer(answer),
                ctypes.pointer(answer_headers),
                ctypes.pointer(status),
                peers,
                index,
                method,
                _text(path),
                len(headers),
                strings(tuple(headers)),
                strings(tuple(headers.values())),
                address,
                _uint32(size),
                timeout,
            )
            code = self._invoke(self._context, Service.CALL_PEER_API, byref(parameters))
        text = self._taken_bytes(answer_headers)
        view = self._taken_view(answer)
        named = {}
        if code == Code.SUCCESS and text:
            named = {str(key).lower(): str(value) for key, value in json.loads(text).items()}
        return PeerCall(code, status.value, view, named)

    # -- Jobs -----------------------------------------------------------------------------------------

    def job_callbacks(
        self,
        *,
        finalize: Callable[[int], None],
        progress: Callable[[int], float],
        content: Callable[[int], int | None],
        serialized: Callable[[int], int | None],
        step: Callable[[int], int],
        stop: Callable[[int, int], int],
        reset: Callable[[int], int],
    ) -> JobCallbacks:
        """C functions from Python ones; each gets the handle that ``create_job`` was given.

        ``content`` and ``serialized`` answer the address of a JSON text that outlives the call.
        """
        failure = 2  # OrthancPluginJobStepStatus_Failure
        return JobCallbacks(
            finalize=_immortal(structures.JobFinalize(_guarded(finalize, None))),
            progress=_immortal(structures.JobGetProgress(_guarded(progress, 0.0))),
            content=_immortal(structures.JobGetText(_guarded(content, None))),
            serialized=_immortal(structures.JobGetText(_guarded(serialized, None))),
            step=_immortal(structures.JobStep(_guarded(step, failure))),
            stop=_immortal(structures.JobStop(_guarded(stop, Code.PLUGIN))),
            reset=_immortal(structures.JobReset(_guarded(reset, Code.PLUGIN))),
        )

    def create_job(self, type_: str, handle: int, callbacks: JobCallbacks) -> int:
        """A job of Orthanc's (an address), for ``submit_job``, ``free_job`` or the unserializer's answer."""
        target = c_void_p()
        parameters = structures.CreateJob(
            ctypes.pointer(target),
            handle,
            callbacks.finalize,
            _text(type_),
            callbacks.progress,
            callbacks.content,
            callbacks.serialized,
            callbacks.step,
            callbacks.stop,
            callbacks.reset,
        )
        self._call(Service.CREATE_JOB, parameters, f"creating a job {type_}")
        if not target.value:
            raise HostError(f"Orthanc created no job {type_}", Code.PLUGIN)
        return target.value

    def submit_job(self, job: int, priority: int) -> str:
        """Queue a job, which belongs to Orthanc from then on; answers its identifier."""
        result = c_void_p()
        parameters = structures.SubmitJob(ctypes.pointer(result), job, priority)
        self._call(Service.SUBMIT_JOB, parameters, "submitting a job")
        return self._taken_string(result).decode("ascii")

    def free_job(self, job: int) -> None:
        """Destroy a job that was not submitted."""
        self._invoke(self._context, Service.FREE_JOB, byref(structures.FreeJob(job)))

    def register_jobs_unserializer(self, callback: Callable[[str, bytes], int | None]) -> None:
        """``callback`` gets the type and the JSON of a saved job; it answers a job, or ``None``: not mine."""

        def unserialize(type_: bytes, serialized: bytes) -> int | None:
            return callback(type_.decode(errors="replace"), serialized)

        thunk = structures.JobsUnserializer(_guarded(unserialize, None))
        parameters = structures.RegisterJobsUnserializer(_immortal(thunk))
        self._call(Service.REGISTER_JOBS_UNSERIALIZER, parameters, "registering for saved jobs")

    # -- Within -----------------------------------------------------------------------------------------

    def _call(self, service: Service, parameters: ctypes.Structure, doing: str) -> None:
        self._check(self._invoke(self._context, service, byref(parameters)), doing)

    def _check(self, code: int, doing: str) -> None:
        if code != Code.SUCCESS:
            raise HostError(f"{doing}: Orthanc says {self.describe(code)!r}", code)

    def _string(self, service: Service, doing: str) -> bytes:
        result = c_void_p()
        self._call(service, structures.RetrieveDynamicString(ctypes.pointer(result), None), doing)
        return self._taken_string(result)

    def _rest_send(self, service: Service, uri: str, body: Buffer, method: str) -> bytes:
        target = MemoryBuffer()
        with pinned(body) as (address, size):
            parameters = structures.RestApiPostPut(ctypes.pointer(target), _text(uri), address, _uint32(size))
            self._call(service, parameters, f"{method} {uri}")
        return self._taken_bytes(target)

    def _peer_property(self, service: Service, peers: int, index: int, name: str | None) -> str | None:
        target = c_char_p()
        parameters = structures.GetPeerProperty(
            ctypes.pointer(target), peers, index, None if name is None else _text(name)
        )
        if self._invoke(self._context, service, byref(parameters)) or target.value is None:
            return None
        return target.value.decode(errors="replace")

    def _taken_view(self, buffer: MemoryBuffer) -> memoryview:
        return owned(buffer.data, buffer.size, self._free)

    def _taken_bytes(self, buffer: MemoryBuffer) -> bytes:
        if not buffer.data:
            return b""
        try:
            return ctypes.string_at(buffer.data, buffer.size)
        finally:
            self._free(buffer.data)

    def _taken_string(self, address: c_void_p) -> bytes:
        if not address.value:
            return b""
        try:
            return ctypes.string_at(address.value)
        finally:
            self._free(address.value)


def _text(value: str) -> bytes:
    """A C string. A NUL would silently cut it."""
    return value.encode(errors="replace").replace(b"\0", b"?")


def _uint32(size: int) -> int:
    if size > _LARGEST:
        raise HostError(f"{size} bytes are more than Orthanc's SDK can carry at once", Code.NOT_ENOUGH_MEMORY)
    return size


def _guarded(function: Callable[P, T], failure: T) -> Callable[P, T]:
    """Let no exception into C, where ctypes would print and forget it and answer 0, which means success."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException:
            # While the interpreter ends, logging may fail too.
            with contextlib.suppress(BaseException):
                logger.exception("a callback failed")
            return failure

    return call


def _immortal(thunk: T) -> T:
    """Keep a C function as long as the process: Orthanc may call it until its very end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thunk))
    return thunk


__all__ = ["ChangeType", "Code", "HttpMethod", "JobCallbacks", "PeerCall", "Sdk"]
