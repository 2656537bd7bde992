"""How the context is told from all that looks a little like it."""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.host.native.context import (
    Mapping,
    Memory,
    contexts,
    find_context,
    other_transfers_plugin_configured,
    other_transfers_plugin_loaded,
    version_of,
)
from orthanc_transfers.host.native.structures import Context

CODE = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p).value

MakeContext = Callable[..., int]


@pytest.fixture
def make_context() -> Iterator[MakeContext]:
    """Makes something of the layout of a context; answers its address."""
    kept: list[Context] = []

    def make(version: bytes = b"1.12.7", free: int | None = CODE, invoke: int | None = CODE) -> int:
        kept.append(Context(None, version, free, invoke))
        return ctypes.addressof(kept[-1])

    yield make
    kept.clear()


@pytest.mark.parametrize("version", ["1.10.1", "1.12.7", "1.13.0", "mainline", "1.12.7-42-gabcdef"])
def test_a_context_names_its_version(make_context: MakeContext, version: str) -> None:
    assert version_of(make_context(version.encode())) == version


@pytest.mark.parametrize("version", ["", "1.12", "version 1.12.7", "1.12.7 of today", "x" * 100])
def test_a_text_that_is_no_version_is_no_context(make_context: MakeContext, version: str) -> None:
    assert version_of(make_context(version.encode())) is None


def test_functions_that_are_not_in_executable_memory_are_no_context(make_context: MakeContext) -> None:
    data = ctypes.create_string_buffer(64)
    assert version_of(make_context(invoke=ctypes.addressof(data))) is None
    assert version_of(make_context(free=ctypes.addressof(data))) is None
    assert version_of(make_context(free=None)) is None


@pytest.mark.parametrize("address", [0, 8, 0x7FFFFFFFFFF8, 0xFFFFFFFFFFFFFFF8])
def test_an_address_that_cannot_be_read_is_no_context(address: int) -> None:
    assert version_of(address) is None


def test_an_address_that_is_not_aligned_is_no_context(make_context: MakeContext) -> None:
    assert version_of(make_context() + 4) is None


def test_the_context_is_found_among_other_words(make_context: MakeContext) -> None:
    context = make_context()
    words = (ctypes.c_uint64 * 1000)(*range(1000))
    words[777] = context
    words[778] = make_context(b"no version")
    memory = Memory.of_this_process()
    assert contexts([(ctypes.addressof(words), ctypes.sizeof(words))], memory) == {context}


def test_the_same_context_found_twice_counts_once_and_two_contexts_twice(
    make_context: MakeContext,
) -> None:
    first, second = make_context(), make_context()
    words = (ctypes.c_uint64 * 4)(first, second, first, 0)
    segments = [(ctypes.addressof(words), ctypes.sizeof(words))]
    assert contexts(segments, Memory.of_this_process()) == {first, second}


def test_only_what_the_maps_list_with_that_permission_may_be_looked_at() -> None:
    memory = Memory([Mapping(0x3000, 0x4000, "r-xp"), Mapping(0x1000, 0x2000, "rw-p")])
    assert memory.allows(0x1000, 0x1000, "r")
    assert not memory.allows(0x1000, 0x1001, "r")
    assert not memory.allows(0x1000, 8, "x")
    assert not memory.allows(0x2000, 8, "r")
    assert memory.allows(0x3FFF, 1, "x")
    assert not memory.allows(0xFFF, 1, "r")


def test_the_library_of_the_other_transfers_plugin_is_seen_once_it_is_loaded(tmp_path: Path) -> None:
    assert not other_transfers_plugin_loaded()
    library = tmp_path / "libOrthancTransfers.so.1.5"
    shutil.copy(_ctypes.__file__, library)
    handle = _ctypes.dlopen(str(library), 0)
    assert other_transfers_plugin_loaded()
    _ctypes.dlclose(handle)


def test_the_other_transfers_plugin_is_found_among_the_plugins_that_are_going_to_be_loaded(
    tmp_path: Path,
) -> None:
    library = tmp_path / "plugins" / "more" / "libOrthancTransfers.so.1.5"
    library.parent.mkdir(parents=True)
    (library.parent / "libServeFolders.so").touch()
    for plugins in (None, "text", [], [5], ["nowhere"], ["plugins"], ["plugins/more/libServeFolders.so"]):
        assert not other_transfers_plugin_configured(plugins, tmp_path)
    library.touch()
    for plugins in (["nowhere", "plugins"], [str(library)], ["plugins/more/libOrthancTransfers.so.1.5"]):
        assert other_transfers_plugin_configured(plugins, tmp_path)


def test_outside_orthanc_one_sentence_says_that_there_is_no_python_plugin() -> None:
    with pytest.raises(ConfigurationError, match="must be loaded by Orthanc's Python plugin"):
        find_context()
