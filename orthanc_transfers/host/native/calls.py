"""How a service of Orthanc's SDK is called, what it hands over, and how it calls back.

WARNING: this is C through ctypes. A wrong structure is a crash of Orthanc, not an exception: compare with
``orthanc/OrthancCPlugin.h`` before touching anything in this folder.

Everything goes through ``context->InvokeService(context, service, &params)``. That call releases the GIL,
so whatever blocks in it (a response to a slow client, a file, a peer) blocks no other thread. Callbacks take
the GIL; no exception leaves one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable
from ctypes import byref, c_char_p, c_void_p
from typing import ParamSpec, TypeVar

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import owned
from orthanc_transfers.host.native.structures import Code, MemoryBuffer, Service

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MAX_UINT32 = 0xFFFFFFFF

_invoke_prototype = ctypes.CFUNCTYPE(ctypes.c_int32, c_void_p, ctypes.c_int32, c_void_p)
_free_prototype = ctypes.CFUNCTYPE(None, c_void_p)


class Calls:
    """Invokes services of the SDK behind one context (its address). Thread-safe."""

    def __init__(self, context: int) -> None:
        native = structures.Context.from_address(context)
        self.version: str = native.orthancVersion.decode("ascii")
        """Version of Orthanc, as in ``GET /system``."""
        self._context = context
        self._invoke = _invoke_prototype(native.InvokeService)
        self._free = _free_prototype(native.Free)
        # Needs no lock: each use is a single operation of a dict.
        self._descriptions: dict[int, str] = {}

    def describe(self, code: int) -> str:
        """Orthanc's description of one of its error codes."""
        # Asked for once: each instance that Orthanc does not have is an error of its REST API.
        known = self._descriptions.get(code)
        if known is None:
            known = self._descriptions[code] = self._describe(code)
        return known

    def _describe(self, code: int) -> str:
        target = c_char_p()
        parameters = structures.GetErrorDescription(ctypes.pointer(target), code)
        if self._invoke(self._context, Service.GET_ERROR_DESCRIPTION, byref(parameters)) or not target.value:
            return f"error {code}"
        return target.value.decode(errors="replace")

    def _call(self, service: Service, parameters: ctypes.Structure, doing: str) -> None:
        self._check(self._invoke(self._context, service, byref(parameters)), doing)

    def _check(self, code: int, doing: str) -> None:
        if code != Code.SUCCESS:
            raise HostError(f"{doing} failed: Orthanc reports {self.describe(code)!r}", code)

    # -- What Orthanc allocated, and we free

    def _string(self, service: Service, doing: str) -> bytes:
        result = c_void_p()
        self._call(service, structures.RetrieveDynamicString(ctypes.pointer(result), None), doing)
        return self._taken_string(result)

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


def text(value: str) -> bytes:
    """A C string. A NUL would silently cut it, so it becomes a question mark."""
    return value.encode(errors="replace").replace(b"\0", b"?")


def uint32(size: int) -> int:
    """A size in bytes as the SDK passes it. Raises ``HostError`` beyond 32 bits."""
    if size > _MAX_UINT32:
        raise HostError(f"{size} bytes are more than Orthanc's SDK can carry at once", Code.NOT_ENOUGH_MEMORY)
    return size


def guarded(function: Callable[P, T], failure: T) -> Callable[P, T]:
    """Let no exception into C, where ctypes would print and forget it and return 0, which means success."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException:
            # While the interpreter ends, logging may fail too.
            with contextlib.suppress(BaseException):
                log.exception("a callback of Orthanc failed")
            return failure

    return call


_kept = threading.local()


def keep_thread_state() -> None:
    """Let Python's state of the calling thread, one of Orthanc's, live on when the callback that it is in returns.

    To be called in callbacks that come often, in a thread that lives long: a state made for each of them, and deleted
    after it, costs 20 us, two system calls among them.
    """
    if not getattr(_kept, "done", False):
        _kept.done = True
        # Never released: so the end of the callback does not delete the state.
        ctypes.pythonapi.PyGILState_Ensure()


def immortal(thunk: T) -> T:
    """Keep a C function as long as the process: Orthanc may call it until its very end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thunk))
    return thunk
