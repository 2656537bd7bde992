"""Orthanc's SDK as one class of Python: the server, its log, its own REST API; and routes, peers, jobs.

See ``calls.py`` before touching anything in this folder.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Mapping
from ctypes import byref, c_uint16
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import pinned, strings
from orthanc_transfers.host.native.calls import guarded, immortal, keep_thread_state, text, uint32
from orthanc_transfers.host.native.dicom_calls import DicomCalls
from orthanc_transfers.host.native.job_calls import JobCalls
from orthanc_transfers.host.native.peer_calls import PeerCalls
from orthanc_transfers.host.native.route_calls import RouteCalls
from orthanc_transfers.host.native.structures import Code, HttpMethod, MemoryBuffer, Service


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """An answer of Orthanc's own REST API; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Sdk(RouteCalls, PeerCalls, JobCalls, DicomCalls):
    """The SDK behind one context. Thread-safe.

    Calls raise ``HostError`` with the code of Orthanc unless they say otherwise.
    """

    _storage_elsewhere: bool | None = None

    def check_version(self) -> None:
        """Compare with what the server says of itself, once it has started.

        Raises ``ConfigurationError``: then this is not the context of this Orthanc, and must not be used.
        """
        reported = json.loads(self.rest_get("/system"))["Version"]
        if reported != self.version:
            raise ConfigurationError(f"the plugin context says Orthanc {self.version}, the server {reported}")

    # -- Log ------------------------------------------------------------------------------------------

    def log_error(self, line: str) -> None:
        self._invoke(self._context, Service.LOG_ERROR, text(line))

    def log_warning(self, line: str) -> None:
        self._invoke(self._context, Service.LOG_WARNING, text(line))

    def log_info(self, line: str) -> None:
        self._invoke(self._context, Service.LOG_INFO, text(line))

    # -- The server -----------------------------------------------------------------------------------

    def configuration(self) -> dict[str, Any]:
        """The whole configuration at this moment: all its files merged, and peers as set at run time."""
        value = json.loads(self._string(Service.GET_CONFIGURATION, "reading the configuration"))
        return value if isinstance(value, dict) else {}

    def configuration_path(self) -> str:
        """The file or the folder that Orthanc was started with; empty if there was none."""
        path = self._string(Service.GET_CONFIGURATION_PATH, "reading the path of the configuration")
        return os.fsdecode(path)

    def knows_tag(self, name: str) -> bool:
        """Whether Orthanc's dictionary has a DICOM tag of that keyword, or of those digits (``gggg,eeee``)."""
        entry = structures.DictionaryEntry()
        parameters = structures.LookupDictionary(ctypes.pointer(entry), text(name))
        code: int = self._invoke(self._context, Service.LOOKUP_DICTIONARY, byref(parameters))
        return code == Code.SUCCESS

    def on_change(self, callbacks: Mapping[int, Callable[[], None]]) -> None:
        """Register callbacks by the type of the change (``ChangeType``), once for all.

        Does not disturb the one callback of the ``orthanc`` module.
        """

        def changed(change: int, _level: int, _resource: bytes | None) -> int:
            # Called for each change, of which an import makes four or five.
            keep_thread_state()
            callback = callbacks.get(change)
            if callback is not None:
                callback()
            return Code.SUCCESS

        thunk = structures.OnChangeCallback(guarded(changed, Code.PLUGIN))
        parameters = structures.RegisterOnChangeCallback(immortal(thunk))
        self._call(Service.REGISTER_ON_CHANGE_CALLBACK, parameters, "registering for changes")

    def set_metric(self, name: str, value: float) -> None:
        """Set the present value of a metric. A 32-bit float in Orthanc."""
        parameters = structures.SetMetricsValue(text(name), value, 0)
        self._invoke(self._context, Service.SET_METRICS_VALUE, byref(parameters))

    def on_metrics(self, callback: Callable[[], None]) -> None:
        """Register a callback that sets the present values, called whenever a client asks for the metrics."""
        thunk = structures.RefreshMetricsCallback(guarded(callback, None))
        parameters = structures.RegisterRefreshMetricsCallback(immortal(thunk))
        self._call(Service.REGISTER_REFRESH_METRICS_CALLBACK, parameters, "registering for metrics")

    # -- Orthanc's own REST API -----------------------------------------------------------------------

    def storage_is_elsewhere(self) -> bool:
        """Whether a plugin keeps the files, instead of Orthanc in its own folder. Asked once: it stays so."""
        if self._storage_elsewhere is None:
            self._storage_elsewhere = (
                json.loads(self.rest_get("/system")).get("StorageAreaPlugin") is not None
            )
        return self._storage_elsewhere

    def rest_get(self, uri: str) -> bytes:
        """``GET`` from Orthanc itself, bypassing all plugins."""
        target = MemoryBuffer()
        parameters = structures.RestApiGet(ctypes.pointer(target), text(uri))
        self._call(Service.REST_API_GET, parameters, f"GET {uri}")
        return self._taken_bytes(target)

    def rest_post(self, uri: str, body: Buffer) -> bytes:
        """``POST`` to Orthanc itself, bypassing all plugins. The body is not copied on its way."""
        return self._rest_send(Service.REST_API_POST, "POST", uri, body)

    def rest_put(self, uri: str, body: Buffer) -> bytes:
        """``PUT`` to Orthanc itself, bypassing all plugins."""
        return self._rest_send(Service.REST_API_PUT, "PUT", uri, body)

    def _rest_send(self, service: Service, method: str, uri: str, body: Buffer) -> bytes:
        target = MemoryBuffer()
        with pinned(body) as (address, size):
            parameters = structures.RestApiPost(ctypes.pointer(target), text(uri), address, uint32(size))
            self._call(service, parameters, f"{method} {uri}")
        return self._taken_bytes(target)

    def rest_delete(self, uri: str) -> None:
        """``DELETE`` in Orthanc itself, bypassing all plugins."""
        code = self._invoke(self._context, Service.REST_API_DELETE, text(uri))
        self._check(code, f"DELETE {uri}")

    def rest_call(
        self, method: HttpMethod, uri: str, headers: Mapping[str, str] | None = None, body: Buffer = b""
    ) -> RestAnswer:
        """Any request to Orthanc itself, with headers, bypassing all plugins.

        What Orthanc raises is raised here; a status other than 200 that it sends is in the answer.
        """
        answer, answer_headers, status = MemoryBuffer(), MemoryBuffer(), c_uint16()
        sent = headers or {}
        with pinned(body) as (address, size):
            parameters = structures.CallRestApi(
                ctypes.pointer(answer),
                ctypes.pointer(answer_headers),
                ctypes.pointer(status),
                method,
                text(uri),
                len(sent),
                strings(tuple(sent)),
                strings(tuple(sent.values())),
                address,
                uint32(size),
                0,
            )
            code = self._invoke(self._context, Service.CALL_REST_API, byref(parameters))
        received, content = self._taken_bytes(answer_headers), self._taken_bytes(answer)
        self._check(code, f"{method.name} {uri}")
        named = json.loads(received) if received else {}
        return RestAnswer(
            status.value, {str(key).lower(): str(value) for key, value in named.items()}, content
        )

    def dicom(self, instance: str) -> memoryview:
        """The DICOM file of an instance, in the memory that Orthanc read it into."""
        target = MemoryBuffer()
        parameters = structures.GetDicomForInstance(ctypes.pointer(target), text(instance))
        self._call(Service.GET_DICOM_FOR_INSTANCE, parameters, f"reading instance {instance}")
        return self._taken_view(target)
