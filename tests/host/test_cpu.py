"""Whether numpy can be imported on a CPU: what CPUs say of themselves, and what libraries of numpy say."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.host import cpu
from orthanc_transfers.host.cpu import missing_flags, numpy_baseline, why_no_numpy

KVM64 = "processor\t: 0\nflags\t\t: fpu mmx fxsr sse sse2 syscall nx lm pni cx16 hypervisor\nbugs\t\t:\n"
NEHALEM = "flags\t\t: fpu sse sse2 lm pni cx16 ssse3 sse4_1 sse4_2 popcnt lahf_lm\n"
HASWELL = NEHALEM.strip() + " abm avx avx2 bmi1 bmi2 f16c fma movbe xsave\n"


@pytest.mark.parametrize(
    ("cpuinfo", "baseline", "missing"),
    [
        (KVM64, ("X86_V2",), "lahf_lm popcnt sse4_1 sse4_2 ssse3"),
        (KVM64, ("SSE", "SSE2", "SSE3"), ""),
        (KVM64, ("SSE", "SSE2", "SSE3", "SSSE3"), "ssse3"),
        (KVM64, (), ""),
        (NEHALEM, ("X86_V2",), ""),
        (NEHALEM, ("X86_V2", "X86_V3"), "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
        (HASWELL, ("X86_V3",), ""),
        (HASWELL, ("X86_V4",), "avx512bw avx512cd avx512dq avx512f avx512vl"),
        # What no one knows yet is not tried on the oldest CPUs, and does no harm on others.
        (NEHALEM, ("X86_V9",), "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
        (HASWELL, ("X86_V9",), ""),
        # Nothing is known of the CPU.
        ("", ("SSE3",), "pni"),
        ("processor: 0\n", ("SSE3",), "pni"),
    ],
)
def test_a_cpu_is_compared_with_a_baseline(cpuinfo: str, baseline: tuple[str, ...], missing: str) -> None:
    assert " ".join(missing_flags(cpuinfo, baseline)) == missing


def library(folder: Path, content: bytes) -> Path:
    """A package ``numpy`` that must not be imported, with that for its library."""
    package = folder / "numpy"
    (package / "_core").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('it was imported')")
    (package / "_core" / "_multiarray_umath.cpython-399-x86_64-linux-gnu.so").write_bytes(content)
    return folder


@pytest.fixture
def other_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(content: bytes) -> None:
        monkeypatch.syspath_prepend(library(tmp_path, content))
        for name in [name for name in sys.modules if name.split(".")[0] == "numpy"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, "orthanc_transfers.core.delta16", raising=False)

    return install


def test_the_library_of_numpy_says_its_baseline(other_numpy: Any) -> None:
    other_numpy(
        b"\x7fELF\0NumPy was built with baseline optimizations: \n"
        b"(SSE SSE2 SSE3) but your machine doesn't support:\n(%s).\0"
    )
    assert numpy_baseline() == ("SSE", "SSE2", "SSE3")


def test_a_library_that_says_nothing_is_taken_for_the_usual_one(other_numpy: Any) -> None:
    other_numpy(b"\x7fELF")
    assert numpy_baseline() == ("X86_V2",)


def test_the_numpy_of_these_tests_says_what_it_says_when_it_is_imported() -> None:
    import numpy._core._multiarray_umath as numpy

    assert list(numpy_baseline()) == numpy.__cpu_baseline__


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numpy_is_imported_where_it_can_be(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert why_no_numpy() is None


@pytest.mark.parametrize("content", [b"\x7fELF", b""])
def test_numpy_is_not_imported_on_a_cpu_that_lacks_something(
    other_numpy: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_numpy(content or b"\0")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(KVM64)
    reason = why_no_numpy()
    assert reason == "this CPU lacks lahf_lm popcnt sse4_1 sse4_2 ssse3, which numpy needs"


def test_where_nothing_tells_of_the_cpu_numpy_is_not_imported(
    other_numpy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_numpy(b"\0")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "missing")
    reason = why_no_numpy()
    assert reason is not None
    assert "FileNotFoundError" in reason


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), ImportError(), SystemExit(1)])
def test_whatever_numpy_raises_is_the_reason(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("orthanc_transfers.core.delta16"):
            raise error
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    reason = why_no_numpy()
    assert reason is not None
    assert reason.startswith(f"numpy cannot be used: {type(error).__name__}")
    assert "\n" not in reason
