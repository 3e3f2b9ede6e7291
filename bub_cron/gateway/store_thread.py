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

from bub_cron.errors import StoreError, StoreFaultError
from bub_cron.store import COMPANIONS, ERRORS, Shape, Transaction, remove_if_there, store_error

_MOST_IN_ONE_TRANSACTION = 2000

type Step[T] = Callable[[sqlite3.Connection], T]
type Hook = Callable[[sqlite3.Connection], object]


class _Asked:
    """A step, the future of whoever asked for it, and what became of it."""

    __slots__ = ("error", "future", "result", "step")

    def __init__(self, step: Step[Any], future: asyncio.Future[Any]) -> None:
        self.step = step
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class StoreThread:
    """A store of a `Shape` at a path, for use on one event loop.

    `open_` opens it, and mends it if need be; it is called on the thread. The hooks are called on the thread too, in a
    transaction, before a step: `load` whenever what steps keep in memory about the store may not be what is on disk (at
    first, after an error, after it was opened anew), `on_reopen` once for each time that the store was opened anew.
    """

    def __init__(
        self,
        path: str,
        shape: Shape,
        open_: Callable[[str], sqlite3.Connection],
        *,
        name: str,
        load: Hook = lambda _: None,
        on_reopen: Hook = lambda _: None,
    ) -> None:
        self._path = path
        self._shape = shape
        self._open = open_
        self._name = name
        self._load = load
        self._on_reopen = on_reopen
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Of the thread alone:
        self._connection: sqlite3.Connection | None = None
        self._files: list[tuple[int, int] | None] = []  # which ones they were when it was opened
        self._is_loaded = False
        self._is_reopened = False
        self._was_moved = False

    async def start(self) -> None:
        """Open the store and start the thread; raise `StoreError` if that can't be done."""
        opened = _Asked(lambda _: None, asyncio.get_running_loop().create_future())
        self._thread = threading.Thread(target=self._serve, args=(opened,), name=self._name, daemon=True)
        self._thread.start()
        try:
            await opened.future
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

        Raises what the step raised; a `StoreFaultError` where SQLite refused what it asked for; any other `StoreError`
        where the disk did, and then nothing of the transaction is stored. Cancelling doesn't take the step back.
        """
        if self._thread is None:
            raise StoreError(f"{self._path} is closed")
        asked = _Asked(step, asyncio.get_running_loop().create_future())
        self._queue.put(asked)
        result: T = await asked.future
        return result

    async def is_in_place(self) -> bool:
        """Return False if the store was removed or replaced since this was last asked; it has been opened anew by now."""

        def look(_: sqlite3.Connection) -> bool:
            was_moved, self._was_moved = self._was_moved, False
            return not was_moved

        return await self.ask(look)

    # --- On the thread

    def _serve(self, opened: _Asked) -> None:
        try:
            self._open_anew()
        except BaseException as error:
            opened.error = self._failure(error)
        _tell([opened])
        if opened.error is not None:
            return
        more = True
        while more:
            batch = [self._queue.get()]
            while len(batch) < _MOST_IN_ONE_TRANSACTION and not self._queue.empty():
                batch.append(self._queue.get())
            more = batch[-1] is not None  # nothing is asked for after the end
            asked = [one for one in batch if one is not None]
            self._carry_out(asked)
            _tell(asked)
        self._let_go(keep_log=False)

    def _carry_out(self, batch: list[_Asked]) -> None:
        """Carry out steps in one transaction. Each stands or falls alone; the commit is common to all."""
        try:
            connection = self._connection_in_place()
            with Transaction(connection):
                if self._is_reopened:
                    self._on_reopen(connection)
                for asked in batch:
                    self._carry_out_one(connection, asked)
            self._is_reopened = False
        except BaseException as error:
            self._is_loaded = False
            failure = self._failure(error)
            for asked in batch:
                asked.error = failure
            # A disk may take the next one. Else the next one, which comes at once where somebody insists, opens (and
            # mends) the store anew.
            if type(failure) is not StoreError:
                self._let_go(keep_log=True)

    def _carry_out_one(self, connection: sqlite3.Connection, asked: _Asked) -> None:
        connection.execute("SAVEPOINT step")
        try:
            if not self._is_loaded:
                self._load(connection)
                self._is_loaded = True
            asked.result = asked.step(connection)
            connection.execute("RELEASE step")
        except BaseException as error:
            self._is_loaded = False
            asked.error = self._own_error(error)
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")

    def _own_error(self, error: BaseException) -> Exception:
        """Return what a step's caller is told of its error; raise what everybody is to hear of."""
        if isinstance(error, StoreError | sqlite3.Error | UnicodeDecodeError):
            found = self._failure(error)
            if isinstance(found, StoreFaultError):
                return found
            raise found from error
        # Neither a loop nor a future can take the others: a SystemExit would end the gateway.
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            return error
        return self._fault(error)

    def _failure(self, error: BaseException) -> StoreError:
        if isinstance(error, StoreError | OSError | sqlite3.Error | UnicodeDecodeError):
            return store_error(self._path, error, self._shape)
        return self._fault(error)

    def _fault(self, error: BaseException) -> StoreFaultError:
        fault = StoreFaultError(f"{self._path} is whole, and yet: {type(error).__name__}; this is a fault of bub-cron")
        fault.__cause__ = error
        return fault

    def _connection_in_place(self) -> sqlite3.Connection:
        """Return the connection to the store at the path, opening it anew if need be."""
        if self._connection is not None and _file(self._path) != self._files[0]:
            logger.error("cron.store {} was removed or replaced: it is opened anew", self._path)
            self._was_moved = True
            self._leave(self._connection)
        return self._connection or self._open_anew()

    def _open_anew(self) -> sqlite3.Connection:
        self._connection = self._open(self._path)
        self._is_reopened = bool(self._files)
        self._is_loaded = False
        self._connection.execute("PRAGMA user_version").fetchone()  # what SQLite keeps beside it is there from now on
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
    # Where the loop is closed, nobody waits any more.
    with suppress(RuntimeError):
        for asked in batch[:1]:
            asked.future.get_loop().call_soon_threadsafe(_resolve, batch)


def _resolve(batch: list[_Asked]) -> None:
    for asked in batch:
        if asked.future.done():
            continue  # whoever asked has gone; the step is stored all the same
        if asked.error is not None:
            asked.future.set_exception(asked.error)
        else:
            asked.future.set_result(asked.result)
