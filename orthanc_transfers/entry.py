"""The script that ``PythonScript`` of Orthanc's configuration names.

It makes the package and its dependencies importable, wherever this file stands (a checkout whose
``make setup`` made a ``.venv``, or the site-packages of a virtual environment), and loads the plugin.
"""

import importlib.util
import site
import sys
from pathlib import Path


def _make_importable() -> None:
    here = Path(__file__).resolve().parent  # the package
    home = here.parent  # a checkout, or site-packages
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    # Orthanc's script folder is the package itself: its modules must not be found as top-level ones.
    sys.path[:] = [path for path in sys.path if not path or Path(path).resolve() != here]
    if importlib.util.find_spec("requests") and importlib.util.find_spec("isal"):
        return
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(str(home / ".venv" / "lib" / version / "site-packages"))


_make_importable()

import orthanc_transfers  # noqa: E402  (importable from here on only)

orthanc_transfers.register()
