"""A TCP proxy that knows how many connections its clients have open at once: each one counts, however short."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from types import TracebackType

from tests.support.orthanc_server import OrthancServer

_BLOCK = 1 << 18


class CountingProxy:
    """In front of ``server``, on a free port of this machine.

    A client that closes one connection and then opens another has one at once, not two: on the loopback the end of
    the first is known before the second is, and is looked at then.
    """

    def __init__(self, server: OrthancServer) -> None:
        self.accepted = 0
        self.most = 0
        """Connections that were open at once."""
        self._port = server.http_port
        self._clients: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        self._listener.setblocking(False)
        accepting = loop.create_task(self._accept())
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(accepting, *tasks, return_exceptions=True))
            loop.close()
            self._listener.close()

    async def _accept(self) -> None:
        relays = set()
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self._count(client)
            relay = self._loop.create_task(self._relay(client))
            relays.add(relay)
            relay.add_done_callback(relays.discard)

    def _count(self, client: socket.socket) -> None:
        self._clients.add(client)
        ended = select.poll()
        for one in self._clients:
            ended.register(one, select.POLLRDHUP)
        self.accepted += 1
        self.most = max(self.most, len(self._clients) - len(ended.poll(0)))

    async def _relay(self, client: socket.socket) -> None:
        with client, socket.socket() as upstream:
            client.setblocking(False)
            upstream.setblocking(False)
            try:
                await self._loop.sock_connect(upstream, ("127.0.0.1", self._port))
                ways = [
                    self._loop.create_task(self._copy(source, target))
                    for source, target in ((client, upstream), (upstream, client))
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            except OSError:
                pass  # the server is gone: so is the connection
            finally:
                self._clients.discard(client)

    async def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(source, _BLOCK):
                await self._loop.sock_sendall(target, data)
