"""A PostgreSQL server of its own, for Orthancs that share an index."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.orthanc_client import OrthancError
from tests.support.orthanc_server import python_plugin
from tests.support.ports import free_port
from tests.support.waiting import wait_until

# PostgreSQL refuses to run as root.
_USER = "postgres"


def postgresql_is_installed() -> bool:
    """Whether there are PostgreSQL and Orthanc's plugin for it."""
    return _programs() is not None and index_plugin().exists()


def index_plugin() -> Path:
    """Orthanc's plugin that keeps the index in PostgreSQL."""
    return python_plugin().with_name("libOrthancPostgreSQLIndex.so")


class PostgreSQL:
    """A server with an empty database, on a free port of this machine; without authentication unless ``password``.

    ``durable``: it fsyncs, as a real one does. ``address``: where it listens; ``clients``: the network that it lets in.
    """

    def __init__(
        self, password: str = "", *, durable: bool = False, address: str = "127.0.0.1", clients: str = ""
    ) -> None:
        self.password = password
        self.address = address
        self._clients = clients
        self._durable = durable
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def section(self) -> dict[str, Any]:
        """The section ``PostgreSQL`` of Orthanc's configuration, for one of several that share the index."""
        return {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": self.address,
            "Port": self.port,
            "Database": "postgres",
            "Username": _USER,
            "Password": self.password,
            "EnableSsl": False,
            "Lock": False,
        }

    @property
    def uri(self) -> str:
        """As libpq takes it."""
        return f"postgresql://{_USER}:{self.password}@{self.address}:{self.port}/postgres"

    def __enter__(self) -> PostgreSQL:
        programs = _programs()
        if programs is None:
            raise OrthancError("PostgreSQL is not installed")
        self._let_in()
        secret = self._folder / "password"
        secret.write_text(self.password or "none")
        made = subprocess.run(
            [
                *(*_as_user(), programs / "initdb", "-D", self._data, "-U", _USER, "--no-sync"),
                *("-A", "scram-sha-256" if self.password else "trust", "--pwfile", secret),
            ],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise OrthancError(f"initdb failed: {made.stdout}{made.stderr}")
        if self._clients:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {self._clients} trust\n")
        self.start()
        return self

    def start(self) -> None:
        """Start it, again after ``stop``."""
        programs = _programs()
        assert programs is not None
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(*_as_user(), programs / "postgres", "-D", self._data, "-p", str(self.port)),
                    *(() if self._durable else ("-F",)),
                    # A node that is stopped in the middle of a transaction holds its locks until then.
                    *("-c", "idle_in_transaction_session_timeout=10s"),
                    *(
                        "-c",
                        f"listen_addresses={self.address}",
                        "-c",
                        f"unix_socket_directories={self._folder}",
                    ),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._ready, "PostgreSQL is ready", 60)

    def stop(self) -> None:
        """Stop it, with all its connections; what is in it stays."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _let_in(self) -> None:
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_USER)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)

    def _ready(self) -> bool:
        log = (self._folder / "log").read_text(errors="replace")
        if self._process is not None and self._process.poll() is not None:
            raise OrthancError(f"PostgreSQL ended: {log}")
        with socket.socket() as probe:
            listens = probe.connect_ex((self.address, self.port)) == 0
        return listens and "ready to accept connections" in log


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _as_user() -> list[str]:
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.geteuid() == 0 else []
