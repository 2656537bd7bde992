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
from tests.support.switched_network import SwitchedNetwork


class OrthancCluster:
    """``size`` nodes below ``folder``. ``shared``: their staging is on shared storage, else each has its own.

    ``orthanc`` are further options of each of them, ``transfers`` those of the plugin.
    ``network``: each node is at a host of it, and all else is at its hub, where this thread must be.
    ``peers`` are known to each node, by their names; ``options`` are further ones of ``Cluster``.
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
        network: SwitchedNetwork | None = None,
        peers: Mapping[str, OrthancServer] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.network = network
        self.database = (
            PostgreSQL()
            if network is None
            else PostgreSQL(address=network.hub_address, clients=network.subnet)
        )
        self._stack = contextlib.ExitStack()
        self.nodes: list[OrthancServer] = []
        self._shared = shared
        self._size = size
        self._transfers = dict(transfers or {})
        self._orthanc = dict(orthanc or {})
        self._script, self._environment = script, environment
        self._peers, self._options = dict(peers or {}), dict(options or {})
        self.proxy: RecordingProxy

    def _node(self, number: int) -> OrthancServer:
        name = f"node{number}"
        cluster: dict[str, Any] = {"NodeName": name, "SharedStaging": self._shared, **self._options}
        transfers = {"Cluster": cluster, **self._transfers}
        if not self._shared:
            transfers["StagingDirectory"] = str(self.folder / name / "staging")
        network = self.network
        server = OrthancServer(
            name,
            self.folder / name,
            host="127.0.0.1" if network is None else network.address(number),
            launcher=() if network is None else network.inside(number),
            configuration={
                **self._orthanc,
                "RemoteAccessAllowed": network is not None,
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
        for known, peer in self._peers.items():
            server.add_peer(known, peer)
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

    def proxy_of_version_1(self, timeout: int = 10) -> RecordingProxy:
        """Another way to it, on which it looks like the C++ plugin; a response takes ``timeout`` seconds at most."""
        return self._proxy(1, timeout)

    def _proxy(self, version: int, timeout: int = 10) -> RecordingProxy:
        servers = " ".join(
            f"server {node.host}:{node.http_port} max_fails=1 fail_timeout=10s;" for node in self.nodes
        )
        # A node that is dead, or does not respond, is passed over.
        upstream = f"upstream nodes {{ {servers} }}"
        location = (
            f"proxy_next_upstream error timeout; proxy_connect_timeout 2s; proxy_read_timeout {timeout}s;"
        )
        return RecordingProxy(
            self.folder / f"nginx-{version}-{timeout}",
            "nodes",
            version=version,
            http=upstream,
            location=location,
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

    def cut_off(self, node: OrthancServer) -> None:
        """Lose all that a node sends, and all that is sent to it."""
        assert self.network is not None
        self.network.cut(self.nodes.index(node) + 1)

    def heal(self, node: OrthancServer) -> None:
        """Put it back into the network."""
        assert self.network is not None
        self.network.heal(self.nodes.index(node) + 1)

    def any_node(self) -> OrthancServer:
        """One that runs."""
        return next(node for node in self.nodes if node.running)

    def clear(self) -> None:
        """Delete all that is stored."""
        self.any_node().clear()
