"""Transfers accelerator for Orthanc: moves DICOM between Orthanc servers, whole or not at all."""

from orthanc_transfers._version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Load the plugin into the Orthanc whose Python plugin runs this.

    To be called once, while the script named by ``PythonScript`` is being imported.
    Whatever keeps the plugin from being loaded is one error in Orthanc's log, and Orthanc goes on without it.
    """
    # Nothing is imported before: reading the version must not need what only the plugin needs.
    try:
        from orthanc_transfers._startup import check_python

        check_python()

        from orthanc_transfers.plugin import load

        load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit, too, would end Orthanc
        from orthanc_transfers._startup import log_not_loaded

        log_not_loaded(error)
