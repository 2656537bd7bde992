"""What an object holds in memory for itself."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterable
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any

_SHARED = (type, ModuleType, CodeType, FrameType, BuiltinFunctionType)


def held(one: object, alike: object, shared: Iterable[object] = ()) -> list[object]:
    """What ``one`` reaches and ``alike`` does not; nothing of ``shared`` is gone through."""
    others = _reached(alike, shared)
    return [found for identity, found in _reached(one, shared).items() if identity not in others]


def size(objects: Iterable[object]) -> int:
    """Bytes, as Python counts them; half as much again for what the allocators add."""
    return sum(map(sys.getsizeof, objects))


def told(objects: Iterable[object]) -> str:
    """How many there are of each type, the most first."""
    return ", ".join(
        f"{count} {name}" for name, count in Counter(type(o).__name__ for o in objects).most_common()
    )


def _reached(root: object, shared: Iterable[object]) -> dict[int, object]:
    found: dict[int, object] = {}
    closed = {id(one) for one in shared}
    pending = [root]
    while pending:
        this = pending.pop()
        if id(this) in found or id(this) in closed or isinstance(this, _SHARED):
            continue
        found[id(this)] = this
        pending += _referents(this)
    return found


def _referents(this: object) -> list[Any]:
    if isinstance(this, FunctionType):  # not all of its module
        return [this.__closure__, this.__defaults__, this.__kwdefaults__]
    return gc.get_referents(this)
