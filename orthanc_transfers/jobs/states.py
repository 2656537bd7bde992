"""The states of a transfer job: a table of states and events."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """State of a job."""

    READY = enum.auto()
    """New, paused, or reset: the next step starts or continues the work."""
    RUNNING = enum.auto()
    """The worker thread runs."""
    SUCCEEDED = enum.auto()
    FAILED = enum.auto()
    CANCELED = enum.auto()
    RELEASED = enum.auto()
    """Orthanc stopped, or dropped the job, before the work was done: nothing happens any more."""


class Event(enum.Enum):
    """What happens to a job."""

    START = enum.auto()
    """A step found no run in progress."""
    DONE = enum.auto()
    """The worker thread finished the transfer."""
    BROKE = enum.auto()
    """The worker thread met an error."""
    PAUSE = enum.auto()
    CANCEL = enum.auto()
    RESET = enum.auto()
    RELEASE = enum.auto()


_TABLE: dict[State, dict[Event, State]] = {
    State.READY: {
        Event.START: State.RUNNING,
        # The worker thread ended by itself at the moment of a pause: that must not be lost.
        Event.DONE: State.SUCCEEDED,
        Event.BROKE: State.FAILED,
        Event.PAUSE: State.READY,
        Event.CANCEL: State.CANCELED,
        Event.RESET: State.READY,
        Event.RELEASE: State.RELEASED,
    },
    State.RUNNING: {
        Event.DONE: State.SUCCEEDED,
        Event.BROKE: State.FAILED,
        Event.PAUSE: State.READY,
        Event.CANCEL: State.CANCELED,
        Event.RESET: State.READY,
        Event.RELEASE: State.RELEASED,
    },
    State.SUCCEEDED: {
        Event.PAUSE: State.SUCCEEDED,
        Event.CANCEL: State.SUCCEEDED,
        Event.RESET: State.READY,
        Event.RELEASE: State.SUCCEEDED,
    },
    State.FAILED: {
        Event.PAUSE: State.FAILED,
        Event.CANCEL: State.CANCELED,
        Event.RESET: State.READY,
        Event.RELEASE: State.FAILED,
    },
    State.CANCELED: {
        Event.PAUSE: State.CANCELED,
        Event.CANCEL: State.CANCELED,
        Event.RESET: State.READY,
        Event.RELEASE: State.CANCELED,
    },
    State.RELEASED: dict.fromkeys(set(Event) - {Event.START}, State.RELEASED),
}


def after(state: State, event: Event) -> State:
    """The state that an event leads to. Raises ``ValueError`` if it cannot happen in that state."""
    try:
        return _TABLE[state][event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen to a job that is {state.name}") from None
