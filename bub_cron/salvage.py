"""A store that can't be read any more as what it was: put it aside, never delete it, and keep what can still be read.

Invariants:
- The damaged file lives on under another name, as it was found, with what SQLite kept beside it.
- The new store takes its place only when it is whole. From then on whoever opens the store next goes on where a killed
  process stopped (`put_in_place`); before that, the damaged one stands where it stood.
- One process at a time does that.
- A row comes into the new store only whole, and only if the new store's own checks take it.

Rows are read by SQLite, from a copy: from the front until the damage, then from the back until the damage. What lies
between two damaged places is lost; where the list of the tables is, everything is.
"""

import os
import shutil
import sqlite3
from contextlib import closing

from bub_cron.errors import StoreError
from bub_cron.store import (
    COMPANIONS,
    ERRORS,
    MENDED,
    Shape,
    Transaction,
    lock,
    open_store,
    put_in_place,
    remove_if_there,
    store_error,
)
from bub_cron.store_check import check_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    type Finish = Callable[[sqlite3.Connection], object]

_NEW, _COPY = ".mending", ".reading"


def mend(path: str, shape: Shape, now: float, finish: "Finish" = lambda _: None) -> StoreError | None:
    """Put a damaged store aside and, in its place, a new one with what can still be read.

    `finish` is called with the new one when it is filled. Returns the sentence that tells of it, as an error; None if the
    store is whole, since another process has mended it meanwhile. Raises `StoreError` if the disk doesn't allow it, and
    then the damaged store stands where it stood.
    """
    try:
        held = lock(path)
        try:
            if os.path.lexists(path + MENDED):
                put_in_place(path)  # by a mend that was interrupted
            kept = _make_new(path, shape, finish)
            if kept is None:
                return None
            os.utime(path + _NEW, (now, now))
            os.rename(path + _NEW, path + MENDED)
            os.fsync(held)
            aside = put_in_place(path)
            os.fsync(held)
        finally:
            _remove(path + _COPY)
            _remove(path + _NEW)
            os.close(held)
    except (OSError, *ERRORS) as error:
        raise store_error(path, error) from error
    return StoreError(
        f"{path} was damaged: it was put aside as {aside}, and {kept:,} rows that could still be read were kept;"
        " what it had beyond these is not known any more"
    )


def _make_new(path: str, shape: Shape, finish: "Finish") -> int | None:
    """Make the new store beside the damaged one; return how many rows could be kept, None if that one is whole."""
    copy, new = path + _COPY, path + _NEW
    _remove(copy)
    _remove(new)
    for suffix in ("", *COMPANIONS):
        # SQLite would take a log or a journal into what it opens; the damaged files are to stay as they were found.
        if os.path.exists(path + suffix):
            shutil.copy(path + suffix, copy + suffix)
    try:
        with closing(open_store(copy, shape)) as store:
            check_whole(store, copy, shape, closely=True)
            return None
    except (*ERRORS, StoreError):
        pass
    with closing(open_store(new, shape)) as fresh, Transaction(fresh):
        kept = keep_what_can_be_read(copy, fresh)
        finish(fresh)
    if os.path.exists(f"{new}-wal"):
        raise StoreError(f"{path} is damaged, and a new store can't be written beside it: the disk is full, or refuses")
    _remove(copy)
    return kept


def _remove(path: str) -> None:
    for suffix in ("", *COMPANIONS):
        remove_if_there(path + suffix)


def keep_what_can_be_read(damaged: str, fresh: sqlite3.Connection) -> int:
    """Copy the readable rows of a damaged store into a new one, in the caller's transaction; return how many."""
    tables = fresh.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall()
    with closing(sqlite3.connect(damaged, isolation_level=None)) as old:
        old.execute("PRAGMA cell_size_check=1")
        # SQLite is to read what it can of a store that was cut off, or where it can't make out one of the tables.
        old.execute("PRAGMA writable_schema=1")
        return sum(_copy(old, fresh, table) for (table,) in tables)


def _copy(old: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> int:
    """Copy the rows of a table, as far as both stores know its columns."""
    info = "SELECT name FROM pragma_table_info(?)"
    theirs = set(_until_damage(old, info, table))
    columns = [name for (name,) in fresh.execute(info, (table,)) if (name,) in theirs]
    names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    # A row that the new store was made with (the tick's) gives way to the one that is found.
    is_made_with_rows = fresh.execute(f"SELECT 1 FROM {table}").fetchone()  # noqa: S608
    kept = 0
    for backwards, conflict in ((0, "REPLACE" if is_made_with_rows else "IGNORE"), (1, "IGNORE")) if columns else ():
        old.execute(f"PRAGMA reverse_unordered_selects={backwards}")
        for row in _until_damage(old, f"SELECT {names} FROM {table} NOT INDEXED"):  # noqa: S608
            try:
                insert = f"INSERT OR {conflict} INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
                kept += fresh.execute(insert, row).rowcount
            except sqlite3.IntegrityError:
                continue  # what came out is no row of this table: its page was overwritten
    return kept


def _until_damage(old: sqlite3.Connection, query: str, *values: str) -> "Iterator[tuple[object, ...]]":
    try:
        yield from old.execute(query, values)
    except ERRORS:
        return
