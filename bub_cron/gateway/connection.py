"""One caller's connection: its lines in, its answers out, and what it may take up meanwhile.

Kept true here: a line has an end in size and in time; what is written and not read is bounded, and who doesn't read is let
go; the log grows by so many lines a minute, whatever callers do.
"""

from __future__ import annotations

import asyncio
import select
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from loguru import logger

from bub_cron.wire import MAX_LINE, encode

MOST_AT_ONCE = 256  # lines that are judged and stored together: some milliseconds of the event loop's time
LOOKUPS = 16  # answers of one connection at once that may hold a whole reply
LINE_SECONDS = 30.0  # from a line's first byte to its end
IDLE_SECONDS = 600.0  # without a request, and with no answer still to come
DEAF_SECONDS = 120.0  # that a caller may leave its answers unread
WARNINGS_A_MINUTE = 30
CHUNK = 64 * 1024

_TOO_LONG = f"the line is over {MAX_LINE // 1024} KiB"
_TOO_SLOW = f"the line did not end within {LINE_SECONDS:g} s"


class Room:
    """So many places, given in the order in which they were asked for."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._free = places
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def has(self, places: int) -> bool:
        return not self._waiting and self._free >= places

    async def take(self, places: int) -> None:
        if self.has(places):
            self._free -= places
            return
        given = asyncio.get_running_loop().create_future()
        self._waiting.append((places, given))
        try:
            await given
        except asyncio.CancelledError:
            if given.cancelled():
                self.give(0)  # who stood behind may fit
            else:
                self.give(places)  # they came at the moment at which nobody wanted them any more
            raise

    def give(self, places: int) -> None:
        self._free += places
        while self._waiting and (self._waiting[0][1].cancelled() or self._free >= self._waiting[0][0]):
            wanted, given = self._waiting.popleft()
            if not given.cancelled():
                self._free -= wanted
                given.set_result(None)


class Held:
    """The places that requests that came in one go take in some rooms; never more than a room has."""

    def __init__(self, rooms: list[Room], places: int) -> None:
        self._held = {room: min(places, room.places) for room in rooms}
        self._last = rooms[-1]

    async def take(self) -> None:
        taken: list[Room] = []
        try:
            for room, places in self._held.items():
                await room.take(places)
                taken.append(room)
        except asyncio.CancelledError:
            for room in taken:
                room.give(self._held[room])
            raise

    async def take_within(self, seconds: float) -> bool:
        """Take them if they come in so many seconds; return whether they did."""
        if all(room.has(places) for room, places in self._held.items()):
            await self.take()
            return True
        try:
            async with asyncio.timeout(seconds):
                await self.take()
        except TimeoutError:
            return False
        return True

    def keep(self, count: int) -> None:
        """Give back all but so many places in the last room: what is left to do needs no more than so many ids."""
        for room, places in self._held.items():
            rest = min(count, places) if room is self._last else 0
            room.give(places - rest)
            self._held[room] = rest

    def give_one(self) -> None:
        """Give one place of the last room back, if there is one left."""
        if self._held[self._last]:
            self._held[self._last] -= 1
            self._last.give(1)


class Writer:
    """Writes the answers of one connection, one after the other: what is not read yet is one answer, and a little."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()
        self.lookups = asyncio.Semaphore(LOOKUPS)

    async def write(self, *answers: dict[str, Any]) -> None:
        async with self._turn:
            self._writer.write(b"".join(map(encode, answers)))
            await self.be_read()

    async def be_read(self) -> None:
        """Wait until the caller has read most of what was written; let go of one that doesn't."""
        if not self._writer.transport.get_write_buffer_size():
            await self._writer.drain()  # raises if the caller has left
            return
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                await self._writer.drain()
        except TimeoutError as error:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the caller doesn't read its answers") from error

    def raise_if_caller_has_gone(self) -> None:
        """Raise ConnectionAbortedError if the caller has closed both directions, which asyncio takes for a half-close."""
        descriptor = self._writer.get_extra_info("socket").fileno()
        gone = descriptor < 0 or self._writer.is_closing()
        if not gone:
            look = select.poll()
            look.register(descriptor, 0)
            gone = any(seen & (select.POLLHUP | select.POLLERR) for _, seen in look.poll(0))
        if gone:
            raise ConnectionAbortedError("the caller has gone")

    def close(self) -> None:
        self._writer.close()

    async def end(self) -> None:
        """Close once the caller has read everything; of one that doesn't, let go."""
        self._writer.close()
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError) as error:
            logger.debug("cron.caller_left {}", error)
        finally:
            self._writer.transport.abort()


class Warnings:
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
        is_said = self._said[True] < WARNINGS_A_MINUTE
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

    def take(self, most: int) -> list[bytes]:
        """Take the next whole lines, at most so many; none longer than a line may be, which stays and is too long."""
        lines: list[bytes] = []
        start = 0
        while len(lines) < most:
            end = self._held.find(b"\n", max(start, self._looked_at))
            if end < 0 or end - start > MAX_LINE + 1:
                break
            lines.append(bytes(self._held[start:end]))
            start = end + 1
        del self._held[:start]
        self._looked_at = 0 if lines else len(self._held)
        return lines

    def is_too_long(self) -> bool:
        end = self._held.find(b"\n")
        return (len(self._held) if end < 0 else end) > MAX_LINE + 1  # a carriage return may go before its end

    def take_rest(self) -> bytes:
        return bytes(self._held)


async def batches(reader: asyncio.StreamReader, is_busy: Callable[[], bool]) -> AsyncIterator[tuple[list[bytes], str]]:
    """Yield (the lines that have come, ""), blank ones left out; end after ([], what is wrong).

    What comes in one go is judged in one go, up to a number that keeps nobody else waiting. The last line counts without
    its newline, too. Also ends when nothing has come for long, unless `is_busy` says that the caller waits for something.
    """
    loop = asyncio.get_running_loop()
    held, began = _Lines(), loop.time()
    while True:
        while lines := held.take(MOST_AT_ONCE):
            if some := [line.rstrip(b"\r") for line in lines if line.strip()]:
                yield some, ""
            began = loop.time()  # only now: that the ones before had to wait is not this one's fault
        if held.is_too_long():
            yield [], _TOO_LONG
            return
        chunk = await _read(reader, began + LINE_SECONDS if held else loop.time() + IDLE_SECONDS)
        if chunk is None and held:
            yield [], _TOO_SLOW
            return
        if chunk is None and is_busy():
            continue
        if not chunk:
            if rest := held.take_rest().strip():
                yield [rest], ""
            return
        if not held:
            began = loop.time()
        held.add(chunk)


async def _read(reader: asyncio.StreamReader, until: float) -> bytes | None:
    """Return what comes first, b"" at the end; None if nothing comes until then, by the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            return await reader.read(CHUNK)
    except TimeoutError:
        return None
