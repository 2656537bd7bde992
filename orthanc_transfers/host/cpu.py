"""Whether numpy, which the codec ``delta16`` alone needs, can be imported on this CPU.

numpy is built for a baseline of instructions, x86-64-v2 as its wheel of 2.4.6. On a CPU without them (``kvm64``, the
model of many virtual machines) importing it raises RuntimeError at best, and at worst ends the process (2.4.6 under
``qemu-x86_64 -cpu kvm64``: SIGILL). So the CPU is compared with what numpy's library says of itself before anything of
it is loaded. A trial in a child process is no way: within Orthanc ``sys.executable`` is Orthanc.
"""

from __future__ import annotations

import importlib.util
import mmap
import platform
import re
from pathlib import Path

from orthanc_transfers._startup import described

CPU_INFO = Path("/proc/cpuinfo")

# As the kernel names them; SSE and SSE2 are in every x86-64. The levels are those of the x86-64 psABI.
_V2 = frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_FLAGS = {
    "SSE": frozenset[str](),
    "SSE2": frozenset[str](),
    "SSE3": frozenset({"pni"}),
    "SSSE3": frozenset({"ssse3"}),
    "SSE41": frozenset({"sse4_1"}),
    "POPCNT": frozenset({"popcnt"}),
    "SSE42": frozenset({"sse4_2"}),
    "X86_V2": _V2,
    "X86_V3": _V3,
    "X86_V4": _V4,
}
"""numpy's names -> flags of ``/proc/cpuinfo``. Of names that are not here, no more is asked than of ``X86_V3``."""

# The text of numpy's own error, as it stands in its library.
_BASELINE = re.compile(rb"built with baseline optimizations: \n\(([A-Z0-9_ ]+)\) but your machine")


def why_no_numpy() -> str | None:
    """Import numpy if it can be done; else the reason why not, in one line. Never raises."""
    try:
        missing = _missing()
        if missing:
            return f"this CPU lacks {' '.join(missing)}, which numpy needs"
        import orthanc_transfers.core.delta16  # noqa: F401
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a broken numpy raises, it costs one codec only
        return f"numpy cannot be used: {described(error)}"
    return None


def _missing() -> list[str]:
    """The flags that numpy needs and this CPU does not have, sorted. Raises ``OSError``."""
    if platform.machine() != "x86_64":
        return []
    return missing_flags(CPU_INFO.read_text(encoding="ascii", errors="replace"), numpy_baseline())


def missing_flags(cpuinfo: str, baseline: tuple[str, ...]) -> list[str]:
    """The flags that a baseline of numpy needs and ``/proc/cpuinfo`` does not show, sorted."""
    needed = frozenset[str]().union(*(_FLAGS.get(name, _V3) for name in baseline))
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return sorted(needed - set(found[1].split() if found else ()))


def numpy_baseline() -> tuple[str, ...]:
    """The baseline of the numpy that would be imported, without importing it; ``X86_V2`` where it does not say."""
    spec = importlib.util.find_spec("numpy")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).glob("*core/_multiarray_umath*.so"):
            with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = _BASELINE.search(content)
                if found:
                    return tuple(found[1].decode("ascii").split())
    return ("X86_V2",)
