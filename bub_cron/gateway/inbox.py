"""The gateway side's store: accepted firings, their attempts, kept replies and last words.

Kept true here:
- A firing is in the inbox, on disk, before anybody is told `accepted`; its id is there once.
- A state changes only by the rows of this table, as `UPDATE ... WHERE id = ? AND state IN (...)` and a look at the row
  count; a last word is never changed.
- The reply is on disk before its send begins, and the beginning of a send before the send.

One thread owns the connection; the event loop never waits for the disk. What is asked for while the thread is busy goes
into its next transaction together, so that thousands of firings cost a few syncs. A firing's `sending` marks a send that
has begun; `reply` is what is to be sent (for `text`, from the start).

| state    | event                                                | next state  | moved by |
|----------|------------------------------------------------------|-------------|----------|
| (none)   | a request                                            | accepted    | listener |
| (none)   | a request that is too late already, or whose fire    | missed      | listener |
|          | time an earlier firing of its reminder overlaps      |             |          |
| accepted | too late to start                                    | missed      | runner   |
| accepted | no such channel, or one that can't deliver           | undelivered | runner   |
| accepted | an attempt starts (attempts + 1)                     | running     | runner   |
| accepted | a send begins (sends + 1, sending)                   | running     | runner   |
| retrying | as accepted; but too late to start again             | failed      | runner   |
| retrying | the same, and its last attempt acts by itself and    | unknown     | runner   |
|          | was lost in the middle                               |             |          |
| running  | the turn ended with a reply: it is kept              | running     | runner   |
| running  | a send begins (sends + 1, sending)                   | running     | runner   |
| running  | the turn failed, or a send was refused: again later  | retrying    | runner   |
| running  | the turn ended well with nothing to send             | silent, ran | runner   |
| running  | the last attempt failed; an empty reply              | failed      | runner   |
| running  | the send returned                                    | delivered   | runner   |
| running  | the send was refused to the end                      | undelivered | runner   |
| running  | the send's end was not seen                          | unknown     | runner   |
| running  | the gateway stops in the turn (attempts - 1), or     | accepted    | runner   |
|          | before the send (sends - 1)                          |             |          |
| running  | the gateway stops in a turn that acts by itself      | retrying,   | runner   |
|          | (`reply: agent`, a command): the attempt counts      | unknown     |          |

At a start, what a crash left `running`:

| found                                   | next state                                         |
|-----------------------------------------|----------------------------------------------------|
| a send had begun                        | unknown                                            |
| a reply is kept, no send begun          | retrying, at once                                  |
| in a turn, attempts left                | retrying, after the usual delay                    |
| in a turn, none left                    | failed; unknown where the turn acts by itself      |
| an open row that can't be read          | failed, so that it keeps no other from running     |
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from loguru import logger

from bub_cron import salvage
from bub_cron.errors import BubCronError, DamagedStoreError, StoreError, described, one_line
from bub_cron.gateway.acceptance import Accepted, accept, rows_of
from bub_cron.gateway.firing import COLUMNS, LOST_IN_CRASH, NOTHING, OPEN, Firing, firing_of
from bub_cron.gateway.store_thread import Step, StoreThread
from bub_cron.states import ACCEPTED, DELIVERED, FAILED, GOOD, MISSED, RAN, RETRYING, RUNNING, SILENT, UNKNOWN
from bub_cron.store import ERRORS, Shape, instant, made_anew, number, open_store, store_error, text
from bub_cron.store_check import check_whole
from bub_cron.wire import Request

# The checks say what a whole row is: a damaged store's rows come over only if they pass.
_FIRINGS = f"""
CREATE TABLE firings (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    id          TEXT NOT NULL UNIQUE {text("id")},
    reminder    TEXT,
    fire_time   TEXT,               -- a label; UTC when a tick wrote it
    target      TEXT NOT NULL {text("target")},      -- channel:chat_id
    session     TEXT NOT NULL {text("session")},
    kind        TEXT NOT NULL CHECK (kind IN ('prompt', 'text', 'command')),
    content     TEXT NOT NULL {text("content")},      -- canonical JSON of what it does
    expires     REAL NOT NULL {instant("expires", "real")}, -- instants are seconds since the epoch
    state       TEXT NOT NULL CHECK (state IN ('accepted', 'running', 'retrying', 'delivered', 'silent', 'ran',
                                               'undelivered', 'failed', 'unknown', 'missed')),
    attempts    INTEGER NOT NULL DEFAULT 0 {number("attempts", 1_000_000)},
    sends       INTEGER NOT NULL DEFAULT 0 {number("sends", 1_000_000)},
    sending     INTEGER NOT NULL DEFAULT 0 CHECK (sending IN (0, 1)),
    reply       TEXT,               -- what is, or was, to be sent
    error       TEXT,
    tokens      INTEGER,            -- of all attempts, where the model's provider tells
    not_before  REAL {instant("not_before", "real")},
    accepted_at REAL NOT NULL {instant("accepted_at", "real")},
    started_at  REAL {instant("started_at", "real")},
    finished_at REAL {instant("finished_at", "real")}
)
"""
_INDEXES = (
    "CREATE INDEX firings_open ON firings (seq) WHERE state IN ('accepted', 'running', 'retrying')",
    "CREATE INDEX firings_reminder ON firings (reminder, seq)",
)
SHAPE = Shape(
    application_id=0x62634958,  # "bcIX"
    version=2,
    schema=(
        _FIRINGS,
        *_INDEXES,
        # The reminders whose failure their chats have heard of, or are to hear of.
        "CREATE TABLE told (reminder TEXT PRIMARY KEY, firing TEXT NOT NULL, begun INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    ),
    journal="WAL",
    migrations={
        # Version 1 had no checks.
        1: (*made_anew("firings", _FIRINGS), *_INDEXES),
    },
)

_ADD_TOKENS = "tokens = coalesce(tokens + ?, ?, tokens)"
# What has a last word is open before, and these take more: the turn, or the send, was under way.
_ENDS_FROM = {
    DELIVERED: (RUNNING,),
    SILENT: (RUNNING,),
    RAN: (RUNNING,),
    UNKNOWN: (RUNNING, RETRYING),
    MISSED: (ACCEPTED,),
}


class StaleFiringError(BubCronError):
    """A change of state whose from-state the firing has left: somebody else moved it. Nothing was changed."""


class Inbox:
    """The store, for use on an event loop. Every method that returns an awaitable has committed when it is done.

    Any of them raises `StoreError` when the disk refuses; nothing of that call is then stored.
    """

    def __init__(self, path: str, *, most_open: int) -> None:
        self._path = path
        self._most_open = most_open
        self._open_count = 0
        self._store = StoreThread(path, SHAPE, open_inbox, name="bub-cron-inbox", load=self._count)

    async def open(self) -> None:
        """Open or create the store and start its thread; raise `StoreError` if that can't be done."""
        await self._store.start()

    async def close(self) -> None:
        """Carry out what was asked for, then close the store."""
        await self._store.close()

    def _count(self, connection: sqlite3.Connection) -> None:
        query = f"SELECT count(*) FROM firings WHERE state IN {OPEN}"  # noqa: S608
        self._open_count = connection.execute(query).fetchone()[0]

    # --- What the listener does

    async def accept(self, requests: Sequence[Request], now: float) -> list[Accepted]:
        """Take requests in, all in one transaction; return for each what became of it, in their order."""
        contents = [request.content() for request in requests]
        accepted: list[Accepted] = await self._ask(lambda connection: self._accept(connection, requests, contents, now))
        return accepted

    def _accept(
        self, connection: sqlite3.Connection, requests: Sequence[Request], contents: list[str], now: float
    ) -> list[Accepted]:
        done = accept(connection, requests, contents, now, self._most_open - self._open_count)
        self._open_count += sum(found.new and found.firing is not None and not found.firing.is_final for found in done)
        return done

    async def get(self, firing_id: str) -> Firing | None:
        """Return a firing by its id."""
        return (await self.get_all([firing_id])).get(firing_id)

    async def get_all(self, ids: Sequence[str]) -> dict[str, Firing]:
        """Return firings by their ids; those that aren't there are left out."""
        found: dict[str, Firing] = await self._ask(
            lambda connection: {firing: firing_of(row) for firing, row in rows_of(connection, ids).items()}
        )
        return found

    # --- What the runner does

    async def recover(self, now: float, retry_delay: Callable[[int], float]) -> list[Firing]:
        """Settle what a crash left `running` (see the table above); return every firing without a last word, in order.

        `retry_delay` gives the seconds before the next attempt after so many.
        """
        found: list[Firing] = await self._ask(lambda connection: self._recover(connection, now, retry_delay))
        return found

    def _recover(self, connection: sqlite3.Connection, now: float, retry_delay: Callable[[int], float]) -> list[Firing]:
        self._end_unreadable(connection, now)
        for firing in self._rows(connection, "WHERE state = 'running' ORDER BY seq"):
            if firing.sending:
                self._end(connection, firing.id, UNKNOWN, "the gateway ended in the middle of the send", now)
            elif firing.reply is not None:
                self._move(connection, firing.id, "state = ?, not_before = NULL", (RETRYING,), (RUNNING,))
            elif firing.attempts < firing.attempts_allowed:
                again = now + retry_delay(firing.attempts)
                change = "state = ?, not_before = ?, error = ?"
                self._move(connection, firing.id, change, (RETRYING, again, LOST_IN_CRASH), (RUNNING,))
            else:
                self._end(connection, firing.id, UNKNOWN if firing.acts_by_itself else FAILED, LOST_IN_CRASH, now)
        return self._rows(connection, f"WHERE state IN {OPEN} ORDER BY seq")

    @staticmethod
    def _end_unreadable(connection: sqlite3.Connection, now: float) -> None:
        """End open rows that can't be read, as a damaged store's may be: they must not keep the others from running."""
        query = f"SELECT {COLUMNS} FROM firings WHERE state IN {OPEN}"  # noqa: S608
        for row in connection.execute(query).fetchall():
            try:
                firing_of(row)
            except (ValueError, KeyError, TypeError) as error:
                logger.error("cron.unreadable id={} {}", one_line(str(row[0])), described(error))
                change = "UPDATE firings SET state = ?, content = ?, error = ?, finished_at = ? WHERE id = ?"
                why = "its record in the inbox was damaged: what it was to do can't be read any more"
                connection.execute(change, (FAILED, NOTHING, why, now, row[0]))

    async def notices(self) -> list[Firing]:
        """Return the failed firings whose chats are to hear of it and whose notices have not begun."""
        return await self._select("WHERE id IN (SELECT firing FROM told WHERE begun = 0) ORDER BY seq")

    async def begin_notice(self, firing: Firing) -> None:
        """Note that the sending of a failure's notice begins; from then on it is not repeated."""
        await self._ask(
            lambda connection: connection.execute("UPDATE told SET begun = 1 WHERE firing = ?", (firing.id,))
        )

    async def forget_notice(self, firing: Firing) -> None:
        """Note that the chat has not heard of this failure after all, so that the reminder's next one is told."""
        await self._ask(lambda connection: connection.execute("DELETE FROM told WHERE firing = ?", (firing.id,)))

    async def start_attempt(self, firing_id: str, now: float) -> Firing:
        """accepted or retrying -> running, and count an attempt."""
        return await self._change(
            firing_id,
            "state = ?, attempts = attempts + 1, not_before = NULL, started_at = coalesce(started_at, ?)",
            (RUNNING, now),
            (ACCEPTED, RETRYING),
        )

    async def keep_reply(self, firing_id: str, reply: str, tokens: int | None) -> Firing:
        """running -> running, with the reply on disk."""
        return await self._change(
            firing_id,
            f"reply = ?, error = NULL, {_ADD_TOKENS}",
            (reply, tokens, tokens),
            (RUNNING,),
        )

    async def begin_send(self, firing_id: str, now: float) -> Firing:
        """Any open state -> running, marked as sending, and count a send."""
        return await self._change(
            firing_id,
            "state = ?, sends = sends + 1, sending = 1, not_before = NULL, started_at = coalesce(started_at, ?)",
            (RUNNING, now),
            (ACCEPTED, RUNNING, RETRYING),
        )

    async def retry(self, firing_id: str, error: str, not_before: float, tokens: int | None = None) -> Firing:
        """running -> retrying: the turn failed or the send was refused, and it is tried again at `not_before`."""
        return await self._change(
            firing_id,
            f"state = ?, sending = 0, error = ?, not_before = ?, {_ADD_TOKENS}",
            (RETRYING, error, not_before, tokens, tokens),
            (RUNNING,),
        )

    async def give_back(self, firing_id: str) -> Firing:
        """running -> accepted, as if the attempt, or the send that never left, had not begun: the gateway stops."""
        return await self._change(
            firing_id,
            "state = ?, attempts = attempts - (reply IS NULL), sends = sends - sending, sending = 0",
            (ACCEPTED,),
            (RUNNING,),
        )

    async def finish(
        self, firing_id: str, outcome: str, error: str | None, now: float, tokens: int | None = None
    ) -> tuple[Firing, bool]:
        """Open -> a last word, from the states that the table gives. Return (the firing, whether its chat is to hear of it).

        A reminder's failure is told once; the next time only after it has worked in between.
        """
        ended: tuple[Firing, bool] = await self._ask(
            lambda connection: self._end(connection, firing_id, outcome, error, now, tokens)
        )
        return ended

    def _end(
        self,
        connection: sqlite3.Connection,
        firing_id: str,
        outcome: str,
        error: str | None,
        now: float,
        tokens: int | None = None,
    ) -> tuple[Firing, bool]:
        if outcome == DELIVERED and not self._get(connection, firing_id).sending:
            raise StaleFiringError(f"{firing_id} has no send that could have been seen to its end")
        firing = self._move(
            connection,
            firing_id,
            f"state = ?, sending = 0, error = ?, not_before = NULL, finished_at = ?, {_ADD_TOKENS}",
            (outcome, error, now, tokens, tokens),
            _ENDS_FROM.get(outcome, (ACCEPTED, RUNNING, RETRYING)),
        )
        self._open_count -= 1
        tell = False
        if firing.reminder is not None and outcome in GOOD:
            connection.execute("DELETE FROM told WHERE reminder = ?", (firing.reminder,))
        elif firing.reminder is not None and outcome == FAILED:
            insert = "INSERT OR IGNORE INTO told (reminder, firing) VALUES (?, ?)"
            tell = connection.execute(insert, (firing.reminder, firing.id)).rowcount > 0
        return firing, tell

    async def prune(self, before: float) -> int:
        """Drop firings whose last word was said before an instant; return how many. One without a last word stays."""
        pruned: int = await self._ask(
            lambda connection: connection.execute("DELETE FROM firings WHERE finished_at < ?", (before,)).rowcount
        )
        return pruned

    # --- The thread and its one connection

    async def _select(self, where: str, values: tuple[Any, ...] = ()) -> list[Firing]:
        found: list[Firing] = await self._ask(lambda connection: self._rows(connection, where, values))
        return found

    async def _change(self, firing_id: str, change: str, values: tuple[Any, ...], states: tuple[str, ...]) -> Firing:
        moved: Firing = await self._ask(lambda connection: self._move(connection, firing_id, change, values, states))
        return moved

    @staticmethod
    def _rows(connection: sqlite3.Connection, where: str, values: tuple[Any, ...] = ()) -> list[Firing]:
        return [firing_of(row) for row in connection.execute(f"SELECT {COLUMNS} FROM firings {where}", values)]  # noqa: S608

    def _get(self, connection: sqlite3.Connection, firing_id: str) -> Firing:
        return self._rows(connection, "WHERE id = ?", (firing_id,))[0]

    def _move(
        self,
        connection: sqlite3.Connection,
        firing_id: str,
        change: str,
        values: tuple[Any, ...],
        states: tuple[str, ...],
    ) -> Firing:
        marks = ", ".join("?" * len(states))
        moved = connection.execute(
            f"UPDATE firings SET {change} WHERE id = ? AND state IN ({marks})",  # noqa: S608
            (*values, firing_id, *states),
        ).rowcount
        if moved != 1:
            raise StaleFiringError(f"{firing_id} is in none of the states {', '.join(states)} any more")
        return self._get(connection, firing_id)

    async def _ask[T](self, step: Step[T]) -> T:
        return await self._store.ask(step)


def open_inbox(path: str) -> sqlite3.Connection:
    """Open the store; one that is damaged is put aside first, and what can be read of it kept."""
    try:
        return _open_whole(path)
    except DamagedStoreError as damage:
        logger.error("cron.store {}", damage)
    if told := salvage.mend(path, SHAPE, time.time()):
        logger.error("cron.store {}", told)
    return _open_whole(path)


def _open_whole(path: str) -> sqlite3.Connection:
    connection = open_store(path, SHAPE)
    try:
        _keep_log(connection, True)  # a damaged store is to be put aside as it was found
        check_whole(connection, path, SHAPE)
        _keep_log(connection, False)
    except (*ERRORS, StoreError) as error:
        connection.close()
        raise store_error(path, error, SHAPE) from error
    return connection


def _keep_log(connection: sqlite3.Connection, keep: bool) -> None:
    """Choose whether closing the connection leaves the log as it is, or takes it into the store."""
    connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
