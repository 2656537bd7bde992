"""Real Orthancs, as child processes on free ports of this machine."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.support.orthanc_client import OrthancClient, OrthancError
from tests.support.ports import free_port
from tests.support.process import catches
from tests.support.waiting import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
ENTRY = CHECKOUT / "orthanc_transfers" / "entry.py"
CONFIGS = CHECKOUT / "configs"

START_TIMEOUT = 60.0
"""Seconds that an Orthanc may take to answer; it needs about 2."""


def orthanc_executable() -> Path:
    """Orthanc itself: ``$ORTHANC``, or the one of Debian's package."""
    named = os.environ.get("ORTHANC") or shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(named).exists():
        raise OrthancError(f"there is no Orthanc at {named}: run `make setup`, or name it in ORTHANC")
    return Path(named)


def python_plugin() -> Path:
    """The Python plugin: ``$ORTHANC_PYTHON_PLUGIN``, or the one of Debian's package."""
    named = os.environ.get("ORTHANC_PYTHON_PLUGIN") or "/usr/share/orthanc/plugins/libOrthancPython.so"
    if not Path(named).exists():
        raise OrthancError(
            f"there is no Python plugin at {named}: run `make setup`, or name it in ORTHANC_PYTHON_PLUGIN"
        )
    return Path(named)


def load_configuration(path: Path) -> dict[str, Any]:
    """A configuration file of Orthanc, which may have comments as in C++."""
    text = path.read_text()
    # A string, or a comment: strings are kept, so that the slashes of an address are no comment.
    text = re.sub(
        r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/',
        lambda match: match[0] if match[0].startswith('"') else " ",
        text,
        flags=re.DOTALL,
    )
    configuration: dict[str, Any] = json.loads(text)
    return configuration


class OrthancServer(OrthancClient):
    """One Orthanc: a folder with its configuration, its data and its log, and a process when started.

    ``configuration`` is laid over what the harness sets itself (ports, folders, plugins). ``script`` is
    the one that ``PythonScript`` names, ``None`` for an Orthanc without Python. ``user`` and ``password``
    switch authentication on; ``certificate`` is a PEM file with key and certificate, and switches HTTPS on
    (Debian's crashes at the first connection: see ``orthanc_tls.py``, or put ``Nginx`` in front).
    ``launcher`` is what starts it, ``ip netns exec NAME`` say; then ``host`` is its address, seen from here.
    """

    started: list[OrthancServer] = []  # noqa: RUF012  (all servers of this process, to end and to tell of)

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        *,
        configuration: Mapping[str, Any] | None = None,
        script: Path | None = ENTRY,
        plugins: Sequence[Path] = (),
        user: str | None = None,
        password: str | None = None,
        certificate: Path | None = None,
        http_port: int | None = None,
        dicom_port: int | None = None,
        verbose: bool = False,
        host: str = "127.0.0.1",
        launcher: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            name, host, http_port or free_port(), user=user, password=password, certificate=certificate
        )
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"orthanc-{name}-"))
        self._temporary = folder is None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dicom_port = dicom_port or free_port()
        self.verbose = verbose
        self.launcher = tuple(launcher)
        self.environment = dict(environment or {})
        self.log_file = self.folder / "orthanc.log"
        self.storage = self.folder / "storage"
        self.configuration: dict[str, Any] = {
            "Name": name,
            "StorageDirectory": str(self.storage),
            "IndexDirectory": str(self.storage),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": user is not None,
            "RegisteredUsers": {user: password} if user is not None else {},
            "Plugins": [str(plugin) for plugin in plugins],
            "JobsHistorySize": 100,
            "OrthancPeers": {},
        }
        if script is not None:
            self.configuration["Plugins"].append(str(python_plugin()))
            self.configuration["PythonScript"] = str(script)
        if certificate is not None:
            self.configuration.update(SslEnabled=True, SslCertificate=str(certificate))
        self.configuration.update(configuration or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._told_to_end = False

    # -- Configuration ------------------------------------------------------------------------------

    def add_peer(self, name: str, server: OrthancServer, **properties: Any) -> None:
        """Make another server known to this one, from its next start on. ``RemoteSelf=…`` for pull mode."""
        peer: dict[str, Any] = {"Url": server.url}
        if server.user is not None:
            peer.update(Username=server.user, Password=server.password)
        peer.update(properties)
        self.configuration["OrthancPeers"][name] = peer
        if server.certificate is not None:
            self.configuration["HttpsCACertificates"] = str(server.certificate)

    # -- Process ------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the process. Raises ``OrthancError`` if there is none."""
        if self._process is None:
            raise OrthancError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def crashed(self) -> str | None:
        """How it ended, if it ended without being told to; ``None`` otherwise."""
        if self._process is None or self.running or self._told_to_end:
            return None
        code = self._process.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"

    @property
    def exit_status(self) -> int | None:
        """Of the process that ended last: negative for a signal. ``None`` while it runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def log(self) -> str:
        """All that it logged, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.splitlines()[-lines:])

    def launch(self) -> OrthancServer:
        """Start the process, without waiting for it to answer."""
        if self.running:
            raise OrthancError(f"{self.name} runs already")
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self.configuration, indent=2))
        command = [
            *self.launcher,
            str(orthanc_executable()),
            *(["--verbose"] if self.verbose else []),
            str(file),
        ]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A crash within Python says where in the log.
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **self.environment},
                # A group of its own: Ctrl-C in a terminal reaches only the parent, which stops it.
                start_new_session=True,
            )
        self._told_to_end = False
        if self not in OrthancServer.started:
            OrthancServer.started.append(self)
        return self

    def start(self, timeout: float = START_TIMEOUT) -> OrthancServer:
        """Start the process and wait until it answers. Raises ``OrthancError`` with its last words."""
        self.launch()
        self.wait_until_ready(timeout)
        return self

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until ``/system`` answers. Raises ``OrthancError`` with the last words of the log."""
        limit = time.monotonic() + timeout
        while True:
            with contextlib.suppress(requests.RequestException):
                answer = self._session.get(self.url + "system", timeout=5)
                if answer.status_code == 200:
                    self._require_this_one(answer.json())
                    return
            if not self.running:
                code = self._process.returncode if self._process else None
                raise OrthancError(f"{self.name} ended at its start (status {code}):\n{self.log_tail()}")
            if time.monotonic() > limit:
                raise OrthancError(f"{self.name} does not answer after {timeout:g} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def _require_this_one(self, system: Mapping[str, Any]) -> None:
        """Raises ``OrthancError`` if another listens on its port: this one is about to end then."""
        if system.get("DicomPort") != self.configuration["DicomPort"]:
            raise OrthancError(
                f"another Orthanc, {system.get('Name')!r}, listens on port {self.http_port} of {self.name}"
            )

    def stop(self, timeout: float = 60.0) -> None:
        """Stop it as an administrator would (SIGTERM). Raises ``OrthancError`` if it does not end."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        self._told_to_end = True
        # A moment after its start has ended, Orthanc begins to catch it; before, it just dies.
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: catches(process.pid, signal.SIGTERM), "SIGTERM is caught", 10)
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise OrthancError(f"{self.name} did not stop within {timeout:g} s:\n{self.log_tail()}") from None
        self.forget_connections()

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL), with all that it started."""
        process = self._process
        if process is not None:
            self._told_to_end = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.forget_connections()

    def restart(self, timeout: float = START_TIMEOUT) -> None:
        """Stop it as an administrator would, and start it again on the same data."""
        self.stop()
        self.start(timeout)

    def remove(self) -> None:
        """End it, and delete its folder if the harness made it."""
        self.kill()
        if self in OrthancServer.started:
            OrthancServer.started.remove(self)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def check_alive(self, context: str) -> None:
        """Raises ``OrthancError`` if any server of this process crashed: what is waited for may need it."""
        for server in OrthancServer.started:
            if server.crashed:
                raise OrthancError(f"{server.name} crashed: {server.crashed}; {context}")

    def __enter__(self) -> OrthancServer:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()


def pair(a: OrthancServer, b: OrthancServer, *, pull_mode: bool = False) -> None:
    """Make two servers peers of each other, by their names, from their next start on.

    ``pull_mode``: what one sends, the other pulls (``RemoteSelf``).
    """
    for one, other in ((a, b), (b, a)):
        properties = {"RemoteSelf": one.name} if pull_mode else {}
        one.add_peer(other.name, other, **properties)


def configured_pair(
    folder: Path, *, http_ports: tuple[int | None, int | None] = (None, None)
) -> tuple[OrthancServer, OrthancServer]:
    """The two Orthancs of ``configs/``, moved to this machine: their folders, ports and addresses change."""
    servers = {}
    for file, port in zip((CONFIGS / "orthanc-a.json", CONFIGS / "orthanc-b.json"), http_ports, strict=True):
        configuration = load_configuration(file)
        ((user, password),) = configuration["RegisteredUsers"].items()
        # The files are named as the hosts of docker-compose.yml.
        servers[f"http://{file.stem}:8042/"] = OrthancServer(
            configuration["Name"],
            folder / file.stem,
            configuration=configuration,
            user=user,
            password=password,
            http_port=port,
        )
    for server in servers.values():
        for peer in server.configuration["OrthancPeers"].values():
            peer["Url"] = servers[peer["Url"]].url
    a, b = servers.values()
    return a, b


def start_together(*servers: OrthancServer) -> None:
    """Start servers at the same time, and wait until all answer."""
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_until_ready()


@contextlib.contextmanager
def running(*servers: OrthancServer) -> Iterator[None]:
    """Servers, started at the same time, and removed at the end."""
    try:
        start_together(*servers)
        yield
    finally:
        for server in servers:
            server.remove()


@atexit.register
def _end_all() -> None:
    for server in list(OrthancServer.started):
        server.remove()
