"""The socket: take requests in, answer each, and pass what was accepted to the runner.

Kept true here:
- `accepted` is written only once the inbox has the firing on disk; every request gets an answer or a closed connection.
- Only the gateway's own user, root and the allowed uids are listened to.
- What one caller sends, how slowly it reads, or that it leaves, touches no other caller and no firing.
- A half-close ends the requests, not the answers: the connection closes after the last answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from loguru import logger

from bub_cron.errors import RequestError, StoreError
from bub_cron.gateway.address import BoundSocket
from bub_cron.gateway.inbox import DifferentContentError, Firing, FullError, Inbox
from bub_cron.gateway.runner import Runner
from bub_cron.wire import (
    BUSY,
    COMMAND,
    MAX_LINE,
    PONG,
    PROMPT,
    REJECTED,
    UNKNOWN_ID,
    Ping,
    Request,
    StatusQuery,
    encode,
    parse_request,
)

_MOST_UNANSWERED = 4096  # requests of one connection that wait for their first answer


class Listener:
    """Serves the socket at `path` until `close()`."""

    def __init__(
        self,
        inbox: Inbox,
        runner: Runner,
        *,
        uids: frozenset[int],
        allow_commands: bool,
        command_prefix: str,
        about: Callable[[], dict[str, Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`about` gives what a ping is answered with, besides its status and the counts."""
        self._inbox = inbox
        self._runner = runner
        self._uids = uids | {0, os.getuid()}
        self._allow_commands = allow_commands
        self._command_prefix = command_prefix
        self._about = about
        self._now = now
        self._server: asyncio.Server | None = None
        self._bound: BoundSocket | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, bound: BoundSocket) -> None:
        """Listen on a bound socket, which is this listener's from now on."""
        server = await asyncio.start_unix_server(self._connected, sock=bound.socket, limit=MAX_LINE)
        if self._server is not None:
            self._server.close()
        self._server, self._bound = server, bound

    async def look_after_place(self) -> None:
        """If somebody removed the socket, make a new one in its place; `AddressError` if something else stands there."""
        if self._bound is not None and not self._bound.is_there():
            await self.start(self._bound.again())
            logger.warning("cron.listening again: the socket had been removed")

    async def close(self) -> None:
        """Take no more connections, close those there are, and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._bound is not None:
            self._bound.remove()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=2)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: set[asyncio.Task[None]] = set()
        try:
            uid = _peer_uid(writer)
            if uid not in self._uids:
                await _write(writer, {"status": REJECTED, "error": f"user {uid} may not talk to this gateway"})
                return
            await self._take_requests(reader, writer, answers)
            if answers:
                await asyncio.wait(answers)
        except ConnectionError as error:
            logger.debug("cron.caller_left {}", error)
        except Exception:
            logger.exception("cron.connection")
        finally:
            for answer in answers:
                answer.cancel()
            writer.close()

    async def _take_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: set[asyncio.Task[None]]
    ) -> None:
        room = asyncio.Semaphore(_MOST_UNANSWERED)
        async for line in _lines(reader):
            if line is None:
                # What follows an overlong line can't be told from its rest.
                await _write(writer, {"status": REJECTED, "error": f"the line is over {MAX_LINE // 1024} KiB"})
                return
            await room.acquire()
            answer = asyncio.create_task(self._answer(line, writer, room))
            answers.add(answer)
            answer.add_done_callback(answers.discard)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter, room: asyncio.Semaphore) -> None:
        try:
            try:
                request = await self._first_answer(line, writer)
            finally:
                room.release()
            if request is not None and request.wait:
                await _write(writer, (await self._runner.last_word(request.id)).answer())
        except ConnectionError as error:
            logger.debug("cron.caller_left {}", error)
        except Exception:
            # A fault of ours: the caller learns it by the end of the connection, rather than wait for ever.
            logger.exception("cron.answer")
            writer.close()

    async def _first_answer(self, line: bytes, writer: asyncio.StreamWriter) -> Request | None:
        """Write the first answer; return the request if its last word is still to come."""
        try:
            request = parse_request(line, now=self._now(), new_id=lambda: f"poke-{uuid.uuid4().hex[:16]}")
        except RequestError as error:
            await _write(writer, _refusal(REJECTED, error.id, error))
            return None
        if isinstance(request, Ping):
            await _write(writer, self._pong())
        elif isinstance(request, StatusQuery):
            await _write(writer, await self._standing(request.id))
        else:
            answer, is_open = await self._take(request)
            await _write(writer, answer)
            return request if is_open else None
        return None

    async def _take(self, request: Request) -> tuple[dict[str, Any], bool]:
        """Take a request into the inbox; return (the first answer, whether a last word is still to come)."""
        try:
            self._judge_message(request)
            # Not to be ended by the caller's leaving: what the inbox has must also be taken by the runner.
            firing = await asyncio.shield(asyncio.ensure_future(self._accept(request)))
        except (RequestError, DifferentContentError) as error:
            return _refusal(REJECTED, request.id, error), False
        except (FullError, StoreError) as error:
            return _refusal(BUSY, request.id, error), False
        return firing.answer(), not firing.has_last_word

    async def _accept(self, request: Request) -> Firing:
        firing, new = await self._inbox.accept(request, self._now())
        if new:
            logger.info("cron.accepted id={} to={}", firing.id, firing.to)
        if not firing.has_last_word:
            self._runner.take(firing)
        return firing

    def _judge_message(self, request: Request) -> None:
        """Refuse what this gateway's own command prefix makes a command, or a command that isn't one."""
        is_command = request.body.strip().startswith(self._command_prefix)
        prefix = self._command_prefix
        if request.kind == COMMAND and not self._allow_commands:
            raise RequestError(
                "commands are not allowed in this gateway (its owner may set BUB_CRON_ALLOW_COMMANDS=true)"
            )
        if request.kind == COMMAND and not is_command:
            raise RequestError(f"a command begins with {prefix!r} in this gateway")
        if request.kind == PROMPT and is_command:
            raise RequestError(
                f"a prompt that begins with {prefix!r} would run as a command: use `command`", request.id
            )

    async def _standing(self, firing_id: str) -> dict[str, Any]:
        try:
            firing = await self._inbox.get(firing_id)
        except StoreError as error:
            return {"id": firing_id, "status": BUSY, "error": str(error)}
        return {"id": firing_id, "status": UNKNOWN_ID} if firing is None else firing.answer()

    def _pong(self) -> dict[str, Any]:
        return {"status": PONG, **self._about(), "waiting": self._runner.waiting, "running": self._runner.running}


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """Yield the lines that aren't blank, the last one also without its newline; None for one over the limit, then end."""
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial.strip():
                yield error.partial
            return
        except asyncio.LimitOverrunError:
            yield None
            return
        if line.strip():
            yield line.rstrip(b"\r\n")


def _refusal(status: str, firing_id: str | None, error: Exception) -> dict[str, Any]:
    logger.warning("cron.{} id={} error={}", status, firing_id, error)
    return {**({"id": firing_id} if firing_id else {}), "status": status, "error": str(error)}


async def _write(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(encode(answer))
    await writer.drain()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connected: socket.socket = writer.get_extra_info("socket")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
