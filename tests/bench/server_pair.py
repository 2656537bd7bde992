"""The sender and the receiver between which transfers are measured."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from tests.bench.archive import lay
from tests.bench.transfer_methods import Resources
from tests.support import orthanc_tls
from tests.support.certificates import make_certificate
from tests.support.nginx import Nginx
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import ENTRY, OrthancServer, pair
from tests.support.wan_link import HOSTS, WanLink

STAND_IN = Path(__file__).with_name("zlib_level_6_script.py")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


NGINX, ITSELF = "nginx", "orthanc"
"""Who speaks TLS: nginx in front of each Orthanc, or Orthanc itself (``tests/support/orthanc_tls.py``)."""


class Pair:
    """Sender ``a`` and receiver ``b``.

    Requests of the benchmark are made ``near`` a server: none crosses the link, which is there for the transfer.
    """

    def __init__(
        self,
        folder: Path,
        at: WanLink | None,
        script: Path = ENTRY,
        *,
        https: str | None = None,
        archive: Path | None = None,
    ) -> None:
        self._lab = at
        self._archive = archive
        self._certificate = make_certificate(folder) if https is not None else None
        self._itself = https == ITSELF
        self._proxies: dict[str, Nginx] = {}
        self._started = ExitStack()
        self.a, self.b = (self._server(name, folder, script) for name in ("a", "b"))
        pair(self.a, self.b)
        if https == NGINX:
            self._put_behind_nginx(folder)
        self.a.configuration["DicomModalities"] = {"b": ["B", self.b.host, self.b.dicom_port]}
        self.a.configuration["DicomWeb"] = {"Servers": {"b": [f"{self.b.url}dicom-web/"]}}

    def _server(self, name: str, folder: Path, script: Path) -> OrthancServer:
        return OrthancServer(
            name,
            folder / name,
            configuration={
                "DicomServerEnabled": True,
                "DicomAet": name.upper(),
                "DicomAlwaysAllowStore": True,
                "DicomCheckCalledAet": False,
                "RemoteAccessAllowed": self._lab is not None,
                "StableAge": 3600,
                # A job of the run before would go on beside the next one.
                "SaveJobs": False,
                # All of a run's are looked at when they have ended.
                "JobsHistorySize": 1000,
            },
            script=script,
            plugins=[DICOMWEB] if DICOMWEB.exists() else [],
            host="127.0.0.1" if self._lab is None else HOSTS[name],
            launcher=() if self._lab is None else self._lab.inside(name),
            certificate=self._certificate if self._itself else None,
            # Of DCMTK. Without it each C-STORE waits twice for a delayed acknowledgement, 90 ms on loopback.
            environment={"TCP_NODELAY": "1", **(orthanc_tls.environment(folder) if self._itself else {})},
        )

    def _put_behind_nginx(self, folder: Path) -> None:
        for here, there in ((self.a, self.b), (self.b, self.a)):
            upstream = f"upstream orthanc {{ server 127.0.0.1:{there.http_port}; keepalive 16; }}"
            proxy = Nginx(
                folder / f"nginx-{there.name}", "orthanc", certificate=self._certificate, http=upstream
            )
            self._proxies[there.name] = self._started.enter_context(proxy)
            here.add_peer(there.name, there, Url=proxy.url)
            here.configuration["HttpsCACertificates"] = str(self._certificate)

    def near(self, server: OrthancServer) -> AbstractContextManager[None]:
        """This thread is where a server is."""
        return nullcontext() if self._lab is None else self._lab.entered(server.name)

    def fill(self, files: Sequence[Path]) -> Resources:
        """Give the sender what is to be sent: its studies."""
        self.renew()
        with self.near(self.a):
            stored = self.a.upload_all(file.read_bytes() for file in files)
        return [resource("Study", study) for study in dict.fromkeys(one["ParentStudy"] for one in stored)]

    def renew(self) -> None:
        """Both started anew, the receiver empty, the disk at rest: nothing is left of the run before."""
        for server in (self.a, self.b):
            # At once, for a good end takes seconds. The sender was only read.
            server.kill()
        empty(self.b)
        if self._archive is not None:
            lay(self._archive, self.b.storage)
        for server in (self.a, self.b):
            server.launch()
        for server in (self.a, self.b):
            with self.near(server):
                server.wait_until_ready()

    def lose(self, share: float) -> None:
        """Delete a share of the receiver's instances."""
        with self.near(self.b):
            for identifier in self.b.instances()[:: round(1 / share)]:
                self.b.delete(f"instances/{identifier}")
        os.sync()

    def count(self, server: OrthancServer) -> int:
        """Instances that a server has."""
        with self.near(server):
            return int(server.get("statistics")["CountInstances"])

    def processes(self, server: OrthancServer) -> list[int]:
        """A server, and what is in front of it."""
        proxy = self._proxies.get(server.name)
        return [server.pid, *(proxy.processes() if proxy is not None else ())]

    def remove(self) -> None:
        """End both."""
        for server in (self.a, self.b):
            server.remove()
        self._started.close()


def empty(server: OrthancServer) -> None:
    """Let a server that does not run have nothing stored, and the disk come to rest.

    The files that it had lose their content, and are deleted only with all of the run: ext4 gives no inode anew
    within a minute after its file was deleted, and the search for others takes a tenth of an import's time.
    """
    if server.storage.exists():
        old = server.storage.with_name(f"{server.storage.name}-{time.monotonic_ns()}")
        server.storage.rename(old)
        for file in old.rglob("*"):
            if file.is_file():
                os.truncate(file, 0)
    os.sync()
