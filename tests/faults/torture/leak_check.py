"""Whether processes gain threads, file descriptors or memory over many transfers."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.faults.torture.round import Violation
from tests.support import heap, process
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

MB = 1024 * 1024

WARM = 300
"""Transfers after which a process has all that it will ever need: it remembers ``JOBS``, and the allocator's arenas
have met most of what there is."""

JOBS = 100
"""``JobsHistorySize``. Orthanc's record of an ended job takes 16 KB, and ours 5: a hundred on each side are there after
some two hundred transfers, when nothing is compared yet. With a history of 500, an hour's run had 18 MB more after 910
transfers than after 300, half of which our jobs kept for nothing then (``jobs/test_ended_transfers.py``).

What else is remembered is bounded likewise: outcomes for ``EXPIRY`` seconds, and what was sent of the last 2000
resources, for the list of transfers, which takes 1.5 MB.
"""

MORE_THREADS = 8
"""There may be one for each request at once, but they end after ``runtime.threads.IDLE`` seconds without any: before
what is compared is given up."""

MORE_FILES = 8
MORE_USED = 4 * MB
"""What a process may have more in use than when it was warm, besides ``REMEMBERED`` for each transfer since."""

REMEMBERED = 8 * 1024
"""Bytes of a transfer that has ended, until as many are remembered as ever will be: see ``JOBS``. A cluster's node
remembers besides who has the last 10,000, and which 10,000 instances were imported last (measured there: 6 KB of each
of 1200, with ``JobsHistorySize`` 500)."""

MORE_MEMORY = 6 * MB
"""What may be more resident.

All that is stored is deleted before each round, on both sides, so nothing grows with Orthanc's own database (measured:
a thousand plain uploads and deletions without the plugin add less than 1 MB), nor with its cache of files, which is
switched off: that goes up and down by 10 MB and more. Without it, a process has 1 MB more or less from round to round,
and gained 3 MB from the 200th transfer to the 300th, less than 1 MB after that: holes in the allocator's arenas.
"""

LOOKS = 10
"""Rounds of which the least counts: what a process has in a moment goes up and down by several MB."""


@dataclass(frozen=True)
class Vitals:
    """A process at rest."""

    threads: int
    files: int
    memory: int
    """Bytes that are resident."""
    used: int
    """Bytes of them in use, see ``heap.py``."""

    def __str__(self) -> str:
        return (
            f"{self.threads} threads, {self.files} files, {self.memory / MB:.1f} MB,"
            f" {self.used / MB:.1f} of them in use"
        )


class LeakCheck:
    """Compares what processes have with what they had when they were warm. ``tell`` gets each comparison.

    ``warm_after``: so many transfers of all of them. ``more_files``: descriptors that a process may have more then.
    ``more_memory``: bytes resident likewise. ``looks``: see ``LOOKS``.
    """

    def __init__(
        self,
        servers: Sequence[OrthancServer],
        tell: Callable[[str], None],
        warm_after: int = WARM,
        more_files: int = MORE_FILES,
        more_memory: int = MORE_MEMORY,
        looks: int = LOOKS,
    ) -> None:
        self._servers = servers
        self._tell = tell
        self._warm_after = warm_after
        self._more_files = more_files
        self._more_memory = more_memory
        self._warm: dict[str, Vitals] = {}
        self._recent = {server.name: deque[Vitals](maxlen=looks) for server in servers}
        self._transfers = 0
        """Since the last restart."""
        self.compared: list[str] = []
        """What became of the processes that lasted."""

    def restarted(self) -> None:
        """The processes are new ones, or may be."""
        self._transfers = 0
        self._warm.clear()
        for looks in self._recent.values():
            looks.clear()

    def round_ended(self, transfers: int) -> None:
        """The same processes have done some more transfers, and are at rest."""
        self._transfers += transfers
        for server in self._servers:
            self._recent[server.name].append(_vitals(server))
        if self._transfers >= self._warm_after and not self._warm:
            self._warm = {name: _least(looks) for name, looks in self._recent.items()}

    def compare(self) -> None:
        """What a process has more than when it was warm. Raises ``Violation``; begins anew."""
        count, self._transfers = self._transfers, 0
        warm, self._warm = self._warm, {}
        if not count:
            return
        if not warm:
            self.compared.append(
                f"memory: not looked at, fewer than {self._warm_after} transfers without a restart"
            )
            return
        for server in self._servers:
            before = warm[server.name]

            def settled(server: OrthancServer = server, before: Vitals = before) -> bool:
                now = _vitals(server)
                return (
                    now.threads <= before.threads + MORE_THREADS
                    and now.files <= before.files + self._more_files
                )

            with contextlib.suppress(TimeoutError):
                wait_until(settled, "", timeout=30)
            now = _least([*self._recent[server.name], _vitals(server)])
            told = f"{server.name}: after {self._warm_after} transfers {before}; after {count} {now}"
            self.compared.append(told)
            self._tell(told)
            kept = MORE_USED + REMEMBERED * (count - self._warm_after)
            grew = now.used > before.used + kept or now.memory > before.memory + self._more_memory
            if grew or not settled():
                raise Violation(f"it grows: {told}")


def _vitals(server: OrthancServer) -> Vitals:
    used = heap.used(server)
    return Vitals(
        process.threads(server.pid), process.open_files(server.pid), process.memory(server.pid), used
    )


def _least(looks: Iterable[Vitals]) -> Vitals:
    columns = zip(*((one.threads, one.files, one.memory, one.used) for one in looks), strict=True)
    return Vitals(*map(min, columns))
