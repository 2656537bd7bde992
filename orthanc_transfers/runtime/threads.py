"""Starts all threads of the plugin. All are daemons: none keeps Orthanc from stopping."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import ClassVar, Generic, TypeVar, cast

from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.runtime.cancellation import Cancellation

T = TypeVar("T")

# Seconds that a cancellation waits for workers in a call that cannot be interrupted, such as a DNS look-up.
GRACE = 1.0

# Seconds after which a number of workers that may change is asked for again although no item ended.
ADAPTATION = 0.5

IDLE = 10.0
"""Seconds after which a thread without work ends."""

_IDLE_NAME = "transfers-idle"

_logger = logging.getLogger(__name__)


class Started:
    """What was started in a thread."""

    def __init__(self) -> None:
        self._ended = threading.Lock()
        self._ended.acquire()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for so many seconds at most. Returns whether it has."""
        if not self._ended.acquire(timeout=-1 if timeout is None else timeout):
            return False
        self._ended.release()
        return True

    def end(self) -> None:
        """It has ended."""
        self._ended.release()


def start(name: str, target: Callable[[], None]) -> Started:
    """Run ``target`` in a daemon thread of that name: an idle one, or a new one. What it raises is logged."""
    started = Started()

    def run() -> None:
        try:
            target()
        except Exception:
            _logger.exception("thread %s ended unexpectedly", name)
        finally:
            started.end()

    _Worker.take().run(name, run)
    return started


def call(name: str, function: Callable[[], T]) -> T:
    """What the function returns or raises, run in a thread of that name.

    It costs two context switches, not the start of a thread, where one is idle. There are as many threads as
    concurrent callers, and none is kept for longer than ``IDLE``: what a burst needed does not stay.
    """
    outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # noqa: BLE001  it is raised in the thread that waits
            outcome.put((None, error))

    _Worker.take().run(name, run)
    value, error = outcome.get()
    if error is not None:
        try:
            raise error
        finally:
            error = None  # or its traceback and this frame would keep each other alive
    return cast(T, value)


class _Worker:
    """A thread that runs one function after the other: to hand one over costs a third of the start of a thread."""

    # Single operations of a list need no lock.
    _idle: ClassVar[list[_Worker]] = []

    def __init__(self) -> None:
        self._inbox = SimpleQueue[Callable[[], None]]()
        self._thread = threading.Thread(target=self._loop, name=_IDLE_NAME, daemon=True)
        self._thread.start()

    @classmethod
    def take(cls) -> _Worker:
        """The one that became idle last, or a new one. The caller is to let it run something."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    def run(self, name: str, function: Callable[[], None]) -> None:
        """Run a function, once, in the thread, which has that name meanwhile."""
        self._thread.name = name
        self._inbox.put(function)

    def _loop(self) -> None:
        while (function := self._next()) is not None:
            function()
            # What it holds must not live on until the next one.
            del function
            self._thread.name = _IDLE_NAME
            self._idle.append(self)

    def _next(self) -> Callable[[], None] | None:
        try:
            return self._inbox.get(timeout=IDLE)
        except Empty:
            pass
        try:
            self._idle.remove(self)
        except ValueError:
            return self._inbox.get()  # it was taken at this very moment
        return None


def run_all(
    name: str,
    count: int | Callable[[], int],
    items: Iterable[T],
    work: Callable[[T], None],
    cancellation: Cancellation,
) -> None:
    """Do ``work`` with each item, several at once; returns when all are done.

    ``items`` may be lazy: an item is taken when a worker is free for it, by one thread at a time; taking must
    not block. ``count`` is the maximum number of threads; as a function, which must not block either, it is called
    again and again, and their number follows it during the run. There are never more threads than items.

    The first error wins: no more items are taken, and it is raised once every worker has ended.
    Raises ``Canceled`` about ``GRACE`` seconds after a cancellation at the latest, whatever the workers do.
    """
    if isinstance(items, Sized) and not items:
        cancellation.check()
        return
    _Run(name, count, items, work, cancellation).wait()


class Later(Generic[T]):
    """The result of a function that runs from now on in a thread of that name."""

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._outcome = Future[T]()

        def run() -> None:
            try:
                self._outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001  it is raised in the thread that waits
                self._outcome.set_exception(error)

        start(name, run)

    @classmethod
    def of(cls, result: T) -> Later[T]:
        """One that is known already: no thread is needed."""
        known = cls.__new__(cls)
        known._outcome = Future[T]()
        known._outcome.set_result(result)
        return known

    @property
    def ready(self) -> bool:
        """Whether ``result`` would not wait."""
        return self._outcome.done()

    def result(self, cancellation: Cancellation) -> T:
        """What it returned or raised, once it has. Raises ``Canceled`` if that comes first."""
        if self._outcome.done():
            cancellation.check()
            return self._outcome.result()
        woken = threading.Event()
        self._outcome.add_done_callback(lambda _: woken.set())
        forget = cancellation.on_cancel(woken.set)
        try:
            woken.wait()
        finally:
            forget()
        if not self._outcome.done():
            cancellation.check()
        return self._outcome.result()


class Periodic:
    """Calls ``work`` again and again in a thread of its own, which runs only as long as there is something to do.

    ``delay`` returns the seconds until the next call, or ``None`` to end the thread; it is called with a lock held
    and must not block. Whatever ``work`` raises is logged, and the next call comes all the same. Thread-safe.
    """

    def __init__(self, name: str, delay: Callable[[], float | None], work: Callable[[], None]) -> None:
        self._name = name
        self._delay = delay
        self._work = work
        self._lock = threading.Lock()
        self._running = False
        self._closed = threading.Event()
        self._called = threading.Lock()
        """Held while ``work`` is."""

    def start(self) -> None:
        """Start the thread unless it runs; to be called after each change that gives ``delay`` something to do."""
        with self._lock:
            if self._running:
                return
            self._running = True
        start(self._name, self._run)

    def close(self) -> None:
        """Call ``work`` no more; returns at once, even if it is being called."""
        self._closed.set()

    def ended(self, timeout: float) -> bool:
        """Once closed: whether ``work`` is not being called any more, after so many seconds at most."""
        if not self._called.acquire(timeout=max(0.0, timeout)):
            return False
        self._called.release()
        return True

    def _run(self) -> None:
        while (delay := self._next()) is not None and not self._closed.wait(delay):
            with self._called:
                if self._closed.is_set():
                    return
                try:
                    self._work()
                except Exception:
                    _logger.exception("%s failed, and is tried again later", self._name)

    def _next(self) -> float | None:
        # Decided under the lock: a later call of ``start`` starts another thread.
        with self._lock:
            delay = self._delay()
            self._running = delay is not None
            return delay


class _Run(Generic[T]):
    def __init__(
        self,
        name: str,
        count: int | Callable[[], int],
        items: Iterable[T],
        work: Callable[[T], None],
        cancellation: Cancellation,
    ) -> None:
        self._name = name
        self._count = count
        self._items = iter(items)
        self._work = work
        self._cancellation = cancellation
        self._taking = threading.Lock()
        self._exhausted = False
        self._changed = threading.Condition()
        self._active = 0
        self._started = 0
        self._error: BaseException | None = None

    def wait(self) -> None:
        forget = self._cancellation.on_cancel(self._wake)
        try:
            self._cancellation.check()
            while not self._over:
                self._grow()
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._over or self._may_grow, ADAPTATION if callable(self._count) else None
                    )
            with self._changed:
                self._changed.wait_for(
                    lambda: not self._active, GRACE if self._cancellation.requested else None
                )
        finally:
            forget()
        if self._cancellation.requested:
            raise Canceled("stopped on request") from self._error
        if self._error is not None:
            raise self._error

    @property
    def _stopping(self) -> bool:
        return self._exhausted or self._error is not None or self._cancellation.requested

    @property
    def _over(self) -> bool:
        return self._cancellation.requested or (self._stopping and not self._active)

    @property
    def _may_grow(self) -> bool:
        return not self._stopping and self._active < self._wanted

    @property
    def _wanted(self) -> int:
        return max(1, self._count() if callable(self._count) else self._count)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _grow(self) -> None:
        # Each thread starts with an item: none is without work.
        while self._may_grow:
            try:
                taken = self._take()
            except BaseException as error:  # noqa: BLE001  whatever the iterable raises ends the run
                self._fail(error)
                return
            if taken is None:
                return
            with self._changed:
                self._active += 1
                self._started += 1
            start(f"{self._name}-{self._started}", partial(self._loop, taken))

    def _take(self) -> tuple[T] | None:
        """The next item, or ``None`` when no more are to be taken."""
        with self._taking:
            if not self._stopping:
                for item in self._items:
                    return (item,)
                self._exhausted = True
        return None

    def _loop(self, taken: tuple[T] | None) -> None:
        try:
            while taken is not None:
                self._work(taken[0])
                if self._retired():
                    return
                taken = self._take()
        except BaseException as error:  # noqa: BLE001  it is raised in the thread that waits
            self._fail(error)
        self._leave()

    def _retired(self) -> bool:
        # Decided and counted under one lock: otherwise all would leave when one is too many.
        with self._changed:
            if self._active <= self._wanted:
                return False
            self._leave()
            return True

    def _leave(self) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()
