"""One thread that owns a store's connection, so that an event loop never waits for the disk.

Invariants:
- Everybody who asks gets an answer, whatever a step, a hook or SQLite raises; nothing but `close` ends the thread.
- An answer comes when its step is committed. What is asked for while the thread is busy goes into its next transaction
  together, so that thousands of steps cost a few syncs.
- A step that raises leaves nothing behind, and its error is its caller's alone. An error of the disk takes the whole
  transaction back, and everybody in it hears of it as a `StoreError`.
- A store that is found damaged, removed or replaced is opened anew, as the first time, before anything more is stored.

It knows nothing of what is in the store.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from loguru import logger

from bub_cron.errors import BubCronError, StoreError, StoreFaultError
from bub_cron.store import COMPANIONS, ERRORS, Shape, Transaction, remove_if_there, store_error

_MOST_IN_ONE_TRANSACTION = 2000
_MOST_ANSWERS = 200  # in one round of the event loop

type Step[T] = Callable[[sqlite3.Connection], T]


class _Asked:
    """A step, the future of whoever asked for it, and what became of it."""

    __slots__ = ("error", "future", "result", "step")

    def __init__(self, step: Step[Any]) -> None:
        self.step = step
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.error: BaseException | None = None


class StoreThread:
    """A store of a `Shape` at a path, for use on one event loop. `open_` opens it, and mends it if need be, on the thread."""

    def __init__(self, path: str, shape: Shape, open_: Callable[[str], sqlite3.Connection], *, name: str) -> None:
        self._path = path
        self._shape = shape
        self._open = open_
        self._name = name
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Of the thread alone:
        self._connection: sqlite3.Connection | None = None
        self._files: list[tuple[int, int] | None] = []  # which ones they were when it was opened

    async def open(self) -> None:
        """Start the thread and open the store; raise `StoreError` if that can't be done."""
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()
        try:
            await self.ask(lambda _: None)
        except BaseException:  # also where nobody waits for it any more
            self._thread = None
            self._queue.put(None)
            raise

    async def close(self) -> None:
        """Carry out what was asked for, then close the store."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    async def ask[T](self, step: Step[T]) -> T:
        """Carry out a step in a savepoint of the next transaction; return its result once that is committed.

        Raises the `BubCronError` that the step raised; a `StoreFaultError` where SQLite refused what it asked for, or it
        raised anything else; any other `StoreError` where the disk refused, and then nothing of the transaction is stored.
        Cancelling doesn't take the step back.
        """
        if self._thread is None:
            raise StoreError(f"{self._path} is closed")
        asked = _Asked(step)
        self._queue.put(asked)
        result: T = await asked.future
        return result

    # --- On the thread

    def _serve(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while len(batch) < _MOST_IN_ONE_TRANSACTION and not self._queue.empty():
                batch.append(self._queue.get())
            is_open = batch[-1] is not None  # nothing is asked for after the end
            if asked := [one for one in batch if one is not None]:
                self._carry_out(asked)
                with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
                    asked[0].future.get_loop().call_soon_threadsafe(_tell, asked)
        self._let_go(keep_log=False)

    def _carry_out(self, batch: list[_Asked]) -> None:
        """Carry out steps in one transaction. Each stands or falls alone; the commit is common to all."""
        try:
            connection = self._connection_in_place()
            with Transaction(connection):
                for asked in batch:
                    self._carry_out_one(connection, asked)
        except BaseException as error:
            failure = store_error(self._path, error, self._shape)
            for asked in batch:
                asked.error = failure
            # A disk may take the next one. Else the next one, which comes at once where somebody insists, opens (and
            # mends) the store anew.
            if type(failure) is not StoreError:
                self._let_go(keep_log=True)

    def _carry_out_one(self, connection: sqlite3.Connection, asked: _Asked) -> None:
        connection.execute("SAVEPOINT step")
        try:
            asked.result = asked.step(connection)
        except BaseException as error:
            is_own = isinstance(error, BubCronError) and not isinstance(error, StoreError)
            told = error if is_own else store_error(self._path, error, self._shape)
            if not is_own and not isinstance(told, StoreFaultError):
                raise told from error  # everybody is to hear of it
            asked.error = told
            connection.execute("ROLLBACK TO step")
        connection.execute("RELEASE step")

    def _connection_in_place(self) -> sqlite3.Connection:
        """Return the connection to the store at the path, opening it anew if need be."""
        if self._connection is not None and _file(self._path) != self._files[0]:
            logger.error("cron.store {} was removed or replaced: it is opened anew", self._path)
            self._leave(self._connection)
        if self._connection is None:
            self._connection = self._open(self._path)
            self._connection.execute("PRAGMA user_version").fetchone()  # from now on SQLite's own files are beside it
            self._files = [_file(self._path + suffix) for suffix in ("", *COMPANIONS)]
        return self._connection

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Let go of a store that is elsewhere now, with all that it has, and leave nothing of it at the path."""
        with suppress(*ERRORS):
            connection.execute("PRAGMA busy_timeout=1000")  # there may be readers
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._let_go(keep_log=True)
        for suffix, file in zip(COMPANIONS, self._files[1:], strict=True):
            # SQLite would take what is in there into the store that is at the path now.
            if file is not None and _file(self._path + suffix) == file:
                remove_if_there(self._path + suffix)

    def _let_go(self, *, keep_log: bool) -> None:
        """Close the connection; a log that is kept stays as it is, else SQLite takes it into the store."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):  # closed already
                connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_log)
            connection.close()


def _file(path: str) -> tuple[int, int] | None:
    """Return which file is at a path, None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _tell(batch: list[_Asked]) -> None:
    """Give the answers; of very many, some in each round of the event loop."""
    for asked in batch[:_MOST_ANSWERS]:
        if asked.future.done():
            continue  # whoever asked has gone; the step is stored all the same
        if asked.error is not None:
            asked.future.set_exception(asked.error)
        else:
            asked.future.set_result(asked.result)
    if rest := batch[_MOST_ANSWERS:]:
        asyncio.get_running_loop().call_soon(_tell, rest)
