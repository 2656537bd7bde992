"""The script that ``PythonScript`` of Orthanc's configuration names.

It makes the package and its dependencies importable, wherever this file stands (a checkout whose
``make setup`` made a ``.venv``, or the site-packages of a virtual environment), and loads the plugin.
An exception that left this file would end Orthanc.
"""

import os
import sys


def _make_importable() -> None:
    package = os.path.dirname(os.path.realpath(__file__))
    home = os.path.dirname(package)  # a checkout, or site-packages
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    dependencies = os.path.join(home, ".venv", "lib", version, "site-packages")
    # Orthanc puts the script's folder there, which would show the package's modules as top-level ones.
    kept = [path for path in sys.path if not path or os.path.realpath(path) != package]
    # First of all: the system may have older releases of the same packages.
    first = [home, *([dependencies] if _may_exist(dependencies) else [])]
    sys.path[:] = first + [path for path in kept if path not in first]


def _may_exist(folder: str) -> bool:
    try:
        os.stat(folder)
    except PermissionError:
        # Python passes over folders that it may not enter; the log will name this one if something is missing.
        return True
    except OSError:
        return False
    return True


try:
    _make_importable()
    import orthanc_transfers

    orthanc_transfers.register()
except KeyboardInterrupt:
    raise
except BaseException as error:  # noqa: BLE001 - SystemExit, too, would end Orthanc
    # Not even the package could be imported.
    import orthanc

    _reason = " ".join(f"{type(error).__name__}: {error}".split())
    orthanc.LogError(
        "transfers: the transfers plugin is not loaded: "
        + _reason.encode("ascii", "backslashreplace").decode()
    )
