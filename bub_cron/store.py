"""Open one of the two SQLite stores: private from the first instant, of a known kind and version, with full sync.

Kept true here:
- A store is only ever in a directory where nobody else may write, is no symbolic link, and is refused if others may write
  it: what it says is done.
- A store of a newer version, or of another program, is never written to; what goes wrong is a `StoreError` that names the
  file and says what to do.
- A store comes into being whole, under its name, in one step: an empty or cut one is damaged, never "a new one".
- What SQLite says of the store itself, rather than of the disk, is a `DamagedStoreError`: all that is ever asked of it is
  written in this package, so a store of ours that doesn't understand it is not as it was.

Both sides use this, each for its own store.
"""

import os
import sqlite3
from errno import ELOOP

from bub_cron.errors import DamagedStoreError, StoreError, one_line
from bub_cron.paths import make_private_directory, others_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BUSY_SECONDS = 10.0
FAR = 253402300799  # the last second of the year 9999: no instant in a store is later
ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a statement may raise: the second where a damaged store's own words stand in SQLite's error message."""
_DAMAGE = frozenset({
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
    # Of our own statements, these only come true in a store whose tables or rows are not as they were made.
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
})  # fmt: skip


def open_store(
    path: str,
    *,
    application_id: int,
    version: int,
    schema: tuple[str, ...],
    journal: str,
    migrations: "Mapping[int, tuple[str, ...]] | None" = None,
) -> sqlite3.Connection:
    """Open a store for writing, creating it (mode 0600, in a directory of mode 0700) if it isn't there.

    The connection is in autocommit mode: use `Transaction`. Text that is not UTF-8 comes out with replacement characters,
    to be judged where it is used. The statements of `schema` make a new store; `journal` is SQLite's journal mode;
    `migrations` holds, for each version before this one, the statements that lead to the next: an older store is brought
    up to date in one transaction. Raises `StoreError`, for a damaged store `DamagedStoreError`.
    """
    try:
        make_private_directory(os.path.dirname(path))
        if not os.path.lexists(path):
            _create(path, application_id, version, schema)
        _look_at_header(path, application_id, version)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, *ERRORS) as error:
        raise store_error(path, error) from error
    try:
        connection.text_factory = _text
        _migrate(connection, path, application_id, version, migrations or {})
        connection.execute(f"PRAGMA journal_mode={journal}").fetchone()
        connection.execute("PRAGMA synchronous=FULL")
    except (*ERRORS, StoreError) as error:
        connection.close()
        raise store_error(path, error) from error
    return connection


def instant(column: str, kind: str = "integer") -> str:
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
    """
    into = columns and f"({columns})"
    return (
        f"CREATE TEMP TABLE former AS SELECT * FROM {table}",  # noqa: S608
        f"DROP TABLE {table}",
        create,
        f"INSERT INTO {table} {into} SELECT {values} FROM former",  # noqa: S608
        "DROP TABLE former",
    )


def check_whole(connection: sqlite3.Connection, path: str, schema: tuple[str, ...]) -> None:
    """Look through the whole store, and raise `DamagedStoreError` if anything in it is not as it was written.

    SQLite's own check holds the rows against the schema, which itself may have lost a letter.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedStoreError(f"{path} is damaged: {found}")
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    pattern = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in schema:
            pattern.execute(statement)
        if connection.execute(query).fetchall() != pattern.execute(query).fetchall():
            raise DamagedStoreError(f"{path} is damaged: its tables are not those that it was made with")
    finally:
        pattern.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _create(path: str, application_id: int, version: int, schema: tuple[str, ...]) -> None:
    """Make an empty store under another name and move it into place; if another process is quicker, let it be."""
    import fcntl

    early = f"{path}.making"
    # Ours from the first instant, so that the mode is right whatever the umask; who has the lock may write it.
    held = os.open(early, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        if os.path.lexists(path):
            _remove_if_there(early)
            return
        os.ftruncate(held, 0)  # left by one that did not come to its end
        connection = sqlite3.connect(early, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}")
            for statement in schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={application_id}")
            connection.execute(f"PRAGMA user_version={version}")
        finally:
            connection.close()
        os.fsync(held)
        os.rename(early, path)
    except BaseException:
        _remove_if_there(early)
        raise
    finally:
        os.close(held)


def _remove_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _look_at_header(path: str, application_id: int, version: int) -> None:
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
            raise StoreError(
                f"{path} is a symbolic link: set BUB_CRON_STATE to the directory that it leads to"
            ) from error
        raise
    try:
        if others_write(os.fstat(file), file):
            raise StoreError(
                f"{path} may have been written by others, so what it says is not believed: look at it, then chmod 600 {path}"
            )
        header = os.pread(file, 100, 0)
    finally:
        os.close(file)
    # https://www.sqlite.org/fileformat.html: versions, fractions, schema format, no auto-vacuum, UTF-8.
    is_sqlite = header[:16] == b"SQLite format 3\0" and len(header) == 100
    if is_sqlite and (header[68:72] != application_id.to_bytes(4) or int.from_bytes(header[60:64]) > version):
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
        what = "it is empty" if not header else "its first bytes are not those of a store"
        raise DamagedStoreError(f"{path} is damaged: {what}")


def _migrate(
    connection: sqlite3.Connection,
    path: str,
    application_id: int,
    version: int,
    migrations: "Mapping[int, tuple[str, ...]]",
) -> None:
    if _version(connection, path, application_id, version) == version:
        return
    with Transaction(connection):
        # Asked again: another process may have migrated it while this one waited for the lock.
        for old in range(_version(connection, path, application_id, version), version):
            for statement in migrations[old]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")


def _version(connection: sqlite3.Connection, path: str, application_id: int, version: int) -> int:
    """Return the store's version; raise `StoreError` if it is newer, or not ours."""
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found_id != application_id or found < 1:
        raise StoreError(f"{path} is not a store of bub-cron: move it away, or set BUB_CRON_STATE to another directory")
    if found > version:
        raise StoreError(
            f"{path} was written by a newer bub-cron (store version {found}, this one knows {version}):"
            " upgrade the bub-cron that runs here"
        )
    return found


def store_error(path: str, error: Exception) -> StoreError:
    """Return the `StoreError` that says in one line what an error of `ERRORS`, or an OSError, means for a store."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, UnicodeDecodeError):
        return DamagedStoreError(f"{path} is damaged: what it says of its tables is not UTF-8")
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror or error}")
    # The primary code is in the low byte.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
        return DamagedStoreError(f"{path} is damaged: {one_line(str(error))}")
    return StoreError(f"{path}: {one_line(str(error))}")


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
