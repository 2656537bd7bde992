"""Writes Python's logging to Orthanc's log."""

from __future__ import annotations

import logging

from orthanc_transfers._startup import as_text
from orthanc_transfers.host.native.sdk import Sdk

ROOT = "orthanc_transfers"


# Text from a remote client must not look like further lines of the log.
_BREAKS = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class _Formatter(logging.Formatter):
    """A message is one line; only the traceback behind it has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the standard library's name)
        return as_text(super().formatMessage(record)).translate(_BREAKS)


class OrthancHandler(logging.Handler):
    """Writes records to Orthanc's log; needs no lock of its own, and never raises."""

    def __init__(self, sdk: Sdk) -> None:
        super().__init__()
        self._sdk = sdk
        self.setFormatter(_Formatter("transfers: %(message)s"))

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: Orthanc's log has its own, and this one would be held meanwhile."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if record.levelno >= logging.ERROR:
                self._sdk.log_error(text)
            elif record.levelno >= logging.WARNING:
                self._sdk.log_warning(text)
            else:
                self._sdk.log_info(text)
        except Exception:  # noqa: BLE001 - as the handlers of the standard library do
            self.handleError(record)


def install(sdk: Sdk) -> logging.Logger:
    """Send everything below the logger ``orthanc_transfers`` to Orthanc's log, from INFO on."""
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        if isinstance(handler, OrthancHandler):
            logger.removeHandler(handler)
    logger.addHandler(OrthancHandler(sdk))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
