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
import socket
import struct
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from loguru import logger

from bub_cron.errors import RequestError, StoreError
from bub_cron.gateway.inbox import FullError
from bub_cron.gateway.address import BoundSocket
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.connection import CHUNK, LOOKUPS, Held, Room, Warnings, Writer, batches
from bub_cron.gateway.faults import log_fault
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.runner import Runner
from bub_cron.states import FINAL, IN_INBOX, REJECTED
from bub_cron.wire import BUSY, PONG, UNKNOWN_ID, Ping, Request, StatusQuery, encode, parse_request

_MOST_UNANSWERED = 4096  # requests of one connection that wait for their first answer; long ones count for more
_MOST_IN_HAND = 20_000  # the same of all connections of one user, and those that wait for a last word
_MOST_CONNECTIONS = 256  # of one user; fewer where the process may not have many descriptors
_BYTES_PER_PLACE = 1024
_GONE_SECONDS = 5.0  # between looks at whether a caller that sends nothing more has gone altogether
_NO_DESCRIPTOR_SECONDS = 1.0
_CLOSE_SECONDS = 1.0  # that a caller gets to read its answers when the gateway stops
_OPEN = IN_INBOX - FINAL


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
        self._rooms = {uid: Room(_MOST_IN_HAND) for uid in self._uids}
        self._most_connections = _connections_a_user(len(self._uids))
        self._warnings = Warnings()

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

    async def _serve(self, connected: socket.socket, room: Room) -> None:
        self._met.discard(connected)
        reader, raw = await asyncio.open_unix_connection(sock=connected, limit=CHUNK)
        writer = Writer(raw)
        answers: set[asyncio.Task[None]] = set()
        try:
            await self._take_requests(reader, writer, answers, room)
            while answers:
                await asyncio.wait(answers, timeout=_GONE_SECONDS)
                writer.raise_if_caller_has_gone()
        except ConnectionError as error:
            logger.debug("cron.caller_left {}", error)
        except Exception as error:
            log_fault("cron.connection", error)
        finally:
            for answer in answers:
                answer.cancel()
            await writer.end()

    async def _take_requests(
        self, reader: asyncio.StreamReader, writer: Writer, answers: set[asyncio.Task[None]], of_user: Room
    ) -> None:
        of_connection = Room(_MOST_UNANSWERED)
        async for lines, wrong in batches(reader, lambda: bool(answers)):
            if wrong:
                # What follows such a line can't be told from its rest.
                await writer.write({"status": REJECTED, "error": wrong})
                return
            for some, places in _fitting(lines, min(of_connection.places, of_user.places)):
                await writer.be_read()
                held = Held([of_connection, of_user], places)
                while not await held.take_within(_GONE_SECONDS):
                    writer.raise_if_caller_has_gone()  # else what it asked for would keep others waiting
                # The next ones are read and judged while these are stored.
                self._go_on(self._answer(some, writer, held, answers), writer, answers)
                await asyncio.sleep(0)  # and between any two of them, all others and the chats have their turn

    @staticmethod
    def _go_on(step: Coroutine[Any, Any, None], writer: Writer, answers: set[asyncio.Task[None]]) -> None:
        async def guarded() -> None:
            try:
                await step
            except ConnectionError as error:
                logger.debug("cron.caller_left {}", error)
            except Exception as error:
                # A fault of ours: the caller learns it by the end of the connection, rather than wait for ever.
                log_fault("cron.answer", error)
                writer.close()

        task = asyncio.create_task(guarded())
        answers.add(task)
        task.add_done_callback(answers.discard)

    async def _answer(self, lines: list[bytes], writer: Writer, held: Held, answers: set[asyncio.Task[None]]) -> None:
        """Write the first answer to each line; those whose last word is waited for go on by themselves."""
        awaited: list[str] = []
        try:
            awaited = await self._answer_first(lines, writer)
        finally:
            held.keep(len(awaited))
        for firing_id in awaited:
            self._go_on(self._answer_last(firing_id, writer, held), writer, answers)

    async def _answer_last(self, firing_id: str, writer: Writer, held: Held) -> None:
        try:
            await writer.write((await self._runner.last_word(firing_id)).answer())
        finally:
            held.give_one()

    async def _answer_first(self, lines: list[bytes], writer: Writer) -> list[str]:
        """Write the first answers; return the ids whose last word is still to come and waited for."""
        at_once: list[dict[str, Any]] = []
        requests: list[Request] = []
        asked: list[str] = []
        for line in lines:
            try:
                request = parse_request(line, now=self._now(), new_id=_new_id)
            except RequestError as error:
                at_once.append(self._refusal(REJECTED, error.id, error))
                continue
            if isinstance(request, Ping):
                at_once.append(self._pong())
            elif isinstance(request, StatusQuery):
                asked.append(request.id)
            elif refusal := self._rule.refusal(request):
                at_once.append(self._refusal(REJECTED, request.id, RequestError(refusal)))
            else:
                requests.append(request)
        if at_once:
            await writer.write(*at_once)
        taken: list[dict[str, Any]] = []
        if requests:
            with self._runner.taking():
                # Not to be ended by the caller's leaving: what the inbox has must also be taken by the runner.
                taken, ended = await asyncio.shield(asyncio.ensure_future(self._accept(requests)))
            asked += ended
            if taken:
                await writer.write(*taken)
        for start in range(0, len(asked), LOOKUPS):
            async with writer.lookups:
                await writer.write(*await self._standing(asked[start : start + LOOKUPS]))
        wanted = {request.id for request in requests if request.wait}
        return [answer["id"] for answer in taken if answer["status"] in _OPEN and answer["id"] in wanted]

    async def _accept(self, requests: list[Request]) -> tuple[list[dict[str, Any]], list[str]]:
        """Take requests into the inbox, and what is open of them to the runner.

        Return their first answers, and the ids of those that have their last word already: they are to be looked up,
        with their whole replies.
        """
        try:
            accepted = await self._inbox.accept(requests, self._now())
        except StoreError as error:
            return [self._refusal(BUSY, request.id, error) for request in requests], []
        new = [found.firing for found in accepted if found.new and found.firing is not None]
        if len(new) == 1:
            logger.info("cron.accepted id={} to={}", new[0].id, new[0].to)
        elif new:
            # A line for each would cost more than all the rest of it.
            logger.info("cron.accepted {} firings, from id={} to id={}", len(new), new[0].id, new[-1].id)
        answers: list[dict[str, Any]] = []
        ended: list[str] = []
        for request, found in zip(requests, accepted, strict=True):
            firing = found.firing
            if firing is None:
                answers.append(self._not_taken(request, found.error))
            elif not firing.is_final:
                self._runner.take(firing)
                answers.append(firing.answer())
            elif found.new:
                answers.append(firing.answer())
            else:
                ended.append(firing.id)
        return answers, ended

    def _not_taken(self, request: Request, error: Exception | None) -> dict[str, Any]:
        status = BUSY if isinstance(error, FullError) else REJECTED
        return self._refusal(status, request.id, error or RequestError("it was not taken"))

    def _refusal(self, status: str, firing_id: str | None, error: Exception) -> dict[str, Any]:
        self._warnings.say("cron.{} id={} error={}", status, firing_id, error)
        return {**({"id": firing_id} if firing_id else {}), "status": status, "error": str(error)}

    async def _standing(self, ids: list[str]) -> list[dict[str, Any]]:
        try:
            found = await self._inbox.get_all(ids)
        except StoreError as error:
            return [{"id": one, "status": BUSY, "error": str(error)} for one in ids]
        return [found[one].answer() if one in found else {"id": one, "status": UNKNOWN_ID} for one in ids]

    def _pong(self) -> dict[str, Any]:
        return {"status": PONG, **self._about(), "waiting": self._runner.waiting, "running": self._runner.running}


def _fitting(lines: list[bytes], most: int) -> Iterator[tuple[list[bytes], int]]:
    """Yield the lines in groups that need no more than so many places, each with the places that it needs."""
    group: list[bytes] = []
    places = 0
    for line in lines:
        weight = 1 + len(line) // _BYTES_PER_PLACE
        if group and places + weight > most:
            yield group, places
            group, places = [], 0
        group.append(line)
        places += weight
    if group:
        yield group, places


def _new_id() -> str:
    return f"poke-{uuid.uuid4().hex[:16]}"


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
