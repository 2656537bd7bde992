"""Instances shared by concurrent commits: what one imported, and takes back, others may count on.

What a commit imported is deleted with the last of those that count on it, and stays if one of them succeeds (a
reference count, in effect). Each commit that has begun journals what that makes of its own instances, so that it holds
after the death of the process too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from orthanc_transfers.core.model import Manifest


class Claim:
    """A commit counts on the instances of its manifest, from before it looks them up in Orthanc to its end."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.kept: set[str] = set()
        """Instances that another commit succeeded with meanwhile."""
        self.inherited: set[str] = set()
        """Instances that another commit imported, and left to this one to delete if it is undone."""
        self.journal: Callable[[], None] = lambda: None
        """To be called when one of these has changed."""


class SharedInstances:
    """The commits of this server that are running. Thread-safe.

    The lock is held while an instance is deleted: a commit that begins to count on it then finds that it is gone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: list[Claim] = []
        self._on_kept: Callable[[Manifest], None] = lambda manifest: None

    def on_kept(self, listener: Callable[[Manifest], None]) -> None:
        """Call ``listener``, with the lock held, with what a commit is about to succeed with. It must not raise."""
        self._on_kept = listener

    def claim(self, manifest: Manifest) -> Claim:
        """A commit begins to count on these instances."""
        claim = Claim(manifest)
        with self._lock:
            self._claims.append(claim)
        return claim

    def begin(self, claim: Claim, journal: Callable[[], None]) -> None:
        """An import begins. ``journal`` records what ``kept`` and ``inherited`` mean to it, now and after each change.

        It must not raise after the first time.
        """
        with self._lock:
            journal()
            claim.journal = journal

    def succeed(self, claim: Claim) -> None:
        """A commit ends, and all its instances stay."""
        with self._lock:
            self._claims.remove(claim)
            self._on_kept(claim.manifest)
            for other in self._claims:
                common = {instance.id for instance in claim.manifest if instance.id in other.manifest}
                other.kept |= common
                other.inherited -= common
                if common:
                    other.journal()

    def fail(self, claim: Claim, remove: Callable[[str], None]) -> None:
        """A commit ends undone: what it inherited is left to others, or deleted by ``remove``."""
        with self._lock:
            self._claims.remove(claim)
            for identifier in claim.inherited:
                self._leave(claim, identifier, remove)

    def take_back(self, claim: Claim, identifier: str, remove: Callable[[str], None]) -> None:
        """``remove`` what a commit imported, unless another counts on it."""
        with self._lock:
            if identifier not in claim.kept:
                self._leave(claim, identifier, remove)

    def leave_behind(
        self, claim: Claim, identifiers: Iterable[str], keep: Callable[[set[str]], None]
    ) -> None:
        """``keep`` those that a commit imported and could not take back, unless another has succeeded with them."""
        with self._lock:
            keep(set(identifiers) - claim.kept)

    def remove_unclaimed(self, identifier: str, remove: Callable[[], None]) -> None:
        """``remove`` what an earlier commit left behind, unless one that is running counts on it now."""
        with self._lock:
            if not any(identifier in claim.manifest for claim in self._claims):
                remove()

    def _leave(self, claim: Claim, identifier: str, remove: Callable[[str], None]) -> None:
        for other in self._claims:
            if other is not claim and identifier in other.manifest:
                other.inherited.add(identifier)
                other.journal()
                return
        remove(identifier)
