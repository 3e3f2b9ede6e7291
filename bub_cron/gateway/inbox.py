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
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from loguru import logger

from bub_cron import alerts, salvage
from bub_cron.checkers import NONE
from bub_cron.errors import BubCronError, DamagedStoreError, StoreError, StoreFaultError, described, one_line
from bub_cron.gateway.firing import FIRING_COLUMNS, MESSAGE_COLUMNS, PING, Firing, Message, firing_of, message_of
from bub_cron.gateway.gates import digest
from bub_cron.gateway.inbox_schema import OPEN_BESIDE, SHAPE, TOLD
from bub_cron.gateway.limits import period_start
from bub_cron.gateway.store_thread import StoreThread
from bub_cron.rare_fields import split_budget
from bub_cron.states import (
    BAD,
    DELIVERED,
    FINAL,
    FIRING_MOVES,
    GOOD,
    MESSAGE_MOVES,
    MESSAGE_OPEN,
    OPEN,
    RUNNING,
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
_KEEP_SPENT = 400 * _DAY
_MOST_TOKENS = 1 << 53
_MOST_GATES = 10_000  # reminders whose gate's last output is remembered
_ENDINGS = {DELIVERED: "deliver", UNDELIVERED: "refuse", UNKNOWN: "lose"}


class StaleError(BubCronError):
    """A move whose from-states the row has left: somebody else moved it. Nothing was changed."""


class DifferentContentError(BubCronError):
    """An id that the inbox has already, with other content; the firing there is untouched."""


class FullError(BubCronError):
    """The inbox holds as many open firings as it may."""


class Inbox(StoreThread):
    """The store, for use on an event loop. What returns an awaitable has committed when it is done.

    All but the moves raise `StoreError` when the disk refuses; nothing of that call is then stored. A move is tried again
    until it is stored, since going on without it would lose it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, SHAPE, _open, name="bub-cron-inbox")

    # --- For the listener

    async def accept(self, requests: Sequence[Request], now: float, room: int) -> list[Firing | BubCronError | None]:
        """Take requests in, all in one transaction, at most `room` new ones.

        Returns for each the new firing, None where the inbox has it already, or why it isn't taken: a
        `DifferentContentError`, or a `FullError`.
        """
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

    async def move(self, firing: Firing, event: str, now: float, **changes: Any) -> Firing:
        """Move a firing by an event of `FIRING_MOVES`, with these columns changed; return it as it is then.

        One that has ended may have an alert or a notice among its messages then. Raises `StaleError` if it is in none of the
        event's from-states.
        """
        return await self._insist(lambda connection: _move(connection, firing, event, now, **changes))

    async def move_message(self, firing: Firing, message: Message, event: str, now: float, **changes: Any) -> Firing:
        """Move one of a firing's messages, and the firing as it follows from that; return the firing as it is then.

        Messages that are not in the store yet are put there.
        """
        return await self._insist(lambda connection: _move_message(connection, firing, message, event, now, **changes))

    async def gate_digest(self, reminder: str) -> str | None:
        """Return the digest of the gate's output at a reminder's last good firing, None if there was none."""
        query = "SELECT digest FROM gates WHERE reminder = ?"
        row = await self._insist(lambda connection: connection.execute(query, (reminder,)).fetchone())
        return None if row is None else str(row["digest"])

    async def spent(self, reminder: str, since: float, now: float) -> int:
        """Return the tokens that a reminder's attempts have taken on the days that began from `since` to `now`.

        What was taken on a clock that was ahead counts when that day comes, not on each day until then.
        """
        query = "SELECT coalesce(sum(tokens), 0) AS tokens FROM spent WHERE reminder = ? AND day BETWEEN ? AND ?"
        row = await self._insist(lambda connection: connection.execute(query, (reminder, since, now)).fetchone())
        return int(row["tokens"])

    # --- The chats that were seen

    async def chats(self) -> dict[str, float]:
        """Return the chats that have written to this gateway, and when each last did."""
        query = 'SELECT "to", seen FROM chats'
        return await self.ask(lambda connection: {row["to"]: row["seen"] for row in connection.execute(query)})

    async def keep_chats(self, chats: Mapping[str, float], most: int) -> None:
        """Write when these chats were last seen; of all, the newest `most` are kept."""
        await self.ask(lambda connection: _keep_chats(connection, chats, most))

    async def _insist[Result](self, step: Callable[[sqlite3.Connection], Result]) -> Result:
        seconds = 1.0
        while True:
            try:
                return await self.ask(step)
            except StoreFaultError:
                raise
            except StoreError as error:
                logger.error("cron.store {}; trying again in {:g} s", error, seconds)
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, 60.0)

    # --- Chores

    async def keep(self, firings: Sequence[Firing]) -> None:
        """Write those of the firings in hand that the store has lost; a store that has gone is opened anew by then."""
        await self.ask(lambda connection: _keep(connection, firings))

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
    except (*ERRORS, StoreError) as error:
        connection.close()
        raise store_error(path, error, SHAPE) from error
    return connection


# --- Rows


def _insert(connection: sqlite3.Connection, firings: Sequence[Firing]) -> None:
    columns = ("id", "reminder", "fire_time", "moment", "request", "expires", *FIRING_COLUMNS)
    row = f"({', '.join('?' * len(columns))})"
    rest = list(firings)
    # Many rows in one statement: at each, the thread lets go of the interpreter, and waits for it while the loop is busy.
    # In three sizes, since each is a prepared statement that stays in memory.
    for size in (64, 8, 1):
        insert = f"INSERT INTO firings ({', '.join(columns)}) VALUES {', '.join([row] * size)}"  # noqa: S608
        while len(rest) >= size:
            some, rest = rest[:size], rest[size:]
            connection.execute(insert, list(chain.from_iterable(map(_row_of, some))))


def _row_of(firing: Firing) -> tuple[Any, ...]:
    request = firing.request
    moment = _moment(request, firing.accepted_at)
    return (
        firing.id, request.reminder, request.fire_time, moment, request.content(), request.expires,
        *firing[1:-1],
    )  # fmt: skip


def _insert_messages(connection: sqlite3.Connection, firing: Firing) -> None:
    columns = ("firing", *(f'"{column}"' for column in MESSAGE_COLUMNS))
    connection.executemany(
        f"INSERT INTO messages ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
        " ON CONFLICT (firing, number) DO NOTHING",
        ((firing.id, *message) for message in firing.messages),
    )


def _update(
    connection: sqlite3.Connection, table: str, move: Move, key: str, values: Sequence[Any], changes: dict[str, Any]
) -> bool:
    """Move the rows of a key; return whether one was in any of the move's from-states."""
    columns = {"state": move.state, **changes}
    marks = ", ".join(f"{column} = ?" for column in columns)
    statement = f"UPDATE {table} SET {marks} WHERE {key} AND state IN {sql_list(move.sources)}"  # noqa: S608
    return connection.execute(statement, (*columns.values(), *values)).rowcount > 0


def _rows(connection: sqlite3.Connection, columns: str, ids: Sequence[str]) -> Iterable[sqlite3.Row]:
    for start in range(0, len(ids), _MOST_IDS):
        some = ids[start : start + _MOST_IDS]
        query = f"SELECT {columns} FROM firings WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
        yield from connection.execute(query, some).fetchall()


def _keep(connection: sqlite3.Connection, firings: Sequence[Firing]) -> bool:
    """Write those of the firings that the store has lost as they are in memory; return whether there were any."""
    there = {row["id"] for row in _rows(connection, "id", [firing.id for firing in firings])}
    lost = [firing for firing in firings if firing.id not in there]
    _insert(connection, lost)
    for firing in lost:
        logger.error("cron.store had lost id={}: it is written again", firing.id)
        _insert_messages(connection, firing)
    return bool(lost)


def _messages(connection: sqlite3.Connection, firing_id: str) -> tuple[Message, ...]:
    rows = connection.execute("SELECT * FROM messages WHERE firing = ? ORDER BY number", (firing_id,))
    return tuple(map(message_of, rows))


def _read(connection: sqlite3.Connection, row: sqlite3.Row) -> Firing | None:
    """Return the firing of a row with its messages, None if it can't be read."""
    try:
        return firing_of(row, _messages(connection, row["id"]))
    except (ValueError, KeyError, TypeError) as error:
        logger.error("cron.unreadable id={} {}", one_line(row["id"]), described(error))
        return None


def _get_all(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Firing]:
    found = (_read(connection, row) for row in _rows(connection, "*", ids))
    return {firing.id: firing for firing in found if firing is not None}


def _moment(request: Request, now: float) -> float:
    """Return the instant that a firing is about: its fire time where the label is one that the store takes, else now."""
    try:
        moment = parse_instant(request.fire_time) if request.fire_time else now
    except ValueError:
        return now
    return moment if 0 <= moment <= FAR else now


# --- Accepting


def _accept(
    connection: sqlite3.Connection, requests: Sequence[Request], now: float, room: int
) -> list[Firing | BubCronError | None]:
    stored = {row["id"]: row["request"] for row in _rows(connection, "id, request", [one.id for one in requests])}
    started = _started(connection, [request.reminder for request in requests if _skips_overlap(request)])
    fresh: dict[str, Firing] = {}
    done: list[Firing | BubCronError | None] = []
    for request in requests:
        if request.id in stored or request.id in fresh:
            known = stored[request.id] if request.id in stored else fresh[request.id].request.content()
            done.append(None if known == request.content() else _different_content(request))
        elif len(fresh) >= room:
            done.append(FullError("the inbox is full of firings that wait or run: submit it again later"))
        else:
            fresh[request.id] = _new_firing(request, started, now)
            done.append(fresh[request.id])
    _insert(connection, list(fresh.values()))
    for number, firing in enumerate(done):
        if isinstance(firing, Firing) and firing.is_final:
            done[number] = _with_tellings(connection, firing, now)
    return done


def _different_content(request: Request) -> DifferentContentError:
    return DifferentContentError(
        f"the id {request.id} is known already, with other content; the firing is untouched"
        " (where two files use this gateway, their reminders need names of their own)"
    )


def _new_firing(request: Request, started: dict[str | None, list[sqlite3.Row]], now: float) -> Firing:
    event, reason, error = "accept", None, None
    if now > request.expires:
        event, reason, error = "accept_missed", "late", "too late to start when it was submitted"
    elif _skips_overlap(request) and (rows := started.get(request.reminder)):
        moment = _moment(request, now)
        earlier = next((row for row in rows if row["started_at"] <= moment), None)
        if earlier is not None:
            event, reason, error = "accept_skipped", "overlap", f"{earlier['id']} still ran"
    state = FIRING_MOVES[event].state or ""
    return Firing(request, state, now, reason=reason, error=error, finished_at=None if reason is None else now)


def _skips_overlap(request: Request) -> bool:
    return request.reminder is not None and request.overlap == "skip"


def _started(connection: sqlite3.Connection, reminders: Sequence[str | None]) -> dict[str | None, list[sqlite3.Row]]:
    """Return, by reminder, the open firings that have started."""
    found: dict[str | None, list[sqlite3.Row]] = {}
    for start in range(0, len(reminders), _MOST_IDS):
        some = reminders[start : start + _MOST_IDS]
        where = f"reminder IN ({', '.join('?' * len(some))}) AND state IN {sql_list(OPEN)} AND started_at IS NOT NULL"
        query = f"SELECT id, reminder, started_at FROM firings WHERE {where} ORDER BY seq"  # noqa: S608
        for row in connection.execute(query, some).fetchall():
            found.setdefault(row["reminder"], []).append(row)
    return found


# --- Moves


def _move(connection: sqlite3.Connection, firing: Firing, event: str, now: float, **changes: Any) -> Firing:
    if event == "refuse" and (waiting := next((one for one in firing.replies if one.state == WAITING), None)):
        # Its replies decide: of one that was sent before, and not seen to arrive, nobody knows.
        firing = _move_message(connection, firing, waiting, event, now, **changes)
        return firing if firing.is_final else _move(connection, firing, event, now, **changes)
    move = FIRING_MOVES[event]
    if move.state in FINAL:
        changes |= {"not_before": None, "finished_at": now}
    while not _update(connection, "firings", move, "id = ?", (firing.id,), changes):
        if not _keep(connection, [firing]):
            raise StaleError(f"{firing.id} is in none of the states {', '.join(move.sources)} any more")
    if event in ("miss", "fail") and firing.replies:  # what was not sent by now never is
        decides = "firing = ? AND kind IN ('reply', 'copy')"
        _update(connection, "messages", MESSAGE_MOVES["skip"], decides, (firing.id,), {"finished_at": now})
        firing = firing._replace(messages=_messages(connection, firing.id))
    reminder = firing.request.reminder
    if reminder is not None and (more := (changes.get("tokens") or 0) - (firing.tokens or 0)) > 0:
        _spend(connection, reminder, period_start("day", now, firing.request.timezone), more)
    firing = firing._replace(state=move.state or "", **changes)
    if reminder is not None and firing.gate is not None and firing.state in GOOD:
        _keep_digest(connection, reminder, digest(firing.gate))
    return _with_tellings(connection, firing, now) if firing.is_final else firing


def _keep_digest(connection: sqlite3.Connection, reminder: str, digest: str) -> None:
    # Replaced, not updated: the newest rows are those that were used last.
    connection.execute("INSERT OR REPLACE INTO gates (reminder, digest) VALUES (?, ?)", (reminder, digest))


def _spend(connection: sqlite3.Connection, reminder: str, day: float, tokens: int) -> None:
    """Add what an attempt took to what its reminder has taken that day."""
    add = (
        "INSERT INTO spent (reminder, day, tokens) VALUES (?, ?, ?) ON CONFLICT (reminder, day)"
        " DO UPDATE SET tokens = min(tokens + excluded.tokens, ?)"
    )
    connection.execute(add, (reminder, day, tokens, _MOST_TOKENS))


def _with_tellings(connection: sqlite3.Connection, firing: Firing, now: float) -> Firing:
    """Return a firing that has ended with what somebody is to be told of it, which is stored: an alert, a ping."""
    found = _alert(connection, firing, now)
    if found is None and firing.request.ping is None:
        return firing
    messages, until = _messages(connection, firing.id), now + DEFAULT_LIFE
    if found is not None:
        kind, to, content = found
        messages = (*messages, Message(len(messages) + 1, kind, to, until, content))
    if firing.request.ping is not None:
        messages = (*messages, Message(len(messages) + 1, PING, PING, until, firing.state))
    firing = firing._replace(messages=messages)
    _insert_messages(connection, firing)
    return firing


def _alert(connection: sqlite3.Connection, firing: Firing, now: float) -> tuple[str, str, str] | None:
    """Return (kind of message, who, what) that is to be told of a firing that has ended, None if nothing is news."""
    request, outcome = firing.request, firing.state
    if request.reminder is None:
        return None
    if outcome in GOOD:
        told = _told(connection, firing, now, f"m.kind = 'alert' AND f.state IN {sql_list(BAD)}")
        return None if told is None else ("alert", told["to"], alerts.works_again(request))
    if firing.reason == "budget" and request.budget is not None:
        _, period = split_budget(request.budget)
        since = period_start(period, now, request.timezone)
        if request.alert in (None, NONE) or _told(
            connection, firing, now, "f.reason = 'budget' AND f.finished_at BETWEEN ? AND ?", since, now
        ):
            return None
        return "alert", request.alert or "", alerts.used_up(request, firing.error)
    target = alerts.target(request, outcome)
    if target is None:
        return None
    kind, to = target
    # An alert is told once for a cause; its own chat hears of failures once, whatever the cause.
    cause = ("f.state = ? AND f.reason IS ?", outcome, firing.reason) if kind == "alert" else ("f.state = ?", outcome)
    if _told(connection, firing, now, *cause) is not None:
        return None
    if kind == "notice":
        return kind, to, alerts.notice(request, firing.error)
    return kind, to, alerts.sentence(request, outcome, firing.reason, firing.error)


def _told(
    connection: sqlite3.Connection, firing: Firing, now: float, condition: str, *values: object
) -> sqlite3.Row | None:
    """Return the newest alert or notice about a firing's reminder, of those that fit `condition`.

    Not one that could not be delivered; and None if another firing of the reminder has worked since. Where a clock that was
    ahead has written when something ended, the order of acceptance counts.
    """
    query = (
        f'SELECT m."to", f.finished_at, f.seq FROM messages m JOIN firings f ON f.id = m.firing WHERE m.{TOLD}'  # noqa: S608
        f" AND m.state <> 'undelivered' AND f.reminder = ? AND f.id <> ? AND {condition}"
        " ORDER BY iif(max(f.finished_at) OVER () > ?, 0, f.finished_at) DESC, f.seq DESC LIMIT 1"
    )
    ids = (firing.request.reminder, firing.id)
    told: sqlite3.Row | None = connection.execute(query, (*ids, *values, now)).fetchone()
    if told is None:
        return None
    worked = (
        f"SELECT 1 FROM firings WHERE reminder = ? AND id <> ? AND state IN {sql_list(GOOD)}"  # noqa: S608
        " AND iif(max(finished_at, ?) > ?, seq > ?, (finished_at, seq) > (?, ?)) ORDER BY moment DESC LIMIT 1"
    )
    when, seq = told["finished_at"], told["seq"]
    return told if connection.execute(worked, (*ids, when, now, seq, when, seq)).fetchone() is None else None


def _move_message(
    connection: sqlite3.Connection, firing: Firing, message: Message, event: str, now: float, **changes: Any
) -> Firing:
    if event == "refuse" and message.reason == "not_seen":
        event = "lose"
        changes |= {"reason": "not_seen", "error": f"the end of an earlier send was not seen; then: {changes['error']}"}
    move = MESSAGE_MOVES[event]
    if event == "begin":
        changes |= {"sends": message.sends + 1, "not_before": None}
    elif event == "give_back":
        changes["sends"] = message.sends - 1
    elif move.state not in MESSAGE_OPEN:
        changes["finished_at"] = now
    _keep(connection, [firing])
    _insert_messages(connection, firing)
    if not _update(connection, "messages", move, "firing = ? AND number = ?", (firing.id, message.number), changes):
        text = f"message {message.number} of {firing.id} is in none of the states {', '.join(move.sources)} any more"
        raise StaleError(text)
    if message.decides and event in ("refuse", "lose"):
        # After a part that did not arrive for certain, no later one goes out.
        later = 'firing = ? AND number > ? AND kind = ? AND "to" = ?'
        values = (firing.id, message.number, message.kind, message.to)
        _update(connection, "messages", MESSAGE_MOVES["skip"], later, values, {"finished_at": now})
    firing = firing._replace(messages=_messages(connection, firing.id))
    return _follow(connection, firing, event, now) if message.decides else firing


def _follow(connection: sqlite3.Connection, firing: Firing, event: str, now: float) -> Firing:
    """Move a firing as it follows from the move of one of its replies."""
    replies = firing.replies
    if all(reply.is_final for reply in replies):
        outcome = worst([reply.state for reply in replies])
        why = next(reply for reply in replies if reply.state == outcome)
        return _move(connection, firing, _ENDINGS[outcome], now, reason=why.reason, error=why.error)
    if event == "begin":
        return _move(connection, firing, "begin_send", now, not_before=None, started_at=firing.started_at or now)
    if any(reply.state == SENDING for reply in replies):
        return firing
    waiting = firing.next_message
    is_left_to_wait = firing.state == RUNNING and waiting is not None and waiting.not_before is not None
    if event == "retry" or (event != "give_back" and is_left_to_wait):
        error = next((reply.error for reply in replies if reply.state == WAITING and reply.error), None)
        return _move(connection, firing, "retry", now, error=error)
    return _move(connection, firing, "give_back", now) if event == "give_back" else firing


# --- Starts and chores


def _unfinished(connection: sqlite3.Connection, now: float) -> list[Firing]:
    open_rows = f"SELECT * FROM firings WHERE state IN {sql_list(OPEN)} ORDER BY seq"  # noqa: S608
    found: list[Firing] = []
    for row in connection.execute(open_rows).fetchall():
        if (firing := _read(connection, row)) is not None:
            found.append(firing)
            continue
        why = "its record in the inbox was damaged: what it was to do can't be read any more"
        changes = {"reason": "unreadable", "error": why, "finished_at": now}
        _update(connection, "firings", FIRING_MOVES["fail"], "id = ?", (row["id"],), changes)
    beside = f"SELECT DISTINCT firing FROM messages WHERE {OPEN_BESIDE}"  # noqa: S608
    ids = [row["firing"] for row in connection.execute(beside)]
    return [*found, *_get_all(connection, ids).values()]


def _keep_chats(connection: sqlite3.Connection, chats: Mapping[str, float], most: int) -> None:
    connection.executemany('INSERT OR REPLACE INTO chats ("to", seen) VALUES (?, ?)', chats.items())
    connection.execute(
        "DELETE FROM chats WHERE rowid NOT IN (SELECT rowid FROM chats ORDER BY seen DESC LIMIT ?)", (most,)
    )


def _prune_old(connection: sqlite3.Connection, now: float, keep_days: float) -> None:
    newest = connection.execute("SELECT max(accepted_at) FROM firings").fetchone()[0] or now
    before = min(now, newest + _DAY) - keep_days * _DAY
    _drop(connection, "finished_at < ? AND accepted_at < ?", (before, before))
    older = "DELETE FROM gates WHERE rowid IN (SELECT rowid FROM gates ORDER BY rowid DESC LIMIT -1 OFFSET ?)"
    connection.execute(older, (_MOST_GATES,))
    connection.execute("DELETE FROM spent WHERE day < ?", (min(now, newest + _DAY) - _KEEP_SPENT,))


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
