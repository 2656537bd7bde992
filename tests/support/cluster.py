"""A cluster of real Orthancs: one PostgreSQL, one storage folder, nginx in front that asks them in turn."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.orthanc_server import ENTRY, OrthancServer
from tests.support.postgresql import PostgreSQL, index_plugin
from tests.support.recording_proxy import RecordingProxy


class OrthancCluster:
    """``size`` nodes below ``folder``. ``shared``: their staging is on shared storage, else each has its own.

    ``orthanc`` are further options of each of them, ``transfers`` those of the plugin.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int = 3,
        shared: bool = True,
        transfers: Mapping[str, Any] | None = None,
        orthanc: Mapping[str, Any] | None = None,
        script: Path = ENTRY,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.database = PostgreSQL()
        self._stack = contextlib.ExitStack()
        self.nodes: list[OrthancServer] = []
        self._shared = shared
        self._size = size
        self._transfers = dict(transfers or {})
        self._orthanc = dict(orthanc or {})
        self._script, self._environment = script, environment
        self.proxy: RecordingProxy

    def _node(self, number: int) -> OrthancServer:
        name = f"node{number}"
        cluster: dict[str, Any] = {"NodeName": name, "SharedStaging": self._shared}
        transfers = {"Cluster": cluster, **self._transfers}
        if not self._shared:
            transfers["StagingDirectory"] = str(self.folder / name / "staging")
        server = OrthancServer(
            name,
            self.folder / name,
            configuration={
                **self._orthanc,
                "StorageDirectory": str(self.folder / "storage"),
                "PostgreSQL": self.database.section,
                "DatabaseServerIdentifier": name,
                "Transfers": transfers,
            },
            plugins=[index_plugin()],
            script=self._script,
            environment=self._environment,
        )
        cluster["Address"] = server.url.rstrip("/")
        return server

    def __enter__(self) -> Self:
        self._stack.enter_context(self.database)
        for number in range(1, self._size + 1):
            server = self._node(number)
            self.nodes.append(server)
            self._stack.callback(server.remove)
        # One makes the tables, the others find them.
        for server in self.nodes:
            server.start()
        self.proxy = self._stack.enter_context(self._proxy(2))
        return self

    def proxy_of_version_1(self) -> RecordingProxy:
        """Another way to it, on which it looks like the C++ plugin."""
        return self._proxy(1)

    def _proxy(self, version: int) -> RecordingProxy:
        servers = " ".join(
            f"server 127.0.0.1:{node.http_port} max_fails=1 fail_timeout=10s;" for node in self.nodes
        )
        # A node that is dead, or does not respond, is passed over.
        upstream = f"upstream nodes {{ {servers} }}"
        location = "proxy_next_upstream error timeout; proxy_connect_timeout 2s; proxy_read_timeout 10s;"
        return RecordingProxy(
            self.folder / f"nginx-{version}", "nodes", version=version, http=upstream, location=location
        )

    def __exit__(self, *_: object) -> None:
        for server in self.nodes:
            if server.running:
                self.go_on(server)
        self._stack.close()

    @property
    def url(self) -> str:
        """Where the cluster is reached."""
        return self.proxy.url

    def freeze(self, node: OrthancServer) -> None:
        """Stop a node as it is (SIGSTOP)."""
        os.killpg(node.pid, signal.SIGSTOP)

    def go_on(self, node: OrthancServer) -> None:
        """Let a node go on that was stopped (SIGCONT)."""
        os.killpg(node.pid, signal.SIGCONT)

    def any_node(self) -> OrthancServer:
        """One that runs."""
        return next(node for node in self.nodes if node.running)

    def clear(self) -> None:
        """Delete all that is stored."""
        self.any_node().clear()
