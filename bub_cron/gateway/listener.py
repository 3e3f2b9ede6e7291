"""The socket: take requests in, answer each, and pass what was accepted to the runner.

Kept true here:
- `accepted` is written only once the inbox has the firing on disk; every request gets an answer or a closed connection.
- Only the gateway's own user, root and the allowed uids are listened to, and each has a number of connections, and room
  for requests, of its own: what one user takes up no other lacks.
- What one caller sends, how slowly it sends or reads, or that it leaves, touches no other caller and no firing. A line has
  an end in size and in time; a caller that asks nothing, reads nothing or has gone is let go.
- A half-close ends the requests, not the answers: the connection closes after the last answer. Who waits for a last word
  may wait as long as it takes.
- The log grows by so many lines a minute, whatever callers do.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
import struct
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from loguru import logger

from bub_cron.errors import RequestError, StoreError
from bub_cron.gateway.address import BoundSocket
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.faults import log_fault
from bub_cron.gateway.inbox import DifferentContentError, Firing, FullError, Inbox
from bub_cron.gateway.runner import Runner
from bub_cron.wire import (
    BUSY,
    MAX_LINE,
    PONG,
    REJECTED,
    UNKNOWN_ID,
    Ping,
    Request,
    StatusQuery,
    encode,
    parse_request,
)

_MOST_UNANSWERED = 4096  # requests of one connection that wait for their first answer; long ones count for more
_MOST_IN_HAND = 20_000  # the same of all connections of one user, and those that wait for a last word
_MOST_CONNECTIONS = 256  # of one user; fewer where the process may not have many descriptors
_LOOKUPS = 16  # answers of one connection at once that may hold a whole reply
_BYTES_PER_PLACE = 1024
_LINE_SECONDS = 30.0  # from a line's first byte to its end
_IDLE_SECONDS = 600.0  # without a request, and with no answer still to come
_DEAF_SECONDS = 120.0  # that a caller may leave its answers unread
_GONE_SECONDS = 5.0  # between looks at whether a caller that sends nothing more has gone altogether
_NO_DESCRIPTOR_SECONDS = 1.0
_CLOSE_SECONDS = 1.0  # that a caller gets to read its answers when the gateway stops
_CHUNK = 64 * 1024
_WARNINGS_A_MINUTE = 30

_TOO_LONG = f"the line is over {MAX_LINE // 1024} KiB"
_TOO_SLOW = f"the line did not end within {_LINE_SECONDS:g} s"


class Listener:
    """Serves the socket at `path` until `close()`."""

    def __init__(
        self,
        inbox: Inbox,
        runner: Runner,
        *,
        uids: frozenset[int],
        rule: CommandRule,
        about: Callable[[], dict[str, Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`about` gives what a ping is answered with, besides its status and the counts."""
        self._inbox = inbox
        self._runner = runner
        self._uids = uids | {0, os.getuid()}
        self._rule = rule
        self._about = about
        self._now = now
        self._bound: BoundSocket | None = None
        self._door: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], int] = {}  # and whose they are
        self._met: set[socket.socket] = set()  # connections that nobody serves yet
        self._rooms = {uid: _Room(_MOST_IN_HAND) for uid in self._uids}
        self._most_connections = _connections_a_user(len(self._uids))
        self._warnings = _Warnings()

    async def start(self, bound: BoundSocket) -> None:
        """Listen on a bound socket, which is this listener's from now on."""
        await self._shut_door()
        self._bound = bound
        self._door = asyncio.create_task(self._let_in(bound.socket), name="bub-cron door")

    async def look_after_place(self) -> None:
        """If somebody removed the socket, make a new one in its place; `AddressError` if something else stands there."""
        if self._bound is not None and not self._bound.is_there():
            await self.start(self._bound.again())
            logger.warning("cron.listening again: the socket had been removed")

    async def close(self) -> None:
        """Take no more connections, close those there are, and remove the socket."""
        await self._shut_door()
        if self._bound is not None:
            self._bound.remove()
        for _ in range(2):  # the second time those that don't read what they were answered
            for connection in self._connections:
                connection.cancel()
            if self._connections:
                await asyncio.wait(set(self._connections), timeout=_CLOSE_SECONDS)
        for connected in self._met:
            connected.close()

    async def _shut_door(self) -> None:
        if self._door is not None and self._bound is not None:
            self._door.cancel()
            await asyncio.wait({self._door})
            self._bound.socket.close()
            self._door = None

    # --- Letting callers in

    async def _let_in(self, listening: socket.socket) -> None:
        # Not asyncio's own server: where descriptors run out, that writes hundreds of lines into the log each second.
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # it has left already
            except OSError as error:
                self._warnings.say("cron.full: no caller can be let in: {}; they wait", error.strerror)
                await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)
                continue
            try:
                self._meet(connected)
            except OSError as error:
                self._warnings.say("cron.door: {}", error.strerror)
                connected.close()
            await asyncio.sleep(0)  # a crowd at the door holds up nothing else

    def _meet(self, connected: socket.socket) -> None:
        uid = _peer_uid(connected)
        if uid not in self._uids:
            self._turn_away(connected, REJECTED, f"user {uid} may not talk to this gateway")
        elif sum(whose == uid for whose in self._connections.values()) >= self._most_connections:
            what = f"user {uid} has {self._most_connections} connections open already; try again later"
            self._turn_away(connected, BUSY, what)
        else:
            self._met.add(connected)
            connection = asyncio.create_task(self._serve(connected, self._rooms[uid]))
            self._connections[connection] = uid
            connection.add_done_callback(self._connections.pop)

    def _turn_away(self, connected: socket.socket, status: str, why: str) -> None:
        self._warnings.say("cron.turned_away {}", why)
        try:
            connected.send(encode({"status": status, "error": why}))
        except OSError as error:
            logger.debug("cron.caller_left {}", error)
        connected.close()

    # --- One connection

    async def _serve(self, connected: socket.socket, room: _Room) -> None:
        self._met.discard(connected)
        reader, raw = await asyncio.open_unix_connection(sock=connected, limit=_CHUNK)
        writer = _Writer(raw)
        answers: set[asyncio.Task[None]] = set()
        try:
            await self._take_requests(reader, writer, answers, room)
            while answers and not writer.caller_has_gone():
                await asyncio.wait(answers, timeout=_GONE_SECONDS)
        except ConnectionError as error:
            logger.debug("cron.caller_left {}", error)
        except Exception as error:
            log_fault("cron.connection", error)
        finally:
            for answer in answers:
                answer.cancel()
            await writer.end()

    async def _take_requests(
        self, reader: asyncio.StreamReader, writer: _Writer, answers: set[asyncio.Task[None]], of_user: _Room
    ) -> None:
        of_connection = _Room(_MOST_UNANSWERED)
        async for line, wrong in _lines(reader, lambda: bool(answers)):
            if wrong:
                # What follows such a line can't be told from its rest.
                await writer.write({"status": REJECTED, "error": wrong})
                return
            await writer.be_read()
            held = _Held([of_connection, of_user], 1 + len(line) // _BYTES_PER_PLACE)
            await held.take()
            answer = asyncio.create_task(self._answer(line, writer, held))
            answers.add(answer)
            answer.add_done_callback(answers.discard)

    async def _answer(self, line: bytes, writer: _Writer, held: _Held) -> None:
        try:
            firing_id = await self._first_answer(line, writer)
            del line
            if firing_id is not None:
                held.keep_only_one()
                await writer.write((await self._runner.last_word(firing_id)).answer())
        except ConnectionError as error:
            logger.debug("cron.caller_left {}", error)
        except Exception as error:
            # A fault of ours: the caller learns it by the end of the connection, rather than wait for ever.
            log_fault("cron.answer", error)
            writer.close()
        finally:
            held.give_back()

    async def _first_answer(self, line: bytes, writer: _Writer) -> str | None:
        """Write the first answer; return the firing's id if its last word is still to come."""
        try:
            request = parse_request(line, now=self._now(), new_id=lambda: f"poke-{uuid.uuid4().hex[:16]}")
        except RequestError as error:
            await writer.write(self._refusal(REJECTED, error.id, error))
            return None
        if isinstance(request, Ping):
            await writer.write(self._pong())
        elif isinstance(request, StatusQuery):
            async with writer.lookups:
                await writer.write(await self._standing(request.id))
        else:
            return await self._first_answer_of_firing(request, writer)
        return None

    async def _first_answer_of_firing(self, request: Request, writer: _Writer) -> str | None:
        answer, is_open = await self._take(request)
        if answer is not None:
            await writer.write(answer)
            return request.id if is_open and request.wait else None
        async with writer.lookups:
            await writer.write(await self._standing(request.id))
        return None

    async def _take(self, request: Request) -> tuple[dict[str, Any] | None, bool]:
        """Take a request into the inbox; return (the first answer, whether a last word is still to come).

        The answer is None for a firing that has its last word already: it is to be looked up, with its whole reply.
        """
        try:
            self._judge(request)
            # Not to be ended by the caller's leaving: what the inbox has must also be taken by the runner.
            firing = await asyncio.shield(asyncio.ensure_future(self._accept(request)))
        except (RequestError, DifferentContentError) as error:
            return self._refusal(REJECTED, request.id, error), False
        except (FullError, StoreError) as error:
            return self._refusal(BUSY, request.id, error), False
        if firing.has_last_word:
            return None, False
        return firing.answer(), True

    def _judge(self, request: Request) -> None:
        if refusal := self._rule.refusal(request):
            raise RequestError(refusal, request.id)

    async def _accept(self, request: Request) -> Firing:
        firing, new = await self._inbox.accept(request, self._now())
        if new:
            logger.info("cron.accepted id={} to={}", firing.id, firing.to)
        if not firing.has_last_word:
            self._runner.take(firing)
        return firing

    def _refusal(self, status: str, firing_id: str | None, error: Exception) -> dict[str, Any]:
        self._warnings.say("cron.{} id={} error={}", status, firing_id, error)
        return {**({"id": firing_id} if firing_id else {}), "status": status, "error": str(error)}

    async def _standing(self, firing_id: str) -> dict[str, Any]:
        try:
            firing = await self._inbox.get(firing_id)
        except StoreError as error:
            return {"id": firing_id, "status": BUSY, "error": str(error)}
        return {"id": firing_id, "status": UNKNOWN_ID} if firing is None else firing.answer()

    def _pong(self) -> dict[str, Any]:
        return {"status": PONG, **self._about(), "waiting": self._runner.waiting, "running": self._runner.running}


# --- What each has of its own


class _Room:
    """So many places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._changed = asyncio.Event()

    async def take(self, places: int) -> None:
        while self._free < places:
            self._changed.clear()
            await self._changed.wait()
        self._free -= places

    def give(self, places: int) -> None:
        self._free += places
        self._changed.set()


class _Held:
    """The places that one request takes in some rooms; never more than a room has."""

    def __init__(self, rooms: list[_Room], places: int) -> None:
        self._held = {room: min(places, room.places) for room in rooms}
        self._last = rooms[-1]

    async def take(self) -> None:
        taken: list[_Room] = []
        try:
            for room, places in self._held.items():
                await room.take(places)
                taken.append(room)
        except asyncio.CancelledError:
            for room in taken:
                room.give(self._held[room])
            raise

    def keep_only_one(self) -> None:
        """Give back all but one place in the last room: what is left to do needs no more than an id."""
        for room, places in self._held.items():
            rest = 1 if room is self._last else 0
            room.give(places - rest)
            self._held[room] = rest

    def give_back(self) -> None:
        for room, places in self._held.items():
            room.give(places)
        self._held.clear()


class _Writer:
    """Writes the answers of one connection, one after the other: what is not read yet is one answer, and a little."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()
        self.lookups = asyncio.Semaphore(_LOOKUPS)

    async def write(self, answer: dict[str, Any]) -> None:
        async with self._turn:
            self._writer.write(encode(answer))
            await self.be_read()

    async def be_read(self) -> None:
        """Wait until the caller has read most of what was written; let go of one that doesn't."""
        if not self._writer.transport.get_write_buffer_size():
            await self._writer.drain()  # raises if the caller has left
            return
        try:
            async with asyncio.timeout(_DEAF_SECONDS):
                await self._writer.drain()
        except TimeoutError as error:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the caller doesn't read its answers") from error

    def caller_has_gone(self) -> bool:
        """Tell whether the caller has closed both directions; of a half-close, asyncio tells no more than of that."""
        descriptor = self._writer.get_extra_info("socket").fileno()
        if descriptor < 0 or self._writer.is_closing():
            return True
        look = select.poll()
        look.register(descriptor, 0)
        return any(seen & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, seen in look.poll(0))

    def close(self) -> None:
        self._writer.close()

    async def end(self) -> None:
        """Close once the caller has read everything; of one that doesn't, let go."""
        self._writer.close()
        try:
            async with asyncio.timeout(_DEAF_SECONDS):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError) as error:
            logger.debug("cron.caller_left {}", error)
        finally:
            self._writer.transport.abort()


class _Warnings:
    """Warnings that callers can cause, so many a minute; what is left out is counted."""

    def __init__(self) -> None:
        self._minute = 0
        self._said: Counter[bool] = Counter()

    def say(self, text: str, *values: object) -> None:
        minute = int(asyncio.get_running_loop().time() // 60)
        if minute != self._minute:
            if self._said[False]:
                logger.warning("cron.warnings: {} more were left out", self._said[False])
            self._minute, self._said = minute, Counter()
        is_said = self._said[True] < _WARNINGS_A_MINUTE
        self._said[is_said] += 1
        if is_said:
            logger.warning(text, *values)


class _Lines:
    """What has been received and not yet taken, as lines."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._looked_at = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, chunk: bytes) -> None:
        self._held += chunk

    def take(self) -> bytes | None:
        """Take the next whole line; None if there is none yet."""
        end = self._held.find(b"\n", self._looked_at)
        if end < 0:
            self._looked_at = len(self._held)
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked_at = 0
        return line

    def is_too_long(self) -> bool:
        return len(self._held) > MAX_LINE + 1  # a carriage return may go before its end

    def take_rest(self) -> bytes:
        return bytes(self._held)


async def _lines(reader: asyncio.StreamReader, is_busy: Callable[[], bool]) -> AsyncIterator[tuple[bytes, str]]:
    """Yield (line, ""), blank lines left out, the last one also without its newline; end after (b"", what is wrong).

    Also ends when nothing has come for long, unless `is_busy` says that the caller waits for something.
    """
    loop = asyncio.get_running_loop()
    held, began = _Lines(), loop.time()
    while True:
        while (line := held.take()) is not None:
            if line.strip():
                yield line.rstrip(b"\r"), ""
            began = loop.time()  # only now: that the one before had to wait is not this one's fault
        if held.is_too_long():
            yield b"", _TOO_LONG
            return
        chunk = await _read(reader, began + _LINE_SECONDS if held else loop.time() + _IDLE_SECONDS)
        if chunk is None and held:
            yield b"", _TOO_SLOW
            return
        if chunk is None and is_busy():
            continue
        if not chunk:
            if rest := held.take_rest().strip():
                yield rest, ""
            return
        if not held:
            began = loop.time()
        held.add(chunk)


async def _read(reader: asyncio.StreamReader, until: float) -> bytes | None:
    """Return what comes first, b"" at the end; None if nothing comes until then, by the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            return await reader.read(_CHUNK)
    except TimeoutError:
        return None


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
