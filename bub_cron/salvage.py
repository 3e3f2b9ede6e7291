"""A store that SQLite can't read any more: put it aside, never delete it, and keep what can still be read.

Kept true here: the damaged file lives on under another name, as it was found; the new one takes its place only when it is
whole, and one process at a time does that; a row comes into the new store only whole,
and only if the new store's own checks take it.
"""

import fcntl
import os
import shutil
import sqlite3

from bub_cron.errors import StoreError
from bub_cron.store import Transaction, store_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_ROWS = 10_000_000
_NEW, _COPY = ".mending", ".reading"
_COMPANIONS = ("-wal", "-shm", "-journal")


def mend(
    path: str,
    stamp: str,
    make: "Callable[[str], sqlite3.Connection]",
    finish: "Callable[[sqlite3.Connection], object]" = lambda _: None,
) -> StoreError:
    """Put a damaged store aside and, in its place, a new one with what can still be read.

    `make` creates an empty store at a path; `finish` is called with the filled one. Returns the sentence that tells of
    it, as an error; raises `StoreError` if the disk doesn't allow it, and then the damaged store stands where it stood.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        # SQLite would take a log or a journal into what it opens; the damaged files are to stay as they were found.
        _copy_files(path, path + _COPY)
        if _is_whole(path + _COPY, make):
            return StoreError(f"{path} was damaged; another process has mended it meanwhile")
        kept = _fill(path, make, finish)
        aside = put_aside(path, stamp)
        os.replace(path + _NEW, path)
    except (OSError, sqlite3.Error) as error:
        raise store_error(path, error) from error
    finally:
        _remove(path + _COPY)
        os.close(directory)
    return StoreError(
        f"{path} was damaged: it was put aside as {aside}, and {kept:,} rows that could still be read were kept;"
        " what it had beyond these is not known any more"
    )


def _is_whole(path: str, make: "Callable[[str], sqlite3.Connection]") -> bool:
    try:
        store = make(path)
    except StoreError:
        return False
    try:
        return bool(store.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False
    finally:
        store.close()


def _fill(
    path: str, make: "Callable[[str], sqlite3.Connection]", finish: "Callable[[sqlite3.Connection], object]"
) -> int:
    """Make the new store beside the damaged one, whole before it takes its place; return how many rows it has of it."""
    _remove(path + _NEW)  # left by one that did not come to its end
    try:
        fresh = make(path + _NEW)
        try:
            with Transaction(fresh):
                kept = keep_what_can_be_read(path + _COPY, fresh)
                finish(fresh)
        finally:
            fresh.close()
    except BaseException:
        _remove(path + _NEW)
        raise
    return kept


def _copy_files(path: str, copy: str) -> None:
    _remove(copy)
    for companion in ("", *_COMPANIONS):
        if os.path.exists(path + companion):
            shutil.copyfile(path + companion, copy + companion)


def put_aside(path: str, stamp: str) -> str:
    """Give a damaged store, and what SQLite keeps beside it, a name of its own, `PATH.damaged-STAMP`; return that."""
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    os.link(path, aside)
    for companion in _COMPANIONS:
        if os.path.exists(path + companion):
            os.rename(path + companion, aside + companion)
    return aside


def _remove(path: str) -> None:
    for companion in ("", *_COMPANIONS):
        if os.path.exists(path + companion):
            os.unlink(path + companion)


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
