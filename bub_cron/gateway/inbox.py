"""The gateway's store: accepted firings, their attempts, their messages, and what became of each.

Invariants:
- A firing is in the inbox, on disk, before anybody is told `accepted`; its id is there once.
- A state changes only by a move of `bub_cron.states`: one UPDATE with the move's from-states, and a look at the row count.
- The reply is on disk before its send begins, and the beginning of a send before the send.
- A firing ends together with the last of its messages, in one transaction: its outcome is the worst of its replies'.
- A row that was lost to damage while its firing is in hand is written again from memory.

One thread owns the connection (`store_thread.py`); the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from bub_cron import salvage
from bub_cron.errors import BubCronError, DamagedStoreError, StoreError, StoreFaultError, described, one_line
from bub_cron.gateway.firing import (
    FIRING_COLUMNS,
    MESSAGE_COLUMNS,
    Firing,
    Message,
    firing_of,
    message_of,
)
from bub_cron.gateway.inbox_schema import SHAPE
from bub_cron.gateway.store_thread import StoreThread
from bub_cron.states import (
    DELIVERED,
    FIRING_MOVES,
    GOOD,
    MESSAGE_MOVES,
    OPEN,
    SENDING,
    UNDELIVERED,
    UNKNOWN,
    WAITING,
    Move,
    sql_list,
    worst,
)
from bub_cron.store import ERRORS, FAR, open_store, store_error
from bub_cron.store_check import check_whole
from bub_cron.wire import DEFAULT_LIFE, Request, parse_instant

_MOST_IDS = 500  # in one statement
_DAY = 86400.0
_ENDINGS = {DELIVERED: "deliver", UNDELIVERED: "refuse", UNKNOWN: "lose"}


class StaleError(BubCronError):
    """A move whose from-states the row has left: somebody else moved it. Nothing was changed."""


class DifferentContentError(BubCronError):
    """An id that the inbox has already, with other content; the firing there is untouched."""


class FullError(BubCronError):
    """The inbox holds as many open firings as it may."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: the firing as it stands, and whether it is new; or the `error` that says why not.

    The error is a `DifferentContentError` for a known id with other content, a `FullError` where there is no room. A known
    firing that is final comes without its reply: thousands may be asked for at once.
    """

    firing: Firing | None = None
    new: bool = False
    error: Exception | None = None


class Inbox:
    """The store, for use on an event loop. What returns an awaitable has committed when it is done.

    `accept`, `get` and `get_all` raise `StoreError` when the disk refuses; nothing of that call is then stored. A move is
    tried again until it is stored, since going on without it would lose it; with `once` it raises `StoreError`, too.
    """

    def __init__(self, path: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._path = path
        self._sleep = sleep
        self._thread = StoreThread(path, SHAPE, _open, name="bub-cron-inbox")

    async def open(self) -> None:
        """Open or create the store and start its thread; raise `StoreError` if that can't be done."""
        await self._thread.start()

    async def close(self) -> None:
        """Carry out what was asked for, then close the store."""
        await self._thread.close()

    async def ask[Result](self, step: Callable[[sqlite3.Connection], Result]) -> Result:
        """Carry out a step in the store's thread, in a transaction; raise `StoreError` if the disk refuses."""
        return await self._thread.ask(step)

    # --- For the listener

    async def accept(self, requests: Sequence[Request], now: float, room: int) -> list[Accepted]:
        """Take requests in, all in one transaction, at most `room` new ones; return for each what became of it."""
        return await self.ask(lambda connection: _accept(connection, requests, now, room))

    async def get(self, firing_id: str) -> Firing | None:
        """Return a firing by its id."""
        return (await self.get_all([firing_id])).get(firing_id)

    async def get_all(self, ids: Sequence[str]) -> dict[str, Firing]:
        """Return firings by their ids; those that aren't there, or can't be read, are left out."""
        return await self.ask(lambda connection: _get_all(connection, ids))

    # --- For the runner

    async def unfinished(self, now: float) -> list[Firing]:
        """Return the firings that are open, or have an open message, in order of acceptance.

        An open row that can't be read ends `failed`, so that it keeps no other from running.
        """
        return await self.ask(lambda connection: _unfinished(connection, now))

    async def move(self, firing: Firing, event: str, *, once: bool = False, **changes: Any) -> Firing:
        """Move a firing by an event of `FIRING_MOVES`, with these columns changed; return it as it is then.

        Raises `StaleError` if it is in none of the event's from-states.
        """
        return await self._store(lambda connection: _move(connection, firing, event, **changes), once=once)

    async def end(self, firing: Firing, event: str, now: float, *, once: bool = False, **changes: Any) -> Firing:
        """Move a firing to a final outcome. One that ends `failed` may have a notice among its messages then."""
        return await self._store(lambda connection: _end(connection, firing, event, now, **changes), once=once)

    async def begin_send(self, firing: Firing, message: Message, now: float) -> Firing:
        """Mark the send of one of the firing's messages as begun. Messages that are not in the store yet are put there."""
        return await self._store(
            lambda connection: _move_message(
                connection, firing, message, "begin", now, sends=message.sends + 1, not_before=None
            )
        )

    async def move_message(
        self, firing: Firing, message: Message, event: str, now: float, *, once: bool = False, **changes: Any
    ) -> Firing:
        """Move one of a firing's messages, and the firing as it follows from that; return the firing as it is then."""
        return await self._store(
            lambda connection: _move_message(connection, firing, message, event, now, **changes), once=once
        )

    async def keep(self, firings: Iterable[Firing]) -> None:
        """Write the firings in hand into the store, those that it has already excepted."""
        kept = list(firings)
        await self._store(lambda connection: [_restore(connection, firing) for firing in kept])

    async def _store[Result](self, step: Callable[[sqlite3.Connection], Result], *, once: bool = False) -> Result:
        seconds = 1.0
        while True:
            try:
                return await self.ask(step)
            except StoreError as error:
                if once or isinstance(error, StoreFaultError):
                    raise
                logger.error("cron.store {}; trying again in {:g} s", error, seconds)
            await self._sleep(seconds)
            seconds = min(seconds * 2, 60.0)

    # --- Chores

    async def is_in_place(self) -> bool:
        """Tell whether the store's file is still the one at its path; if not, open the one that is there, or a new one."""
        return await self._thread.is_in_place()

    async def prune_old(self, now: float, keep_days: float) -> None:
        """Drop final firings that are older than so many days, counted from the newest firing or from `now`.

        The earlier of the two counts: a clock that is ahead drops nothing.
        """
        await self.ask(lambda connection: _prune_old(connection, now, keep_days))

    async def prune_to(self, keep_bytes: float) -> None:
        """Drop the oldest final firings until the store is no larger than that."""
        await self.ask(lambda connection: _prune_to(connection, keep_bytes))


def _open(path: str) -> sqlite3.Connection:
    """Open the store; one that is damaged is put aside first, and what can be read of it is kept."""
    try:
        return _open_whole(path)
    except DamagedStoreError as damage:
        logger.error("cron.store {}", damage)
    logger.error("cron.store {}", salvage.mend(path, SHAPE, time.time()))
    return _open_whole(path)


def _open_whole(path: str) -> sqlite3.Connection:
    connection = open_store(path, SHAPE)
    try:
        # A damaged store is put aside as it was found: closing it must not take the log into it.
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        check_whole(connection, path, SHAPE, closely=True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, False)
    except (*ERRORS, StoreError) as error:
        connection.close()
        raise store_error(path, error, SHAPE) from error
    return connection


# --- Rows


def _insert(connection: sqlite3.Connection, firings: Iterable[Firing]) -> None:
    columns = ("id", "reminder", "fire_time", "moment", "request", "expires", *FIRING_COLUMNS)
    connection.executemany(
        f"INSERT INTO firings ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        (
            (
                firing.id, firing.request.reminder, firing.request.fire_time, _moment(firing.request, firing.accepted_at),
                firing.request.content(), firing.request.expires,
                *(getattr(firing, column) for column in FIRING_COLUMNS),
            )
            for firing in firings
        ),
    )  # fmt: skip


def _insert_messages(connection: sqlite3.Connection, firing: Firing) -> None:
    columns = ("firing", *(f'"{column}"' for column in MESSAGE_COLUMNS))
    connection.executemany(
        f"INSERT INTO messages ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
        " ON CONFLICT (firing, number) DO NOTHING",
        ((firing.id, *(getattr(message, column) for column in MESSAGE_COLUMNS)) for message in firing.messages),
    )


def _update(
    connection: sqlite3.Connection, table: str, move: Move, key: str, values: Sequence[Any], changes: dict[str, Any]
) -> bool:
    """Move one row; return whether it was in one of the move's from-states."""
    columns = {"state": move.state, **changes}
    marks = ", ".join(f"{column} = ?" for column in columns)
    statement = f"UPDATE {table} SET {marks} WHERE {key} AND state IN {sql_list(move.sources)}"  # noqa: S608
    return connection.execute(statement, (*columns.values(), *values)).rowcount == 1


def _restore(connection: sqlite3.Connection, firing: Firing) -> bool:
    """Write a firing as it is in memory if the store has lost it; return whether it had."""
    if connection.execute("SELECT 1 FROM firings WHERE id = ?", (firing.id,)).fetchone() is not None:
        return False
    logger.error("cron.store had lost id={}: it is written again", firing.id)
    _insert(connection, [firing])
    _insert_messages(connection, firing)
    return True


def _messages(connection: sqlite3.Connection, firing_id: str) -> tuple[Message, ...]:
    rows = connection.execute("SELECT * FROM messages WHERE firing = ? ORDER BY number", (firing_id,))
    return tuple(map(message_of, rows))


def _moment(request: Request, now: float) -> float:
    """Return the instant that a firing is about: its fire time where the label is one that the store takes, else now."""
    try:
        moment = parse_instant(request.fire_time) if request.fire_time else now
    except ValueError:
        return now
    return moment if 0 <= moment <= FAR else now


# --- Accepting


def _accept(connection: sqlite3.Connection, requests: Sequence[Request], now: float, room: int) -> list[Accepted]:
    known = _rows(connection, [request.id for request in requests])
    started = _started(connection, {request.reminder for request in requests if _skips_overlap(request)})
    done: list[Accepted] = []
    fresh: dict[str, Firing] = {}
    for request in requests:
        if request.id in fresh:
            done.append(_again(request, fresh[request.id].request.content(), fresh[request.id]))
        elif request.id in known:
            row = known[request.id]
            done.append(_again(request, row["request"], row))
        elif len(fresh) >= room:
            done.append(
                Accepted(error=FullError("the inbox is full of firings that wait or run: submit it again later"))
            )
        else:
            fresh[request.id] = _new_firing(request, started, now)
            done.append(Accepted(fresh[request.id], new=True))
    _insert(connection, fresh.values())
    return done


def _again(request: Request, stored: str, there: Firing | sqlite3.Row) -> Accepted:
    """Return what becomes of a request whose id is known."""
    if stored != request.content():
        text = (
            f"the id {request.id} is known already, with other content; the firing is untouched"
            " (where two files use this gateway, their reminders need names of their own)"
        )
        return Accepted(error=DifferentContentError(text))
    try:
        return Accepted(there if isinstance(there, Firing) else firing_of(there))
    except (ValueError, KeyError, TypeError) as error:  # a damaged row: the other requests must not suffer from it
        return Accepted(error=error)


def _new_firing(request: Request, started: dict[str, list[sqlite3.Row]], now: float) -> Firing:
    if now > request.expires:
        error = "too late to start when it was submitted"
        return Firing(
            request, FIRING_MOVES["accept_missed"].state or "", now, reason="late", error=error, finished_at=now
        )
    if _skips_overlap(request):
        moment = _moment(request, now)
        for row in started.get(request.reminder or "", ()):
            if row["started_at"] <= moment:
                state, error = FIRING_MOVES["accept_skipped"].state or "", f"{row['id']} still ran"
                return Firing(request, state, now, reason="overlap", error=error, finished_at=now)
    return Firing(request, FIRING_MOVES["accept"].state or "", now)


def _skips_overlap(request: Request) -> bool:
    return request.reminder is not None and request.overlap == "skip"


def _started(connection: sqlite3.Connection, reminders: set[str | None]) -> dict[str, list[sqlite3.Row]]:
    """Return, by reminder, the open firings that have started."""
    found: dict[str, list[sqlite3.Row]] = {}
    where = f"reminder = ? AND state IN {sql_list(OPEN)} AND started_at IS NOT NULL"
    for reminder in reminders:
        query = f"SELECT id, started_at FROM firings WHERE {where} ORDER BY seq"  # noqa: S608
        if rows := connection.execute(query, (reminder,)).fetchall():
            found[reminder or ""] = rows
    return found


def _rows(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, sqlite3.Row]:
    """Return rows of firings by id, without the replies of those that are final."""
    columns = "id, request, expires, " + ", ".join(FIRING_COLUMNS)
    columns = columns.replace(" reply", f" iif(state IN {sql_list(OPEN)}, reply, NULL) AS reply")
    found: dict[str, sqlite3.Row] = {}
    for start in range(0, len(ids), _MOST_IDS):
        some = ids[start : start + _MOST_IDS]
        query = f"SELECT {columns} FROM firings WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
        found |= {row["id"]: row for row in connection.execute(query, some)}
    return found


def _get_all(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Firing]:
    found: dict[str, Firing] = {}
    for firing_id in ids:
        row = connection.execute("SELECT * FROM firings WHERE id = ?", (firing_id,)).fetchone()
        if row is not None and (firing := _readable(row)) is not None:
            found[firing_id] = replace(firing, messages=_messages(connection, firing_id))
    return found


def _readable(row: sqlite3.Row) -> Firing | None:
    try:
        return firing_of(row)
    except (ValueError, KeyError, TypeError) as error:
        logger.error("cron.unreadable id={} {}", one_line(str(row["id"])), described(error))
        return None


# --- Moves


def _move(connection: sqlite3.Connection, firing: Firing, event: str, **changes: Any) -> Firing:
    move = FIRING_MOVES[event]
    while not _update(connection, "firings", move, "id = ?", (firing.id,), changes):
        if not _restore(connection, firing):
            raise StaleError(f"{firing.id} is in none of the states {', '.join(move.sources)} any more")
    return replace(firing, state=move.state or "", **changes)


def _end(connection: sqlite3.Connection, firing: Firing, event: str, now: float, **changes: Any) -> Firing:
    if event == "refuse":
        # Its replies decide: of one that was sent before, and not seen to arrive, nobody knows.
        while waiting := next((reply for reply in firing.replies if reply.state == WAITING), None):
            firing = _move_message(connection, firing, waiting, event, now, **changes)
        if firing.is_final:
            return firing
    ended = _move(connection, firing, event, not_before=None, finished_at=now, **changes)
    if event == "fail" and firing.request.reminder is not None and _is_news(connection, firing.request.reminder):
        content = f"The reminder {firing.request.reminder} failed: {ended.error}."
        notice = Message(len(ended.messages) + 1, "notice", firing.request.to, now + DEFAULT_LIFE, content)
        ended = replace(ended, messages=(*ended.messages, notice))
        _insert_messages(connection, ended)
    return ended


def _is_news(connection: sqlite3.Connection, reminder: str) -> bool:
    """Tell whether nobody has been told, or is being told, that this reminder fails, since it worked last."""
    good = (
        f"SELECT finished_at, seq FROM firings WHERE reminder = ? AND state IN {sql_list(GOOD)}"  # noqa: S608
        " ORDER BY finished_at DESC, seq DESC LIMIT 1"
    )
    worked = connection.execute(good, (reminder,)).fetchone() or (0.0, 0)
    told = (
        "SELECT 1 FROM messages m JOIN firings f ON f.id = m.firing WHERE m.kind = 'notice'"
        " AND m.state <> 'undelivered' AND f.reminder = ? AND (f.finished_at, f.seq) > (?, ?)"
    )
    return connection.execute(told, (reminder, *worked)).fetchone() is None


def _move_message(
    connection: sqlite3.Connection, firing: Firing, message: Message, event: str, now: float, **changes: Any
) -> Firing:
    if event == "refuse" and message.reason == "not_seen":
        event = "lose"
        changes |= {"reason": "not_seen", "error": f"the end of an earlier send was not seen; then: {changes['error']}"}
    move = MESSAGE_MOVES[event]
    _restore(connection, firing)
    _insert_messages(connection, firing)
    if move.state not in (WAITING, SENDING):
        changes["finished_at"] = now
    if not _update(connection, "messages", move, "firing = ? AND number = ?", (firing.id, message.number), changes):
        text = f"message {message.number} of {firing.id} is in none of the states {', '.join(move.sources)} any more"
        raise StaleError(text)
    if message.decides and event in ("refuse", "lose"):
        # After a part that did not arrive for certain, no later one goes out.
        skip = MESSAGE_MOVES["skip"]
        later = 'firing = ? AND number > ? AND kind = ? AND "to" = ?'
        connection.execute(
            f"UPDATE messages SET state = ?, finished_at = ? WHERE {later} AND state IN {sql_list(skip.sources)}",  # noqa: S608
            (skip.state, now, firing.id, message.number, message.kind, message.to),
        )
    firing = replace(firing, messages=_messages(connection, firing.id))
    return _follow(connection, firing, event, now) if message.decides else firing


def _follow(connection: sqlite3.Connection, firing: Firing, event: str, now: float) -> Firing:
    """Move a firing as it follows from the move of one of its replies."""
    replies = firing.replies
    if all(reply.is_final for reply in replies):
        outcome = worst([reply.state for reply in replies])
        why = next((reply for reply in replies if reply.state == outcome), None) if outcome != DELIVERED else None
        reason, error = (why.reason, why.error) if why else (None, None)
        return _end(connection, firing, _ENDINGS[outcome], now, reason=reason, error=error)
    if event == "begin":
        return _move(connection, firing, "begin_send", not_before=None, started_at=firing.started_at or now)
    if any(reply.state == SENDING for reply in replies):
        return firing
    if event == "retry":
        waiting = next(reply for reply in replies if reply.state == WAITING)
        return _move(connection, firing, "retry", error=waiting.error)
    if event == "give_back":
        return _move(connection, firing, "give_back")
    return firing


# --- Starts and chores


def _unfinished(connection: sqlite3.Connection, now: float) -> list[Firing]:
    open_rows = f"SELECT * FROM firings WHERE state IN {sql_list(OPEN)} ORDER BY seq"  # noqa: S608
    found: list[Firing] = []
    for row in connection.execute(open_rows).fetchall():
        firing = _readable(row)
        if firing is not None:
            found.append(replace(firing, messages=_messages(connection, firing.id)))
            continue
        why = "its record in the inbox was damaged: what it was to do can't be read any more"
        changes = {"reason": "unreadable", "error": why, "finished_at": now}
        _update(connection, "firings", FIRING_MOVES["fail"], "id = ?", (row["id"],), changes)
    notices = "SELECT firing FROM messages WHERE kind = 'notice' AND state IN ('waiting', 'sending')"
    ids = [row["firing"] for row in connection.execute(notices)]
    return [*found, *_get_all(connection, ids).values()]


def _prune_old(connection: sqlite3.Connection, now: float, keep_days: float) -> None:
    newest = connection.execute("SELECT max(accepted_at) FROM firings").fetchone()[0] or now
    before = min(now, newest + _DAY) - keep_days * _DAY
    _drop(connection, "finished_at < ? AND accepted_at < ?", (before, before))


def _prune_to(connection: sqlite3.Connection, keep_bytes: float) -> None:
    oldest = "SELECT seq FROM firings WHERE finished_at IS NOT NULL ORDER BY seq LIMIT 1000"
    while _size(connection) > keep_bytes and _drop(connection, f"seq IN ({oldest})"):
        continue


def _drop(connection: sqlite3.Connection, where: str, values: tuple[float, ...] = ()) -> bool:
    """Drop firings with their messages; return whether there were any."""
    connection.execute(
        f"DELETE FROM messages WHERE firing IN (SELECT id FROM firings WHERE {where})",  # noqa: S608
        values,
    )
    return connection.execute(f"DELETE FROM firings WHERE {where}", values).rowcount > 0  # noqa: S608


def _size(connection: sqlite3.Connection) -> int:
    """Return the bytes that the store's rows take up; pages that are free are used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
