"""nginx as a reverse proxy in front of an Orthanc: HTTPS, limits and time-outs."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.support.orthanc_client import OrthancError
from tests.support.orthanc_server import OrthancServer
from tests.support.ports import free_port
from tests.support.process import is_stopped
from tests.support.waiting import wait_until

_MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port}{ssl};
        {tls}
        client_max_body_size 0;
        {server}
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            {location}
        }}
    }}
    # Of ``settle``. What tests configure above does not reach it.
    server {{
        listen 127.0.0.1:{quiet_port};
        access_log off;
        keepalive_timeout 0;
        limit_rate 0;
        return 204;
    }}
}}
"""


class Nginx:
    """One nginx process on a free port. ``http``, ``server`` and ``location`` are further directives.

    ``certificate`` is a PEM file with key and certificate: HTTPS. ``upstream`` is a host and port, or the
    name of an ``upstream`` block given in ``http``.
    """

    def __init__(
        self,
        folder: Path,
        upstream: str | OrthancServer,
        *,
        certificate: Path | None = None,
        http: str = "",
        server: str = "",
        location: str = "",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._quiet_port = free_port()
        self.certificate = certificate
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(upstream, OrthancServer):
            upstream = f"127.0.0.1:{upstream.http_port}"
        self._file = folder / "nginx.conf"
        tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else ""
        self._file.write_text(
            _MAIN.format(
                # Else the workers of a nginx started by root could not enter root's temporary folders.
                user="user root;" if os.geteuid() == 0 else "",
                folder=folder,
                port=self.port,
                quiet_port=self._quiet_port,
                ssl=" ssl" if certificate else "",
                tls=tls,
                upstream=upstream,
                http=http,
                server=server,
                location=location,
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it serves, with a slash at its end."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/"

    @property
    def access_log(self) -> str:
        """One line for each request that it has answered; see ``settle``."""
        self.settle()
        return (self.folder / "access.log").read_text(errors="replace")

    def settle(self) -> None:
        """Wait until what it has answered so far is written down.

        Its one worker does that right after an answer, before it turns to another event: who has the answer to
        a further request finds it. What was answered before its body had arrived (413, say) is written down
        only once that has, or the client hangs up (tried on 1.22.1).
        """
        wait_until(lambda: self._cannot_write() or self._responds(), "nginx responds")

    def _cannot_write(self) -> bool:
        """Whether it has ended, or was stopped (SIGSTOP)."""
        if self._process is None or self._process.poll() is not None:
            return True
        try:
            return all(map(is_stopped, self.processes()[1:]))
        except (FileNotFoundError, ProcessLookupError):
            return False  # a process has just ended

    def _responds(self) -> bool:
        # Short: it may have been stopped a moment ago.
        connection = http.client.HTTPConnection("127.0.0.1", self._quiet_port, timeout=2)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().status == 204
        return False

    def processes(self) -> list[int]:
        """The master and its worker."""
        assert self._process is not None
        master = self._process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return [master, *map(int, children.split())]

    def __enter__(self) -> Self:
        with (self.folder / "stderr.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["nginx", "-c", self._file, "-p", self.folder],
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._listens, "nginx listens")
        return self

    def reload(self) -> None:
        """Read the configuration again, and forget which servers of ``upstream`` did not respond."""
        master, *workers = self.processes()
        os.kill(master, signal.SIGHUP)

        def is_renewed() -> bool:
            now = self.processes()[1:]
            return bool(now) and not set(now) & set(workers)

        wait_until(is_renewed, "nginx has a new worker")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _listens(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise OrthancError(f"nginx ended: {(self.folder / 'stderr.log').read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
