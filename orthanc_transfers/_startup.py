"""Says in Orthanc's log, in one line, why the plugin is not loaded.

Imports nothing but what every Python has, so that it works whatever else is missing, broken or unreadable.
"""

from __future__ import annotations

import os
import sys
import traceback

_PACKAGE = __name__.partition(".")[0] + "."


def log_not_loaded(error: BaseException) -> None:
    """Log the reason as one error. The traceback goes to the level INFO, which ``--verbose`` shows."""
    import orthanc

    orthanc.LogError(f"transfers: the transfers plugin is not loaded: {_reason(error)}")
    # With the error as the only argument it needs Python 3.10.
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    orthanc.LogInfo("transfers: " + as_text("".join(lines)))


def check_python() -> None:
    """Raises ``ImportError`` if this Python is too old: what it would say of the package's syntax explains nothing."""
    if sys.version_info < (3, 11):  # noqa: UP036 - nothing but this keeps Orthanc from loading it with an older one
        raise ImportError("the transfers plugin needs Python 3.11 or later")


def described(error: BaseException) -> str:
    """One line: the type, the text, and the file and the line where it was raised.

    Of an error of this package the text alone, which is a sentence.
    """
    text = one_line(str(error))
    if text and type(error).__module__.startswith(_PACKAGE):
        return text
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    raised = f" ({as_text(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{raised}"


def one_line(text: str) -> str:
    """The text with nothing in it that would break a line of the log."""
    words = " ".join(as_text(text).split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)


def as_text(path: str) -> str:
    """A file name as people read it: without ``LANG``, Python takes each byte beyond ASCII for half a surrogate."""
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # some other half of a surrogate
        return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(error: BaseException) -> str:
    reason = described(error)
    if not isinstance(error, ImportError):
        return reason
    closed = [as_text(folder) for folder in sys.path if isinstance(folder, str) and _is_closed(folder)]
    if closed:
        return f"{reason}; the user that runs Orthanc may not enter {', '.join(closed)}"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"{reason}; install the package with its dependencies for the Python that Orthanc's Python plugin "
        f"is linked to, which is {version}"
    )


def _is_closed(folder: str) -> bool:
    try:
        os.scandir(folder).close()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return not os.access(folder, os.X_OK)
