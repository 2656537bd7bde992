"""Python's logging -> Orthanc's log."""

from __future__ import annotations

import logging

from orthanc_transfers.host.sdk import Sdk

ROOT = "orthanc_transfers"


class OrthancHandler(logging.Handler):
    """Writes records to Orthanc's log; needs no lock of its own, and never raises."""

    def __init__(self, sdk: Sdk) -> None:
        super().__init__()
        self._sdk = sdk
        self.setFormatter(logging.Formatter("transfers: %(message)s"))

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


def say_without_sdk(text: str) -> None:
    """Put an error into Orthanc's log when there is no ``Sdk``: through the Python plugin's own module."""
    import orthanc

    orthanc.LogError(f"transfers: {text}")
