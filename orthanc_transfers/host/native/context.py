"""Finds ``OrthancPluginContext*``, the entry point of the SDK, which the ``orthanc`` module does not expose.

The companion (orthanc_transfers/companion) keeps the one that Orthanc handed to it, if it is loaded. Else,
libOrthancPython.so keeps the pointer in its writable data. Each aligned word there is a candidate; it is
the context if it points to readable memory laid out as the SDK's header says::

    void* pluginsManager; const char* orthancVersion; Free*; InvokeService*

with a version of Orthanc behind the second word and executable code behind the last two. Only ranges
listed in ``/proc/self/maps`` are looked at, so a wrong guess cannot crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthanc_transfers.companion import PREFIX
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.host.file_paths import native_path

LIBRARY = "libOrthancPython"
OTHER_LIBRARY = "libOrthancTransfers"
VERSION = re.compile(rb"(?:\d{1,3}\.\d{1,3}\.\d{1,3}|mainline)[-+.~\w]{0,40}")

_WORD = ctypes.sizeof(ctypes.c_void_p)
_CONTEXT_SIZE = 4 * _WORD
_LONGEST_VERSION = 64

# From elf.h and link.h.
_PT_LOAD = 1
_PF_W = 2


class _ProgramHeader(ctypes.Structure):
    """``Elf64_Phdr``."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("vaddr", ctypes.c_uint64),
        ("paddr", ctypes.c_uint64),
        ("filesz", ctypes.c_uint64),
        ("memsz", ctypes.c_uint64),
        ("align", ctypes.c_uint64),
    )


class _LibraryInfo(ctypes.Structure):
    """The head of ``struct dl_phdr_info``."""

    _fields_ = (
        ("addr", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("phdr", ctypes.POINTER(_ProgramHeader)),
        ("phnum", ctypes.c_uint16),
    )


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of ``/proc/self/maps``: addresses from ``start`` (included) to ``stop`` (excluded)."""

    start: int
    stop: int
    permissions: str


class Memory:
    """What of this process may be looked at."""

    def __init__(self, mappings: list[Mapping]) -> None:
        self._mappings = sorted(mappings, key=lambda mapping: mapping.start)
        self._starts = [mapping.start for mapping in self._mappings]

    @classmethod
    def of_this_process(cls) -> Memory:
        """As ``/proc/self/maps`` says at this moment."""
        mappings = []
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            addresses, permissions = line.split(maxsplit=2)[:2]
            start, stop = (int(address, 16) for address in addresses.split("-"))
            mappings.append(Mapping(start, stop, permissions))
        return cls(mappings)

    def allows(self, address: int, size: int, permission: str) -> bool:
        """Whether one mapping with that permission (``r``, ``w`` or ``x``) holds all the bytes."""
        return 0 < size <= self._room(address, permission)

    def text(self, address: int) -> bytes | None:
        """The C string at an address, ``None`` if there is none of a reasonable length."""
        room = min(self._room(address, "r"), _LONGEST_VERSION)
        if not room:
            return None
        found = ctypes.string_at(address, room)
        return found.split(b"\0", 1)[0] if b"\0" in found else None

    def _room(self, address: int, permission: str) -> int:
        """How many bytes from an address on have a permission."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return 0
        mapping = self._mappings[index]
        return max(0, mapping.stop - address) if permission in mapping.permissions else 0


def find_context() -> int:
    """The address of the ``OrthancPluginContext`` of the Orthanc in whose process this runs.

    Raises ``ConfigurationError`` if there is none, or more than one that looks like it.
    """
    if _WORD != 8:
        raise ConfigurationError("the transfers plugin needs a 64-bit Orthanc")
    try:
        memory = Memory.of_this_process()
        handed_over = _context_of_companion()
        if handed_over is not None and version_of(handed_over, memory) is not None:
            return handed_over
        segments = _writable_segments()
    except (OSError, AttributeError) as error:
        raise ConfigurationError(f"the transfers plugin runs on Linux only: {error}") from error
    if not segments:
        raise ConfigurationError(
            f"no {LIBRARY} in this process: the transfers plugin must be loaded by Orthanc's Python plugin"
        )
    found = contexts(segments, memory)
    if len(found) != 1:
        raise ConfigurationError(
            f"Orthanc's plugin context cannot be told within {LIBRARY} ({len(found)} candidates): "
            "this release of the Python plugin is not supported by the transfers plugin"
        )
    return found.pop()


def other_transfers_plugin_loaded() -> bool:
    """Whether the C++ transfers plugin is in this process: both would serve the same routes.

    Orthanc loads plugins one after the other, so during initialisation this sees those loaded before the
    Python plugin only.
    """
    return _mapped_file(OTHER_LIBRARY) is not None


def other_transfers_plugin_configured(plugins: Any, folder: Path) -> bool:
    """Whether Orthanc is going to load the C++ transfers plugin, now or later.

    ``plugins`` is its option ``Plugins``: libraries and folders of them, relative to ``folder``.
    """
    if not isinstance(plugins, list):
        return False
    for item in plugins:
        path = folder / native_path(str(item))
        # A folder that cannot be listed ends Orthanc itself.
        with contextlib.suppress(OSError, ValueError):
            libraries = path.rglob("*.so*") if path.is_dir() else [path]
            if any(library.name.startswith(OTHER_LIBRARY) for library in libraries):
                return True
    return False


def contexts(segments: list[tuple[int, int]], memory: Memory) -> set[int]:
    """All addresses in the segments (start, size in bytes) behind which a context lies."""
    return {
        candidate
        for start, size in segments
        for candidate in set(_words(start, size, memory))
        if version_of(candidate, memory) is not None
    }


def version_of(candidate: int, memory: Memory | None = None) -> str | None:
    """The version of Orthanc that a context names; ``None`` if the address is not that of a context."""
    memory = memory or Memory.of_this_process()
    if candidate % _WORD or not memory.allows(candidate, _CONTEXT_SIZE, "r"):
        return None
    _manager, version, free, invoke = struct.unpack("=4Q", ctypes.string_at(candidate, _CONTEXT_SIZE))
    if not memory.allows(free, 1, "x") or not memory.allows(invoke, 1, "x"):
        return None
    text = memory.text(version)
    if text is None or not VERSION.fullmatch(text):
        return None
    return text.decode("ascii")


def _mapped_file(prefix: str) -> str | None:
    """Path of a file in this process whose name begins like that."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].rsplit("/", 1)[-1].startswith(prefix):
            return fields[5]
    return None


def _context_of_companion() -> int | None:
    """The context handed to the companion; ``None`` unless Orthanc has loaded that, before the Python plugin."""
    path = _mapped_file(PREFIX)
    if path is None:
        return None
    try:
        library = ctypes.PyDLL(path, mode=os.RTLD_NOLOAD)
        return ctypes.c_void_p.in_dll(library, "orthanc_transfers_context").value
    except (OSError, ValueError):
        return None  # its file was replaced meanwhile, or is another's


def _words(start: int, size: int, memory: Memory) -> Iterator[int]:
    """The aligned words of a segment, page by page since a part of it may be unreadable."""
    page = 4096
    position = start + -start % _WORD
    stop = start + size
    while position + _WORD <= stop:
        length = min(page - position % page, stop - position) // _WORD * _WORD
        if memory.allows(position, length, "r"):
            yield from struct.unpack(f"={length // _WORD}Q", ctypes.string_at(position, length))
        position += length


def _writable_segments() -> list[tuple[int, int]]:
    """Start and size of the writable segments of libOrthancPython."""
    segments: list[tuple[int, int]] = []

    def visit(info: ctypes._Pointer[_LibraryInfo], _size: int, _data: int | None) -> int:
        library = info.contents
        if LIBRARY in (library.name or b"").decode(errors="replace").rsplit("/", 1)[-1]:
            for index in range(library.phnum):
                header = library.phdr[index]
                if header.type == _PT_LOAD and header.flags & _PF_W:
                    segments.append((library.addr + header.vaddr, header.memsz))
        return 0

    # The dynamic linker holds its lock meanwhile: the GIL is kept, so that no thread that waits
    # for that lock can hold it.
    prototype = ctypes.PYFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(_LibraryInfo), ctypes.c_size_t, ctypes.c_void_p
    )
    process = ctypes.PyDLL(None)
    process.dl_iterate_phdr.argtypes = (prototype, ctypes.c_void_p)
    process.dl_iterate_phdr.restype = ctypes.c_int
    process.dl_iterate_phdr(prototype(visit), None)
    return segments
