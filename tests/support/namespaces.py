"""Network namespaces: hosts of their own on this machine."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


def inside(namespace: str) -> tuple[str, ...]:
    """What a command in that namespace begins with."""
    return ("ip", "netns", "exec", namespace)


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread, and those it starts, are in that namespace meanwhile."""
    # Python has ``os.setns`` since 3.12 only.
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with open(path) as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"this thread cannot enter {path}")

    with open("/proc/thread-self/ns/net") as before:
        enter(f"/run/netns/{namespace}")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{before.fileno()}")
