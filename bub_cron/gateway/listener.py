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
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import takewhile
from typing import Any

from loguru import logger

from bub_cron.errors import RequestError, StoreError
from bub_cron.gateway.address import BoundSocket
from bub_cron.gateway.inbox import FullError, Inbox
from bub_cron.gateway.runner import Runner
from bub_cron.wire import (
    BUSY,
    COMMAND,
    IN_INBOX,
    LAST_WORDS,
    MAX_LINE,
    PONG,
    PROMPT,
    REJECTED,
    UNKNOWN_ID,
    Request,
    StatusQuery,
    encode,
    parse_request,
)

_MOST_AT_ONCE = 256  # lines that are judged and stored together: some milliseconds of the event loop's time
_MOST_BATCHES = 4  # of one connection that are being answered; then it is read on
_OPEN = IN_INBOX - LAST_WORDS


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
                await _write(writer, [{"status": REJECTED, "error": f"user {uid} may not talk to this gateway"}])
                return
            await self._take_requests(reader, writer, answers)
            while answers:
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
        room = asyncio.Semaphore(_MOST_BATCHES)
        async for lines in _batches(reader):
            if lines is None:
                # What follows an overlong line can't be told from its rest.
                await _write(writer, [{"status": REJECTED, "error": f"the line is over {MAX_LINE // 1024} KiB"}])
                return
            # The next ones are judged while these are stored.
            await room.acquire()
            self._go_on(self._answer_first(lines, writer, answers, room), writer, answers)

    @staticmethod
    def _go_on(step: Coroutine[Any, Any, None], writer: asyncio.StreamWriter, answers: set[asyncio.Task[None]]) -> None:
        async def guarded() -> None:
            try:
                await step
            except ConnectionError as error:
                logger.debug("cron.caller_left {}", error)
            except Exception:
                # A fault of ours: the caller learns it by the end of the connection, rather than wait for ever.
                logger.exception("cron.answer")
                writer.close()

        task = asyncio.create_task(guarded())
        answers.add(task)
        task.add_done_callback(answers.discard)

    async def _answer_first(
        self,
        lines: list[bytes],
        writer: asyncio.StreamWriter,
        answers: set[asyncio.Task[None]],
        room: asyncio.Semaphore,
    ) -> None:
        """Write the first answer to each line; whose last word is waited for gets a step of its own."""
        try:
            for awaited in await self._answer(lines, writer):
                self._go_on(self._answer_last(awaited, writer), writer, answers)
        finally:
            room.release()

    async def _answer(self, lines: list[bytes], writer: asyncio.StreamWriter) -> list[str]:
        """Write the first answer to each line; return the ids whose last word is still to come and waited for."""
        answers: list[dict[str, Any]] = []
        requests: list[Request] = []
        asked: list[str] = []
        for line in lines:
            try:
                request = parse_request(line, now=self._now(), new_id=_new_id)
                if isinstance(request, Request):
                    if (fault := self._fault_of_message(request)) is not None:
                        answers.append(_refusal(REJECTED, request.id, RequestError(fault)))
                    else:
                        requests.append(request)
                elif isinstance(request, StatusQuery):
                    asked.append(request.id)
                else:
                    answers.append(self._pong())
            except RequestError as error:
                answers.append(_refusal(REJECTED, error.id, error))
        awaited: list[str] = []
        if requests:
            # Not to be ended by the caller's leaving: what the inbox has must also be taken by the runner.
            with self._runner.taking():
                taken = await asyncio.shield(asyncio.ensure_future(self._accept(requests)))
            answers += taken
            wanted = {request.id for request in requests if request.wait}
            awaited = [answer["id"] for answer in taken if answer["status"] in _OPEN and answer["id"] in wanted]
        if asked:
            answers += await self._standing(asked)
        await _write(writer, answers)
        return awaited

    async def _answer_last(self, firing_id: str, writer: asyncio.StreamWriter) -> None:
        await _write(writer, [(await self._runner.last_word(firing_id)).answer()])

    async def _accept(self, requests: list[Request]) -> list[dict[str, Any]]:
        """Take requests into the inbox, and what is open of them to the runner; return their first answers."""
        try:
            accepted = await self._inbox.accept(requests, self._now())
        except StoreError as error:
            return [_refusal(BUSY, request.id, error) for request in requests]
        new = [found.firing for found in accepted if found.new and found.firing is not None]
        if len(new) == 1:
            logger.info("cron.accepted id={} to={}", new[0].id, new[0].to)
        elif new:
            # A line for each would cost more than all the rest of it.
            logger.info("cron.accepted {} firings, from id={} to id={}", len(new), new[0].id, new[-1].id)
        answers = []
        for request, found in zip(requests, accepted, strict=True):
            if found.firing is None:
                answers.append(_refused(request, found.error))
                continue
            if not found.firing.has_last_word:
                self._runner.take(found.firing)
            answers.append(found.firing.answer())
        return answers

    def _fault_of_message(self, request: Request) -> str | None:
        """Return what is wrong with what this gateway's own command prefix makes a command, or doesn't make one."""
        prefix = self._command_prefix
        is_command = request.body.strip().startswith(prefix)
        if request.kind == COMMAND and not self._allow_commands:
            return "commands are not allowed in this gateway (its owner may set BUB_CRON_ALLOW_COMMANDS=true)"
        if request.kind == COMMAND and not is_command:
            return f"a command begins with {prefix!r} in this gateway"
        if request.kind == PROMPT and is_command:
            return f"a prompt that begins with {prefix!r} would run as a command: use `command`"
        return None

    async def _standing(self, ids: list[str]) -> list[dict[str, Any]]:
        try:
            found = await self._inbox.get_all(ids)
        except StoreError as error:
            return [{"id": firing_id, "status": BUSY, "error": str(error)} for firing_id in ids]
        unknown = {"status": UNKNOWN_ID}
        return [found[one].answer() if one in found else {"id": one, **unknown} for one in ids]

    def _pong(self) -> dict[str, Any]:
        return {"status": PONG, **self._about(), "waiting": self._runner.waiting, "running": self._runner.running}


async def _batches(reader: asyncio.StreamReader) -> AsyncIterator[list[bytes] | None]:
    """Yield what lines have come, those that aren't blank, the last one also without its newline.

    None stands for one over the limit, and is the last. What comes in one go is answered in one go, up to a number that
    keeps nobody else waiting.
    """
    rest = b""
    while True:
        received = await reader.read(MAX_LINE)
        *lines, rest = (rest + received).split(b"\n")
        if not received:
            lines, rest = [rest], b""
        good = [line.rstrip(b"\r") for line in takewhile(_fits, lines) if line.strip()]
        for start in range(0, len(good), _MOST_AT_ONCE):
            yield good[start : start + _MOST_AT_ONCE]
        if not all(map(_fits, (*lines, rest))):
            yield None
            return
        if not received:
            return


def _fits(line: bytes) -> bool:
    return len(line) <= MAX_LINE


def _new_id() -> str:
    return f"poke-{uuid.uuid4().hex[:16]}"


def _refused(request: Request, error: Exception | None) -> dict[str, Any]:
    status = BUSY if isinstance(error, FullError) else REJECTED
    return _refusal(status, request.id, error or RequestError("it was not taken"))


def _refusal(status: str, firing_id: str | None, error: Exception) -> dict[str, Any]:
    logger.warning("cron.{} id={} error={}", status, firing_id, error)
    return {**({"id": firing_id} if firing_id else {}), "status": status, "error": str(error)}


async def _write(writer: asyncio.StreamWriter, answers: list[dict[str, Any]]) -> None:
    writer.write(b"".join(map(encode, answers)))
    await writer.drain()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connected: socket.socket = writer.get_extra_info("socket")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
