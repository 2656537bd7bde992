"""Builds the companion (orthanc_transfers/companion) for all architectures, as a hook of the package's build.

The compiler, Zig's, comes as a wheel, and builds for any architecture on any: the same bytes from the same source.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CHECKOUT = Path(__file__).parent.parent
OPTIONS = (
    *("-Os", "-shared", "-ffreestanding", "-nostdlib", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
    *("-Wl,-s", "-Wl,--build-id=none"),
)

sys.path.insert(0, str(CHECKOUT))

from orthanc_transfers import __version__  # noqa: E402
from orthanc_transfers.companion import ARCHITECTURES, FOLDER, file_name  # noqa: E402


def build(folder: Path) -> list[Path]:
    """Write the libraries into a folder. Raises ``CalledProcessError``."""
    made = []
    for architecture in ARCHITECTURES:
        path = folder / file_name(architecture)
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-gnu"]
        options = [*OPTIONS, f'-DVERSION="{__version__}"', "-o", path]
        subprocess.run([*compiler, *options, "companion.c"], cwd=FOLDER, check=True)
        made.append(path)
    return made


class Companion(BuildHookInterface):
    """Named by ``pyproject.toml``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries to a wheel; to the checkout itself, if that is what is installed."""
        if version == "editable":
            # A checkout that is read-only goes without, unless they are there already.
            if os.access(FOLDER, os.W_OK):
                build(FOLDER)
            return
        self._made = tempfile.TemporaryDirectory()
        package = FOLDER.relative_to(CHECKOUT)
        for path in build(Path(self._made.name)):
            build_data["force_include"][str(path)] = str(package / path.name)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what is in the wheel now."""
        if version != "editable":
            self._made.cleanup()
