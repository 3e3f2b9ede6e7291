"""Open one of the two SQLite stores: private from the first instant, of a known kind and version, with full sync.

Invariants:
- A store is only ever in a directory where nobody else may write, is no symbolic link, and is refused if others may write
  it.
- A store of a newer version, or of another program, is never written to; what goes wrong is a `StoreError` that names the
  file and says what to do.
- A store comes into being whole, under its name, in one step: an empty or cut one is damaged, never "a new one".
- A store is damaged if SQLite can't read it, or if it isn't made as its `Shape` says. A statement that SQLite refuses on
  a store that is whole is a fault of ours (`StoreFaultError`), and no reason to touch the store.

Both sides use this, each for its own store. A tick that has nothing to do pays for what is imported here: the errors,
eighteen classes, are imported where one is raised.
"""

import os
import sqlite3
from errno import ELOOP

from bub_cron.paths import make_private_directory, others_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bub_cron.errors import StoreError

BUSY_SECONDS = 10.0
FAR = 253402300799  # the last second of the year 9999: no instant in a store is later
ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a statement may raise: the second where a damaged store's own words stand in SQLite's error message."""
COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a store, by its name alone."""
MENDED = ".mended"
"""What the name of a whole new store ends with that is to take the place of a damaged one."""
# The store itself can't be read.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What we asked for is wrong, unless the store isn't as it was made.
_REFUSALS = frozenset({
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISUSE,
})  # fmt: skip


class Shape:
    """What a store is: whose, of which version, and how it is made.

    The statements of `schema` make a new store; `journal` is SQLite's journal mode. `migrations` holds, for each version
    before this one, the steps that lead to the next: statements, or functions that are called with the connection. They
    make changed tables anew (`made_anew`), so that a migrated store is made of the same statements as a new one.
    """

    __slots__ = ("application_id", "journal", "migrations", "schema", "version")

    def __init__(
        self,
        application_id: int,
        version: int,
        schema: tuple[str, ...],
        journal: str,
        migrations: "Mapping[int, tuple[str | Callable[[sqlite3.Connection], object], ...]] | None" = None,
    ) -> None:
        self.application_id = application_id
        self.version = version
        self.schema = schema
        self.journal = journal
        self.migrations = migrations or {}


def open_store(path: str, shape: Shape) -> sqlite3.Connection:
    """Open a store for writing, creating it (mode 0600, in a directory of mode 0700) if it isn't there.

    The connection is in autocommit mode: use `Transaction`. Its rows are `sqlite3.Row`. Text that is not UTF-8 comes out
    with replacement characters, to be judged where it is used. An older store is brought up to date in one transaction;
    a mend that was interrupted is finished. Raises `StoreError`: `DamagedStoreError` for a damaged store,
    `StoreFaultError` for a migration that doesn't work.
    """
    try:
        make_private_directory(os.path.dirname(path))
        if os.path.lexists(path + MENDED):
            finish_mend(path)
        if not os.path.lexists(path):
            _create(path, shape)
        _look_at_header(path, shape)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, *ERRORS) as error:
        raise store_error(path, error) from error
    try:
        connection.text_factory = _text
        connection.row_factory = sqlite3.Row
        _migrate(connection, path, shape)
        connection.execute(f"PRAGMA journal_mode={shape.journal}").fetchone()
        connection.execute("PRAGMA synchronous=FULL")
    except Exception as error:
        connection.close()
        raise store_error(path, error, shape) from error
    return connection


def instant(column: str, kind: str) -> str:
    """Return the CHECK that lets a column hold an instant (epoch seconds, of SQLite's type `kind`) or NULL."""
    return f"CHECK (typeof({column}) IN ('{kind}', 'null') AND {column} BETWEEN 0 AND {FAR})"


def number(column: str, most: int) -> str:
    """Return the CHECK that lets a column hold a whole number from 0 to `most`, or NULL."""
    return f"CHECK (typeof({column}) IN ('integer', 'null') AND {column} BETWEEN 0 AND {most})"


def text(column: str) -> str:
    """Return the CHECK that lets a column hold nothing but text, or NULL."""
    return f"CHECK (typeof({column}) IN ('text', 'null'))"


def made_anew(table: str, create: str, columns: str = "", values: str = "*") -> tuple[str, ...]:
    """Return the statements of a migration that make a table anew, by `create`, and keep its rows.

    `columns` are those of the new table that get a value, all if not given; `values` are expressions over the old ones.
    The indexes of the table go with it: they are to be made again.
    """
    into = columns and f"({columns})"
    return (
        f"CREATE TEMP TABLE former AS SELECT * FROM {table}",  # noqa: S608
        f"DROP TABLE {table}",
        create,
        f"INSERT INTO {table} {into} SELECT {values} FROM former",  # noqa: S608
        "DROP TABLE former",
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _create(path: str, shape: Shape) -> None:
    """Make an empty store under another name and move it into place; if another process is quicker, let it be."""
    import fcntl

    early = f"{path}.making"
    # Ours from the first instant, so that the mode is right whatever the umask; who has the lock may write it.
    held = os.open(early, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        if os.path.lexists(path):
            remove_if_there(early)
            return
        os.ftruncate(held, 0)  # left by one that did not come to its end
        connection = sqlite3.connect(early, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}")
            for statement in shape.schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={shape.application_id}")
            connection.execute(f"PRAGMA user_version={shape.version}")
        finally:
            connection.close()
        os.fsync(held)
        for companion in COMPANIONS:
            # Left by a store that was removed: SQLite would take what is in there into this one.
            remove_if_there(path + companion)
        os.rename(early, path)
    except BaseException:
        remove_if_there(early)
        raise
    finally:
        os.close(held)


def remove_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def finish_mend(path: str) -> None:
    """Go on with a mend that was interrupted, unless another process has done so."""
    held = lock(path)
    try:
        if os.path.lexists(path + MENDED):
            put_in_place(path)
    finally:
        os.close(held)


def lock(path: str) -> int:
    """Wait until no other process mends a store of this directory; return the descriptor that holds the lock."""
    import fcntl

    held = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def put_in_place(path: str) -> str:
    """Put a damaged store aside, as `PATH.damaged-INSTANT`, and `PATH.mended` in its place; return where the damaged one is.

    The caller has the lock. It may be killed at any step, and is then called again: as long as there is a `PATH.mended`,
    the store at the path, and what lies beside it, are the damaged one's. That file's own time makes the name, so that
    it is the same each time.
    """
    import time

    is_there = os.path.exists(path)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.stat(path + MENDED).st_mtime))
    aside, number = f"{path}.damaged-{stamp}", 1
    while os.path.exists(aside) and not (is_there and os.path.samefile(aside, path)):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    if is_there and not os.path.exists(aside):
        os.link(path, aside)  # two names, so that the path is never without a store
    for suffix in COMPANIONS:
        if suffix == "-shm" or not os.path.exists(path + suffix) or os.path.getsize(path + suffix) == 0:
            remove_if_there(path + suffix)  # holds nothing that the others don't
        else:
            os.rename(path + suffix, aside + suffix)
    os.replace(path + MENDED, path)
    return aside


def _look_at_header(path: str, shape: Shape) -> None:
    """Raise `DamagedStoreError` if the file begins as no store of ours ever does; OSError if it may not be written, leads
    elsewhere, or others may write it, too.

    SQLite takes some of these bytes at their word: it would read texts as UTF-16, or refuse to write with no word of
    damage. Where a journal or a log lies beside it, the first page may be in there, and only SQLite can tell. What
    another program, or a newer version, has marked as its own is left for `_version` to refuse.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == ELOOP:
            raise _refusal(
                f"{path} is a symbolic link: set BUB_CRON_STATE to the directory that it leads to"
            ) from error
        raise
    try:
        if others_write(os.fstat(file), file):
            raise _refusal(
                f"{path} may have been written by others, so it is ignored: look at it, then chmod 600 {path}"
            )
        header = os.pread(file, 100, 0)
    finally:
        os.close(file)
    # https://www.sqlite.org/fileformat.html: versions, fractions, schema format, no auto-vacuum, UTF-8.
    is_sqlite = header[:16] == b"SQLite format 3\0" and len(header) == 100
    if is_sqlite and (
        header[68:72] != shape.application_id.to_bytes(4) or int.from_bytes(header[60:64]) > shape.version
    ):
        return
    good = (
        is_sqlite
        and header[18] in (1, 2)
        and header[19] in (1, 2)
        and header[21:24] == b"\x40\x20\x20"
        and header[44:47] == bytes(3)
        and 1 <= header[47] <= 4
        and header[52:56] == bytes(4)
        and header[56:60] == b"\0\0\0\1"
        and header[64:68] == bytes(4)
    )
    if not good and not os.path.exists(f"{path}-journal") and not os.path.exists(f"{path}-wal"):
        from bub_cron.errors import DamagedStoreError

        what = "it is empty" if not header else "its first bytes are not those of a store"
        raise DamagedStoreError(f"{path} is damaged: {what}")


def _migrate(connection: sqlite3.Connection, path: str, shape: Shape) -> None:
    if _version(connection, path, shape) == shape.version:
        return
    with Transaction(connection):
        # Asked again: another process may have migrated it while this one waited for the lock.
        for old in range(_version(connection, path, shape), shape.version):
            for step in shape.migrations[old]:
                connection.execute(step) if isinstance(step, str) else step(connection)
        connection.execute(f"PRAGMA user_version={shape.version}")


def _version(connection: sqlite3.Connection, path: str, shape: Shape) -> int:
    """Return the store's version; raise `StoreError` if it is newer, or not ours."""
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found_id != shape.application_id or found < 1:
        raise _refusal(f"{path} is not a store of bub-cron: move it away, or set BUB_CRON_STATE to another directory")
    if found > shape.version:
        raise _refusal(
            f"{path} was written by a newer bub-cron (store version {found}, this one knows {shape.version}):"
            " upgrade the bub-cron that runs here"
        )
    return found


def _refusal(text: str) -> "StoreError":
    from bub_cron.errors import StoreError

    return StoreError(text)


def store_error(path: str, error: BaseException, shape: Shape | None = None) -> "StoreError":
    """Return the `StoreError` that says in one line what an error that came up in the use of a store means.

    SQLite refuses a statement for a typo of ours, and also where a page of the schema is damaged. So the store itself is
    looked through: it is damaged only if that finds it so, else it is a `StoreFaultError`, whatever came up. Without its
    `shape`, nobody can tell.
    """
    from bub_cron.errors import DamagedStoreError, StoreError, StoreFaultError, described, one_line

    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror or error}")
    what = one_line(str(error)) if isinstance(error, ERRORS) else described(error)
    if _code(error) in _DAMAGE:
        return DamagedStoreError(f"{path} is damaged: {what}")
    if shape is None or not _is_refusal(error):
        return StoreError(f"{path}: {what}")
    from bub_cron.store_check import look_closely

    try:
        look_closely(path, shape)
    except DamagedStoreError as damage:
        return damage
    except ERRORS as found:  # what is asked there is right for every store that is whole
        is_damage = _code(found) in _DAMAGE or _is_refusal(found)
        return DamagedStoreError(f"{path} is damaged: {what}") if is_damage else StoreError(f"{path}: {found}")
    return StoreFaultError(f"{path} is whole, and yet: {what}; this is a fault of bub-cron, please report it")


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code


def _is_refusal(error: BaseException) -> bool:
    # The classes are those of Python's own refusals, before SQLite has seen the statement.
    is_ours = not isinstance(error, sqlite3.Error) or isinstance(
        error, sqlite3.ProgrammingError | sqlite3.InterfaceError
    )
    return is_ours or _code(error) in _REFUSALS


class Transaction:
    """`with Transaction(connection):` one write transaction; commits at the end, rolls back on any exception.

    BEGIN IMMEDIATE, so that two writers queue at the start rather than fail in the middle.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        # Some errors (a full disk) have rolled back already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
