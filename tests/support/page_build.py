"""The page's sources, built anew; and the tools from npm that this takes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.orthanc_server import CHECKOUT

SOURCES = CHECKOUT / "orthanc_transfers" / "explorer" / "app_src"
BUILT = CHECKOUT / "orthanc_transfers" / "explorer" / "app"

_LOCKED = ("package.json", "package-lock.json", ".npmrc")


def npm() -> str | None:
    """The program, where there is one."""
    return shutil.which("npm")


def workshop() -> Path:
    """A folder with ``node_modules`` as ``package-lock.json`` says; kept in ``.cache``."""
    digest = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in _LOCKED)).hexdigest()
    folder = CHECKOUT / ".cache" / f"page-{digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            for name in _LOCKED:
                shutil.copy(SOURCES / name, folder)
            subprocess.run([npm() or "npm", "ci", "--silent"], cwd=folder, check=True, timeout=280)
            (folder / "ready").touch()
    return folder


def build(out: Path) -> None:
    """Check the types of the sources, and build them into a folder."""
    place = out.parent / "sources"
    shutil.copytree(SOURCES, place, ignore=shutil.ignore_patterns("node_modules"))
    (place / "node_modules").symlink_to(workshop() / "node_modules")
    environment = {**os.environ, "PAGE_OUT": str(out)}
    for script in ("check", "build"):
        command = [npm() or "npm", "run", "--silent", script]
        subprocess.run(command, cwd=place, env=environment, check=True, timeout=280)


def sources_hash() -> str:
    """As ``vite.config.ts`` has it."""
    found = hashlib.sha256()
    names = [str(one.relative_to(SOURCES)) for one in (SOURCES / "src").rglob("*") if one.is_file()]
    for name in sorted([*names, "index.html", "package-lock.json", "package.json", "vite.config.ts"]):
        found.update(f"{name}\n".encode() + (SOURCES / name).read_bytes())
    return found.hexdigest()
