"""Transfers accelerator for Orthanc: moves DICOM between Orthanc servers, whole or not at all."""

# Known clients compare major and minor apart and ask for 1.6 or later, so this stays 1.x, x >= 7.
__version__ = "1.8.0"


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
