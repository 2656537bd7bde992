"""``doctor``: looks at a configuration of Orthanc, and says what is missing or will not work."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from orthanc_transfers import companion
from orthanc_transfers.cli import configuration as configurations
from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import Peer, join, parse_peers
from orthanc_transfers.core.settings import parse_settings
from orthanc_transfers.host.file_paths import native_path, path_option
from orthanc_transfers.host.native.context import LIBRARY, other_transfers_plugin_configured

_DEPENDENCIES = ("requests", "urllib3", "xxhash", "zstandard", "isal", "numpy")

# Seconds for the response of a peer.
_TIMEOUT = 5.0

_ENOUGH = 1 << 30
"""Bytes that a staging folder should have free."""

Finding = tuple[str, str]
"""``ok``, ``note`` or ``error``, and a sentence."""


def run(path: Path, *, ask_peers: bool) -> int:
    """Print what is found; returns 1 if anything will not work."""
    try:
        configuration = configurations.read(path)
    except ConfigurationError as error:
        print(f"error: {error}")
        return 1
    folder = path if path.is_dir() else path.parent
    errors = 0
    for kind, sentence in _findings(configuration, folder.resolve(), ask_peers):
        errors += kind == "error"
        print(f"{kind}: {sentence}")
    print("nothing is in the way" if not errors else f"{errors} to mend")
    return 1 if errors else 0


def _findings(configuration: Mapping[str, Any], folder: Path, ask_peers: bool) -> Iterator[Finding]:
    yield from _python(configuration, folder)
    yield from _script(configuration, folder)
    if other_transfers_plugin_configured(configuration.get("Plugins"), folder):
        yield (
            "error",
            'the C++ transfers plugin is among the "Plugins": the two exclude each other, take it out',
        )
    yield from _explorer_2(configuration, folder)
    yield from _staging(configuration, folder)
    try:
        peers = parse_peers(configuration.get("OrthancPeers", {}))
    except ConfigurationError as error:
        yield "error", str(error)
        return
    if not peers:
        yield "note", 'there are no "OrthancPeers" in the configuration (some may be in Orthanc\'s database)'
    for peer in peers.values() if ask_peers else ():
        yield _peer(peer)


def _libraries(configuration: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """The shared libraries that Orthanc is going to load."""
    plugins = configuration.get("Plugins", [])
    for item in plugins if isinstance(plugins, list) else []:
        path = folder / native_path(str(item))
        try:
            yield from sorted(path.glob("*.so*")) if path.is_dir() else [path]
        except OSError:
            continue


def _python(configuration: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = [path for path in _libraries(configuration, folder) if path.name.startswith(LIBRARY)]
    if not found:
        yield "error", f'Orthanc\'s Python plugin ({LIBRARY}.so) is not among the "Plugins"'
        return
    if not found[0].is_file():
        yield "error", f"Orthanc's Python plugin {found[0]} does not exist"
        return
    linked = subprocess.run(["ldd", found[0]], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
    versions = re.findall(r"libpython(3\.\d+)", linked)
    if versions and versions[0] != here:
        yield (
            "error",
            f"Orthanc's Python plugin is linked to Python {versions[0]}, and this is {here}: install "
            f"orthanc-transfers with python{versions[0]}, and run doctor with that",
        )
    else:
        yield "ok", f"Orthanc's Python plugin {found[0]}, Python {here}"
    for name in _DEPENDENCIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - numpy raises RuntimeError on a CPU that is too old
            yield ("note" if name == "numpy" else "error"), f"{name} cannot be imported: {error}"


def _script(configuration: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    value = configuration.get("PythonScript")
    if not isinstance(value, str):
        entry = Path(__file__).resolve().parent.parent / "entry.py"
        yield "error", f'"PythonScript" is missing: set it to "{entry}"'
        return
    script = folder / native_path(value)
    try:
        text = script.read_text(errors="replace")
    except OSError as error:
        yield "error", f"the PythonScript {script} cannot be read: {error.strerror}"
        return
    if "orthanc_transfers" not in text:
        yield (
            "error",
            f"{script} does not load this plugin: add the lines that import orthanc_transfers and register it",
        )
        return
    yield "ok", f"PythonScript {script}"


def _explorer_2(configuration: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    libraries = list(_libraries(configuration, folder))
    if not any("OrthancExplorer2" in path.name for path in libraries):
        return
    if any(path.name.startswith(companion.PREFIX) for path in libraries):
        yield "ok", "Orthanc Explorer 2 will show its menu of transfers"
    else:
        path = companion.library()
        yield "note", f'Orthanc Explorer 2 shows its menu of transfers once {path} is among the "Plugins"'


def _staging(configuration: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    try:
        settings = parse_settings(configuration.get("Transfers", {}))
        storage = path_option(configuration, "StorageDirectory", folder, "OrthancStorage")
        index = path_option(configuration, "IndexDirectory", folder, storage)
    except ConfigurationError as error:
        yield "error", str(error)
        return
    staging = (
        folder / native_path(settings.staging_directory)
        if settings.staging_directory
        else storage / "Transfers"
    )
    existing = staging
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        disk = os.statvfs(existing)
        same = [
            name
            for name, path in (("storage", storage), ("index", index))
            if path.exists() and path.stat().st_dev == existing.stat().st_dev
        ]
    except OSError as error:
        yield "error", f"the staging folder {staging} cannot be looked at: {error.strerror}"
        return
    free = disk.f_bavail * disk.f_frsize
    beside = f", on the disk of Orthanc's {' and '.join(same)}" if same else ""
    where = f"staging folder {staging}{beside}: {free / 1e9:.1f} GB free"
    if not os.access(existing, os.W_OK):
        yield "note", f"{where}; this user may not write there, the one who runs Orthanc must"
    yield ("ok" if free >= _ENOUGH else "error"), where


def _peer(peer: Peer) -> Finding:
    try:
        response = requests.get(
            join(peer.url, paths.PLUGIN),
            auth=(peer.username, peer.password) if peer.username and peer.password else None,
            headers=dict(peer.headers),
            timeout=_TIMEOUT,
        )
    except requests.RequestException as error:
        return "note", f"peer {peer.name} cannot be reached from here now: {error}"
    if response.status_code == 401:
        return "error", f"peer {peer.name} refuses its Username and Password"
    if response.status_code != 200:
        return (
            "error",
            f"peer {peer.name} has no transfers plugin (status {response.status_code} of {paths.PLUGIN})",
        )
    try:
        version = response.json()["Version"]
    except (ValueError, KeyError, TypeError):
        return "error", f"peer {peer.name} does not respond like an Orthanc: is {peer.url} right?"
    return "ok", f"peer {peer.name} has transfers plugin {version}"
