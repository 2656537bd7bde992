"""Transfers accelerator for Orthanc: moves DICOM between Orthanc servers, whole or not at all."""

from orthanc_transfers._version import __version__

__all__ = ["__version__", "register"]


def register() -> None:
    """Load the plugin into the Orthanc whose Python plugin runs this.

    To be called once, while the script named by ``PythonScript`` is being imported.
    A configuration or an Orthanc that cannot carry the plugin is said in Orthanc's log,
    as one error, and nothing is registered.
    """
    # Nothing is imported before: reading the version must not need what only the plugin needs.
    try:
        from orthanc_transfers.plugin import load
    except ImportError as error:
        from orthanc_transfers.host.logs import say_without_sdk

        say_without_sdk(
            f"the transfers plugin is not loaded: {error}; install the package with its dependencies "
            "for the Python that Orthanc's Python plugin is linked to"
        )
        return
    load()
