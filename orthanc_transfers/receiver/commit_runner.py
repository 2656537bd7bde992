"""Runs the commits of one transfer, one at a time; all who ask meanwhile wait for the same one (single flight)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from orthanc_transfers.receiver.commit_summary import CommitSummary
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

# Seconds between looks at the caller's own cancellation while another thread commits.
_GLANCE = 0.2


class CommitRunner:
    """Thread-safe.

    ``admit`` is called with ``lock`` held when no commit is running: it raises unless one may begin, returns the
    outcome if there is one already, or changes the state of the transfer and returns ``None``: then ``perform``
    is called, once. ``closing``: the server stops. ``ended`` is called after each commit, whatever came of it.
    """

    def __init__(
        self,
        lock: threading.Lock,
        admit: Callable[[], Future[CommitSummary] | None],
        perform: Callable[[Cancellation], CommitSummary],
        *,
        closing: Cancellation,
        ended: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._admit = admit
        self._perform = perform
        self._closing = closing
        self._ended = ended
        self._attempt: Future[CommitSummary] | None = None

    def run(self, cancellation: Cancellation | None) -> CommitSummary:
        """The outcome of the commit that is running, or of one performed here, which ``cancellation`` stops.

        Raises what ``perform`` or ``admit`` raised; ``Canceled`` also if only the wait was canceled.
        """
        attempt, mine = self._claim()
        if mine:
            self._run(attempt, cancellation or Cancellation())
        while not attempt.done():
            wait([attempt], _GLANCE)
            if cancellation is not None:
                cancellation.check()
        return attempt.result()

    def start(self, thread_name: str) -> None:
        """Begin a commit in a thread of its own, unless one is running or the outcome is known. Returns at once."""
        attempt, mine = self._claim()
        if mine:
            threads.start(thread_name, lambda: self._run(attempt, Cancellation()))

    def run_within(self, seconds: float, thread_name: str) -> CommitSummary | None:
        """The same, in a thread of its own; ``None`` if the outcome is not there after so many seconds."""
        attempt, mine = self._claim()
        if mine:
            threads.start(thread_name, lambda: self._run(attempt, Cancellation()))
        wait([attempt], seconds)
        return attempt.result() if attempt.done() else None

    def wait(self, seconds: float) -> None:
        """Wait until the commit that is running, if any, has ended; for so many seconds at most."""
        with self._lock:
            attempt = self._attempt
        if attempt is not None and seconds > 0:
            wait([attempt], seconds)

    def _claim(self) -> tuple[Future[CommitSummary], bool]:
        """The commit that is running, or the outcome; and whether the caller is to perform it."""
        with self._lock:
            if self._attempt is not None:
                return self._attempt, False
            outcome = self._admit()
            if outcome is not None:
                return outcome, False
            self._attempt = Future[CommitSummary]()
            return self._attempt, True

    def _run(self, attempt: Future[CommitSummary], cancellation: Cancellation) -> None:
        # Two may stop it: its caller, and the end of the server.
        either = Cancellation()
        forget = [cancellation.on_cancel(either.cancel), self._closing.on_cancel(either.cancel)]
        try:
            summary = self._perform(either)
        except BaseException as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
            self._release()
            attempt.set_exception(error)
        else:
            self._release()
            attempt.set_result(summary)
        finally:
            for one in forget:
                one()

    def _release(self) -> None:
        with self._lock:
            self._attempt = None
        self._ended()
