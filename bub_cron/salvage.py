"""A store that can't be read any more as what it was: put it aside, never delete it, and keep what can still be read.

Kept true here: the damaged file lives on under another name, as it was found; the new one takes its place only when it is
whole, and one process at a time does that; a row comes into the new store only whole, and only if the new store's own
checks take it.

Rows are found by SQLite's own way through the tables, on a copy. Where the first page is what was damaged, the copy gets
a new store's: the schema is always the same, and so are the pages at which its tables begin.
"""

import fcntl
import os
import shutil
import sqlite3

from bub_cron.errors import StoreError
from bub_cron.store import ERRORS, Transaction, store_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NEW, _COPY = ".mending", ".reading"
_COMPANIONS = ("-wal", "-shm", "-journal")
_ONE_BY_ONE = 1000  # rows looked for each by itself after a damaged place: more than a page holds
_LARGEST = 1 << 62
_PAGE_SIZE = 4096  # of every store that SQLite makes today
_LEAP = 1_000_000  # no two rows of ours lie further apart, but for what was dropped before the first


def mend(
    path: str,
    stamp: str,
    make: "Callable[[str], sqlite3.Connection]",
    finish: "Callable[[sqlite3.Connection], object]" = lambda _: None,
) -> StoreError | None:
    """Put a damaged store aside and, in its place, a new one with what can still be read.

    `make` creates an empty store at a path; `finish` is called with the filled one. Returns the sentence that tells of
    it, as an error; None if the store is whole, since another process has mended it meanwhile. Raises `StoreError` if
    the disk doesn't allow it, and then the damaged store stands where it stood.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _remove(path + _NEW)  # left by one that did not come to its end
        # SQLite would take a log or a journal into what it opens; the damaged files are to stay as they were found.
        _copy_files(path, path + _COPY)
        kept = _fill(path, make, finish)
        if kept is None:
            return None
        aside = put_aside(path, stamp)
        os.replace(path + _NEW, path)
    except (OSError, *ERRORS) as error:
        raise store_error(path, error) from error
    finally:
        _remove(path + _COPY)
        _remove(path + _NEW)
        os.close(directory)
    return StoreError(
        f"{path} was damaged: it was put aside as {aside}, and {kept:,} rows that could still be read were kept;"
        " what it had beyond these is not known any more"
    )


def finish(path: str) -> None:
    """Finish a mend that was interrupted."""
    raise NotImplementedError(path)


def _copy_files(path: str, copy: str) -> None:
    _remove(copy)
    for companion in ("", *_COMPANIONS):
        if os.path.exists(path + companion):
            shutil.copyfile(path + companion, copy + companion)


def _remove(path: str) -> None:
    for companion in ("", *_COMPANIONS):
        if os.path.exists(path + companion):
            os.unlink(path + companion)


def put_aside(path: str, stamp: str) -> str:
    """Give a damaged store, and what SQLite keeps beside it, a name of its own, `PATH.damaged-STAMP`; return that."""
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    os.link(path, aside)
    for companion in _COMPANIONS:
        if not os.path.exists(path + companion):
            continue
        if companion == "-shm" or os.path.getsize(path + companion) == 0:
            os.unlink(path + companion)  # holds nothing that the others don't
        else:
            os.rename(path + companion, aside + companion)
    return aside


def _fill(
    path: str, make: "Callable[[str], sqlite3.Connection]", finish: "Callable[[sqlite3.Connection], object]"
) -> int | None:
    """Make the new store beside the damaged one, with what the copy of that one has; return how many rows that is.

    Returns None if the copy is whole.
    """
    fresh = make(path + _NEW)
    try:
        if _is_whole(path + _COPY, fresh, make):
            return None
        with Transaction(fresh):
            kept = keep_what_can_be_read(path + _COPY, fresh)
            if _schema(path + _COPY) != _schema_of(fresh):
                _give_first_page(path + _COPY, path + _NEW)
                kept = max(kept, keep_what_can_be_read(path + _COPY, fresh))
            finish(fresh)
    finally:
        fresh.close()
    if os.path.exists(f"{path}{_NEW}-wal"):
        raise StoreError(f"{path} is damaged, and a new store can't be written beside it: the disk is full, or refuses")
    return kept


def _is_whole(path: str, fresh: sqlite3.Connection, make: "Callable[[str], sqlite3.Connection]") -> bool:
    try:
        store = make(path)
    except StoreError:
        return False
    try:
        sound = store.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
    except ERRORS:
        return False
    finally:
        store.close()
    # The check holds the rows against the schema; the schema itself may have lost a letter.
    return sound and _schema(path) == _schema_of(fresh)


def _schema(path: str) -> list[tuple[object, ...]]:
    """Return what a store says of its tables, [] if that can't be read."""
    store = sqlite3.connect(path, isolation_level=None)
    try:
        return _schema_of(store)
    except ERRORS:
        return []
    finally:
        store.close()


def _schema_of(store: sqlite3.Connection) -> list[tuple[object, ...]]:
    query = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master ORDER BY name"
    return [tuple(row) for row in store.execute(query)]


def _give_first_page(copy: str, fresh: str) -> None:
    """Write a new store's first page over a copy's, with the copy's own number of pages and nothing on its free list."""
    with open(fresh, "rb") as file:
        page = bytearray(file.read(_PAGE_SIZE))
    with open(copy, "r+b") as file:
        pages = max(1, os.fstat(file.fileno()).st_size // _PAGE_SIZE)
        page[28:32] = pages.to_bytes(4)
        page[32:40] = bytes(8)
        file.write(page)


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
    except ERRORS:
        return 0  # not even the schema can be read
    columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})") if row[1] in theirs]
    if not columns:
        return 0
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    kept = 0
    for row in _rows(old, table, names) if _has_rowid(fresh, table) else _until_damage(old, table, names):
        try:
            # A row of the new store's own making (the tick's) gives way to the one that was found.
            kept += fresh.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", row).rowcount  # noqa: S608
        except sqlite3.IntegrityError:
            continue  # what came out is no row of this table: its page was overwritten
    return kept


def _has_rowid(fresh: sqlite3.Connection, table: str) -> bool:
    try:
        fresh.execute(f"SELECT rowid FROM {table} LIMIT 0")  # noqa: S608
    except sqlite3.OperationalError:
        return False
    return True


def _rows(old: sqlite3.Connection, table: str, names: str) -> "Iterator[tuple[object, ...]]":
    """Yield the rows that can be read, going on behind each damaged place."""
    query = f"SELECT rowid, {names} FROM {table} WHERE rowid >= ? ORDER BY rowid"  # noqa: S608
    place: int | None = 0
    first = True
    while place is not None:
        try:
            for number, *row in old.execute(query, (place,)):
                if number < place or (number > place + _LEAP and not first):
                    break  # the number itself is damaged
                first = False
                place = number + 1
                yield tuple(row)
            else:
                return
        except ERRORS:
            first = False  # on from here, numbers follow each other
        place = _behind_damage(old, table, place)


def _behind_damage(old: sqlite3.Connection, table: str, place: int) -> int | None:
    """Return the next row number after `place` from which on rows can be read; None if there is none.

    One by one at first; then in strides that grow, and back to where the damage ends.
    """
    for number in range(place + 1, place + _ONE_BY_ONE):
        if _can_be_read(old, table, number):
            return number
    low, stride = place + _ONE_BY_ONE, 1
    while not _can_be_read(old, table, low + stride):
        stride *= 2
        if low + stride > _LARGEST:
            return None
    high = low + stride
    while low + 1 < high:
        middle = (low + high) // 2
        if _can_be_read(old, table, middle):
            high = middle
        else:
            low = middle
    return high


def _can_be_read(old: sqlite3.Connection, table: str, place: int) -> bool:
    try:
        query = f"SELECT rowid, * FROM {table} WHERE rowid >= ? ORDER BY rowid LIMIT 1"  # noqa: S608
        row = old.execute(query, (place,)).fetchone()
    except ERRORS:
        return False
    return row is None or place <= row[0] <= place + _LEAP


def _until_damage(old: sqlite3.Connection, table: str, names: str) -> "Iterator[tuple[object, ...]]":
    try:
        yield from old.execute(f"SELECT {names} FROM {table}")  # noqa: S608
    except ERRORS:
        return
