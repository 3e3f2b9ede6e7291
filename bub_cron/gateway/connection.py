"""One caller's connection: read requests, have them accepted, write their answers.

A plain loop: the lines that have come, 400 at most, are judged and accepted together, their answers are written, and only
then are the next ones read. Not reading on is the back-pressure. A second task writes the final answers, one after the
other, as the outcomes come; so a caller that waits may go on asking.

Invariants:
- `accepted` is written only once the inbox has the firing on disk, and what the inbox has the runner gets, whatever the
  caller does meanwhile. Every request gets an answer or a closed connection.
- A half-close ends the requests, not the answers: the connection closes after the last answer, however long that takes.
- A line has an end in size and in time. A caller that asks nothing, reads nothing or has gone is dropped.
- Few replies are in memory at once: of the final answers that wait to be written, most are only ids.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from bub_cron.errors import BubCronError, RequestError, StoreError
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.faults import LogLimit, log_fault
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.inbox import FullError, Inbox
from bub_cron.gateway.runner import Runner
from bub_cron.states import ACCEPTED, REJECTED
from bub_cron.wire import (
    BUSY,
    MAX_LINE,
    PONG,
    UNKNOWN_ID,
    ChatsQuery,
    Ping,
    Request,
    StatusQuery,
    accepted,
    encode,
    parse_request,
)

LINE_SECONDS = 30.0  # from a line's first byte to its end
IDLE_SECONDS = 600.0  # without a request, and with no answer outstanding
UNREAD_SECONDS = 120.0  # that a caller may leave its answers unread
GONE_SECONDS = 5.0  # between looks at whether a caller that sends nothing more has gone altogether
MOST_LINES = 400  # judged and accepted together: some milliseconds of the event loop's time
MOST_AWAITED = 20_000  # firings whose final outcomes the connections of one user wait for
_MOST_REPLIES = 16  # answers in memory at once that may hold a whole reply
_CHUNK = 64 * 1024
_WARNINGS_A_MINUTE = 30

_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d")
_NO_HTTP = (
    'this is not HTTP: write one JSON object a line, such as {"ping": true} or'
    ' {"to": "telegram:123456789", "text": "hello"}; each answer is such a line'
)
_TOO_SLOW = f"the line did not end within {LINE_SECONDS:g} s"
_MADE_ROOM = "all connections of this user were taken, and this one stood in the middle of a line: connect again"


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections work with.

    `about` gives what a ping is answered with, besides its status and the counts; `chats` the answer to who asks for those.
    """

    inbox: Inbox
    runner: Runner
    rule: CommandRule
    about: Callable[[], dict[str, Any]]
    chats: Callable[[], dict[str, Any]]
    warnings: LogLimit = field(default_factory=lambda: LogLimit(_WARNINGS_A_MINUTE))


class Connection:
    """One caller, served in a task of its own."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, service: Service, connected: socket.socket, siblings: set[Connection]) -> None:
        """`siblings` are the connections of the same user, this one among them."""
        self._service = service
        self._siblings = siblings
        self._socket = connected
        self.serving = asyncio.create_task(self._serve())
        self._held = b""  # received, and not taken yet
        self._half_line_since: float | None = None  # while the rest of a line is waited for
        self._is_over = False  # no more requests are read
        self._owed: dict[str, int] = {}  # how many final answers are owed for which ids
        self._ended: asyncio.Queue[Firing | str | None] = asyncio.Queue()  # to write now; None: the requests are over

    async def _serve(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=_CHUNK)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._write_finals())
                await self._serve_requests()
        except* ConnectionError as errors:
            logger.debug("cron.caller_left {}", errors.exceptions[0])
        except* Exception as errors:
            # A fault of ours: the caller learns it by the end of the connection, rather than wait for ever.
            log_fault("cron.connection", errors.exceptions[0])
        finally:
            for firing_id in self._owed:
                if final := self._service.runner.final(firing_id):
                    final.remove_done_callback(self._on_final)
            await self._close()

    @property
    def half_open_since(self) -> float | None:
        """Since when, by the loop's clock, the rest of a line is missing and nothing else is waited for."""
        return None if self._owed else self._half_line_since

    def make_room(self) -> None:
        """Tell the caller that it makes room, and drop it at once."""
        self._writer.write(encode({"status": BUSY, "error": _MADE_ROOM}))
        self._writer.transport.abort()
        self.serving.cancel()  # else what has come of its line would count as one

    # --- Requests

    async def _serve_requests(self) -> None:
        while not self._is_over and (lines := await self._next_lines()):
            await self._answer(lines)
            await asyncio.sleep(0)  # between any two groups of lines, all others and the chats have their turn
        self._is_over = True
        self._ended.put_nowait(None)

    async def _next_lines(self) -> list[bytes]:
        """Return the lines that have come, without blank ones; [] if no more are to be read.

        The last line counts without its newline, too. One that is too long comes as far as it was received.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            *lines, self._held = self._held.split(b"\n", MOST_LINES)
            if lines := [line.removesuffix(b"\r") for line in lines if line.strip()]:
                return lines
            if len(self._held) > MAX_LINE + 1:  # a carriage return may go before the newline
                return [self._held]
            try:
                self._half_line_since = began if self._held else None
                async with asyncio.timeout_at(began + (LINE_SECONDS if self._held else IDLE_SECONDS)):
                    chunk = await self._reader.read(_CHUNK)
            except TimeoutError:
                if self._held:
                    await self._write(self._refusal(REJECTED, None, _TOO_SLOW))
                if self._held or not self._owed:
                    return []
                began = loop.time()
                continue
            finally:
                self._half_line_since = None
            if not self._held:
                if not chunk:
                    return []
                began = loop.time()
            self._held += chunk or b"\n"

    async def _answer(self, lines: list[bytes]) -> None:
        """Write the first answer to each line."""
        judged: list[Request | StatusQuery | bytes] = []
        for line in lines:
            judged.append(self._judge(line))
            if self._is_over:
                break
        if at_once := [answer for answer in judged if isinstance(answer, bytes)]:
            await self._write(*at_once)
        asked: list[Request | StatusQuery] = [query for query in judged if isinstance(query, StatusQuery)]
        if requests := [request for request in judged if isinstance(request, Request)]:
            asked += await self._submit(requests)
        for start in range(0, len(asked), _MOST_REPLIES):
            await self._write(*await self._standing(asked[start : start + _MOST_REPLIES]))
        for request in requests:
            if self._owed.get(request.id) == 0:
                del self._owed[request.id]

    def _judge(self, line: bytes) -> Request | StatusQuery | bytes:
        """Return the request, or its answer where that needs no store."""
        service = self._service
        try:
            request = parse_request(line, now=service.runner.now(), new_id=_new_id)
        except RequestError as error:
            is_http = _HTTP.match(line) is not None
            self._is_over = is_http or len(line) > MAX_LINE  # what follows can't be told from the rest of it
            return self._refusal(REJECTED, error.id, _NO_HTTP if is_http else str(error))
        if isinstance(request, Ping):
            counts = {"waiting": service.runner.waiting, "running": service.runner.running}
            return encode({"status": PONG, **service.about(), **counts})
        if isinstance(request, ChatsQuery):
            return encode(service.chats())
        if isinstance(request, Request):
            if refusal := service.rule.refusal(request):
                return self._refusal(REJECTED, request.id, refusal)
            if request.wait and request.id not in self._owed:
                if sum(len(sibling._owed) for sibling in self._siblings) >= MOST_AWAITED:
                    why = f"this user waits for {MOST_AWAITED:,} firings already: use wait: false, or try again later"
                    return self._refusal(BUSY, request.id, why)
                self._owed[request.id] = 0  # its place, kept while it is being accepted
        return request

    async def _submit(self, requests: list[Request]) -> list[Request]:
        """Have requests accepted and write their first answers; return those that the inbox has already."""
        taken: list[Firing | BubCronError | None]
        try:
            taken = await self._service.runner.accept(requests)
        except StoreError as error:
            taken = [error] * len(requests)
        answers: list[bytes] = []
        known: list[Request] = []
        for request, found in zip(requests, taken, strict=True):
            if found is None:
                known.append(request)
            elif isinstance(found, Firing):
                answers.append(accepted(found.id) if found.state == ACCEPTED else encode(found.answer()))
                self._owe_final(request, found)
            else:
                status = BUSY if isinstance(found, FullError | StoreError) else REJECTED
                answers.append(self._refusal(status, request.id, str(found)))
        if answers:
            await self._write(*answers)
        return known

    async def _standing(self, asked: Sequence[Request | StatusQuery]) -> list[bytes]:
        """Return answers that tell where firings stand, and owe the final ones that a request waits for."""
        try:
            found = await self._service.inbox.get_all([one.id for one in asked])
        except StoreError as error:
            return [self._refusal(BUSY, one.id, str(error)) for one in asked]
        answers: list[bytes] = []
        for one in asked:
            firing = found.get(one.id)
            answers.append(encode({"id": one.id, "status": UNKNOWN_ID} if firing is None else firing.answer()))
            if isinstance(one, Request) and firing is not None:
                self._service.runner.take(firing)  # a fault of ours may have left it
                self._owe_final(one, firing)
        return answers

    def _refusal(self, status: str, firing_id: str | None, error: str) -> bytes:
        self._service.warnings.log("WARNING", "cron.{} id={} error={}", status, firing_id, error)
        return encode({**({"id": firing_id} if firing_id else {}), "status": status, "error": error})

    # --- Final answers

    def _owe_final(self, request: Request, firing: Firing) -> None:
        """Owe the caller the final answer to a request, if it waits for one."""
        if not request.wait or firing.is_final:
            return
        self._owed[firing.id] = self._owed.get(firing.id, 0) + 1
        if self._owed[firing.id] > 1:
            return
        if final := self._service.runner.final(firing.id):
            final.add_done_callback(self._on_final)
        else:
            self._ended.put_nowait(firing.id)  # it has just ended

    def _on_final(self, final: asyncio.Future[Firing]) -> None:
        if final.cancelled():
            self.serving.cancel()  # no outcome comes now: the caller learns it by the end of the connection
        else:
            firing = final.result()
            self._ended.put_nowait(firing if self._ended.qsize() < _MOST_REPLIES else firing.id)

    async def _write_finals(self) -> None:
        while self._owed or not self._is_over:
            try:
                async with asyncio.timeout(GONE_SECONDS if self._is_over else None):
                    ended = await self._ended.get()
            except TimeoutError:
                self._raise_if_gone()
                continue
            if ended is not None:
                await self._write_final(ended)

    async def _write_final(self, ended: Firing | str) -> None:
        if isinstance(ended, Firing):
            firing_id, answer = ended.id, encode(ended.answer())
        else:
            firing_id, [answer] = ended, await self._standing([StatusQuery(ended)])
        while self._owed[firing_id]:
            await self._write(answer)
            self._owed[firing_id] -= 1
            await asyncio.sleep(0)
        del self._owed[firing_id]

    def _raise_if_gone(self) -> None:
        """Raise if the caller has closed both directions, which asyncio takes for a half-close."""
        look = select.poll()
        look.register(self._socket, 0)
        if self._writer.is_closing() or any(seen & (select.POLLHUP | select.POLLERR) for _, seen in look.poll(0)):
            raise ConnectionAbortedError("the caller has gone")

    # --- Writing

    async def _write(self, *lines: bytes) -> None:
        """Write, and wait until the caller has read most of it; drop one that doesn't read."""
        self._writer.write(b"".join(lines))
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._writer.drain()
        except TimeoutError as error:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the caller doesn't read its answers") from error

    async def _close(self) -> None:
        """Close once the caller has read everything; drop one that doesn't read."""
        self._writer.close()
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError) as error:
            logger.debug("cron.caller_left {}", error)
        finally:
            if self._writer.transport.get_write_buffer_size():  # asyncio can't abort one that has closed meanwhile
                self._writer.transport.abort()


def _new_id() -> str:
    return f"poke-{uuid.uuid4().hex[:16]}"
