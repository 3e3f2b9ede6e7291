"""A store that SQLite can't read any more: put it aside, never delete it, and keep what can still be read.

Kept true here: the damaged file lives on under another name, as it was found; a row comes into the new store only whole,
and only if the new store's own checks take it.
"""

import os
import sqlite3

from bub_cron.errors import StoreError
from bub_cron.store import Transaction, store_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_ROWS = 10_000_000
_COMPANIONS = ("-wal", "-shm", "-journal")


def mend(path: str, stamp: str, make: "Callable[[], sqlite3.Connection]") -> StoreError:
    """Put a damaged store aside, make a new one with `make`, and copy into it what can be read.

    Returns the sentence that tells of it, as an error; raises `StoreError` if the disk doesn't allow it.
    """
    try:
        aside = put_aside(path, stamp)
        fresh = make()
        with Transaction(fresh):
            kept = keep_what_can_be_read(aside, fresh)
        fresh.close()
    except (OSError, sqlite3.Error) as error:
        raise store_error(path, error) from error
    return StoreError(
        f"{path} was damaged: it was put aside as {aside}, and {kept:,} rows that could still be read were kept;"
        " what it had beyond these is not known any more"
    )


def put_aside(path: str, stamp: str) -> str:
    """Rename a store and what SQLite keeps beside it; return its new name, `PATH.damaged-STAMP`."""
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    os.rename(path, aside)
    for companion in _COMPANIONS:
        if os.path.exists(path + companion):
            os.rename(path + companion, aside + companion)
    return aside


def keep_what_can_be_read(damaged: str, fresh: sqlite3.Connection) -> int:
    """Copy the readable rows of a damaged store into a new one of the same kind; return how many there were.

    The caller has a transaction open on `fresh`, whose own first rows give way to those that are found.
    """
    tables = [name for (name,) in fresh.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    kept = 0
    old = sqlite3.connect(damaged, isolation_level=None)
    try:
        old.execute("PRAGMA query_only=1")
        old.execute("PRAGMA cell_size_check=1")
        for table in tables:
            if not table.startswith("sqlite_"):
                kept += _copy(old, fresh, table)
    finally:
        old.close()
    return kept


def _copy(old: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> int:
    try:
        theirs = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    except sqlite3.Error:
        return 0  # not even the schema can be read
    columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})") if row[1] in theirs]
    if not columns:
        return 0
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    kept = 0
    for row in _rows(old, table, names):
        try:
            # A row of the new store's own making (the tick's) gives way to the one that was found.
            kept += fresh.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", row).rowcount  # noqa: S608
        except sqlite3.IntegrityError:
            continue  # what came out is no row of this table: its page was overwritten
    return kept


def _rows(old: sqlite3.Connection, table: str, names: str) -> "Iterator[tuple[object, ...]]":
    """Yield the rows that can be read, each looked up by itself, so that a damaged page costs only what stood on it."""
    try:
        last = old.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0  # noqa: S608
    except sqlite3.Error:
        yield from _until_damage(old, f"SELECT {names} FROM {table}")  # noqa: S608 - no rowid, or no way to its end
        return
    if not isinstance(last, int) or last > _MOST_ROWS:
        yield from _until_damage(old, f"SELECT {names} FROM {table}")  # noqa: S608 - what it says of its end is damaged
        return
    for rowid in range(1, last + 1):
        yield from _until_damage(old, f"SELECT {names} FROM {table} WHERE rowid = {rowid}")  # noqa: S608


def _until_damage(old: sqlite3.Connection, query: str) -> "Iterator[tuple[object, ...]]":
    try:
        yield from old.execute(query)
    except (sqlite3.Error, UnicodeDecodeError):
        return
