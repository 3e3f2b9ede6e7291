"""The socket: admit callers, and serve each in a task of its own (`connection.py`).

Invariants:
- Only the gateway's own user, root and the allowed uids are served, and each has a number of connections of its own: what
  one user takes up no other lacks. A user who has all of them doesn't lock himself out: the caller that has stood longest
  in the middle of a line makes room.
- What one caller does, or that it leaves, touches no other caller and no firing.
- The log grows by so many lines a minute, whatever callers do.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct

from loguru import logger

from bub_cron.gateway.address import BoundSocket
from bub_cron.gateway.connection import Connection, Service
from bub_cron.states import REJECTED
from bub_cron.wire import BUSY, encode

_MOST_CONNECTIONS = 256  # of one user; fewer where the process may not have many descriptors
_NO_DESCRIPTOR_SECONDS = 1.0
_CLOSE_SECONDS = 1.0  # that a caller gets to read its answers when the gateway stops


class Listener:
    """Serves the socket at `path` until `close()`."""

    def __init__(self, service: Service, uids: frozenset[int]) -> None:
        """`uids` are the users who may talk besides the gateway's own and root."""
        self._service = service
        self._warnings = service.warnings
        self._connections: dict[int, set[Connection]] = {uid: set() for uid in uids | {0, os.getuid()}}
        self._most_connections = _connections_a_user(len(self._connections))
        self._bound: BoundSocket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def start(self, bound: BoundSocket) -> None:
        """Listen on a bound socket, which is this listener's from now on."""
        await self._stop_accepting()
        self._bound = bound
        self._accepting = asyncio.create_task(self._accept_callers(bound.socket), name="bub-cron accept loop")

    async def look_after_place(self) -> None:
        """If somebody removed the socket, make a new one in its place; `AddressError` if something else stands there."""
        if self._bound is not None and not self._bound.is_there():
            await self.start(self._bound.again())
            logger.warning("cron.listening again: the socket had been removed")

    async def close(self) -> None:
        """Take no more connections, close those there are, and remove the socket."""
        await self._stop_accepting()
        if self._bound is not None:
            self._bound.remove()
        for _ in range(2):  # the second time those that don't read what they were answered
            serving = {connection.serving for siblings in self._connections.values() for connection in siblings}
            for task in serving:
                task.cancel()
            if serving:
                await asyncio.wait(serving, timeout=_CLOSE_SECONDS)

    async def _stop_accepting(self) -> None:
        if self._accepting is not None and self._bound is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._bound.socket.close()
            self._accepting = None

    async def _accept_callers(self, listening: socket.socket) -> None:
        # Not asyncio's own server: where descriptors run out, that writes hundreds of lines into the log each second.
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # it has left already
            except OSError as error:
                self._warnings.log("WARNING", "cron.full: no caller can be let in: {}; they wait", error.strerror)
                await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)
                continue
            try:
                self._admit(connected)
            except OSError as error:
                self._warnings.log("WARNING", "cron.accept: {}", error.strerror)
                connected.close()
            await asyncio.sleep(0)  # a crowd of callers holds up nothing else

    def _admit(self, connected: socket.socket) -> None:
        uid = _peer_uid(connected)
        siblings = self._connections.get(uid)
        if siblings is None:
            self._refuse(connected, REJECTED, f"user {uid} may not talk to this gateway")
        elif len(siblings) >= self._most_connections and not _make_room(siblings):
            why = f"user {uid} has {self._most_connections} connections open already; try again later"
            self._refuse(connected, BUSY, why)
        else:
            connection = Connection(self._service, connected, siblings)
            siblings.add(connection)

            def end(_: asyncio.Task[None]) -> None:
                siblings.discard(connection)
                connected.close()  # nobody else does so for a task that was cancelled before its first step

            connection.serving.add_done_callback(end)

    def _refuse(self, connected: socket.socket, status: str, why: str) -> None:
        self._warnings.log("WARNING", "cron.refused {}", why)
        try:
            connected.send(encode({"status": status, "error": why}))
        except OSError as error:
            logger.debug("cron.caller_left {}", error)
        connected.close()


def _make_room(connections: set[Connection]) -> bool:
    """Drop the caller that has stood longest in the middle of a line; return False if none does."""
    half_open = {since: connection for connection in connections if (since := connection.half_open_since) is not None}
    if not half_open:
        return False
    longest = half_open[min(half_open)]
    connections.discard(longest)
    longest.make_room()
    return True


def _connections_a_user(users: int) -> int:
    """Return how many connections each user may have, so that all of them leave most descriptors to the chats."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(4, min(_MOST_CONNECTIONS, most // 4 // users))


def _peer_uid(connected: socket.socket) -> int:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
