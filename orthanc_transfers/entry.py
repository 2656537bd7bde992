"""The script that ``PythonScript`` of Orthanc's configuration names.

It makes the package and its dependencies importable, wherever this file stands (a checkout whose
``make setup`` made a ``.venv``, or the site-packages of a virtual environment), and loads the plugin.
"""

import sys
from pathlib import Path


def _make_importable() -> None:
    package = Path(__file__).resolve().parent
    home = package.parent  # a checkout, or site-packages
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    dependencies = home / ".venv" / "lib" / version / "site-packages"
    # Orthanc puts the script's folder there, which would show the package's modules as top-level ones.
    kept = [path for path in sys.path if not path or Path(path).resolve() != package]
    # First of all: the system may have older releases of the same packages.
    first = [str(home), *([str(dependencies)] if dependencies.is_dir() else [])]
    sys.path[:] = first + [path for path in kept if path not in first]


_make_importable()

import orthanc_transfers  # noqa: E402  (importable from here on only)

orthanc_transfers.register()
