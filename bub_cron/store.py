"""Open one of the two SQLite stores: private from the first instant, of a known kind and version, with full sync.

Invariants:
- A store is only ever in a directory where nobody else may write, is no symbolic link, and is refused if others may write
  it.
- A store of a newer version, or of another program, is never written to; what goes wrong is a `StoreError` that names the
  file and says what to do.
- A store comes into being whole, under its name, in one step: an empty or cut one is damaged, never "a new one".
- A store is damaged if SQLite can't read it, or if it isn't made as its `Shape` says. A statement that SQLite refuses on
  a store that is whole is a fault of ours (`StoreFaultError`), and no reason to touch the store.

Both sides use this, each for its own store. A tick that has nothing to do pays for what is imported here.
"""

import os
import sqlite3
from errno import ELOOP

from bub_cron.errors import DamagedStoreError, StoreError, StoreFaultError, one_line
from bub_cron.paths import make_private_directory, others_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BUSY_SECONDS = 10.0
FAR = 253402300799  # the last second of the year 9999: no instant in a store is later
ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a statement may raise: the second where a damaged store's own words stand in SQLite's error message."""
COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a store, by its name alone."""
MENDED = ".mended"
"""The name, after the store's own, of the whole new store that is to take a damaged one's place: see salvage.py."""
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
            from bub_cron import salvage

            salvage.finish(path)
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
    except BaseException as error:
        connection.close()
        if isinstance(error, ERRORS):
            raise store_error(path, error, shape) from error
        raise
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


def check_whole(connection: sqlite3.Connection, path: str, shape: Shape, *, closely: bool = False) -> None:
    """Look through the whole store, and raise `DamagedStoreError` if anything in it is not as it was written.

    `closely` also holds each index against its table, and the words of the schema against ours.
    """
    found = connection.execute("PRAGMA integrity_check(1)" if closely else "PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedStoreError(f"{path} is damaged: {found}")
    pattern = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in shape.schema:
            pattern.execute(statement)
        is_same = _structure(connection) == _structure(pattern)
        if is_same != (connection.execute("PRAGMA user_version").fetchone()[0] == shape.version):
            raise DamagedStoreError(f"{path} is damaged: its tables are not those that it was made with")
        if is_same and closely and _words(connection) != _words(pattern):
            raise DamagedStoreError(f"{path} is damaged: what it says of its tables is not what it was made with")
        for table in _tables(pattern) if is_same else ():
            any_row = f"SELECT 1 FROM {table} LIMIT 1"  # noqa: S608
            if pattern.execute(any_row).fetchone() and not connection.execute(any_row).fetchone():
                raise DamagedStoreError(f"{path} is damaged: the rows that it was made with have gone")
    finally:
        pattern.close()


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [name for (name,) in connection.execute(query)]


def _structure(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Return what a store is made of: columns with types, defaults, NOT NULL and keys, and indexes with their columns.

    Not the text of its schema: comments and white space may change from one release to the next. The CHECKs and the
    conditions of partial indexes can't be seen so, and needn't be: one that has lost a letter can't be parsed, which SQLite
    reports as damage by itself; or it refuses a row that is there, which `quick_check` finds; or it refuses one that we
    write, which `store_error` looks into closely; or it takes more than it did, and what we write is right without it.
    An index whose condition is not the one that we ask for is not used.
    """
    found = connection.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY type, name").fetchall()
    for table in _tables(connection):
        found += connection.execute("SELECT * FROM pragma_table_xinfo(?)", (table,))
        # What index_xinfo says of a rowid tells a table that has one from one WITHOUT ROWID.
        found += connection.execute(
            'SELECT i.name, i."unique", i.origin, i.partial, c.*'
            " FROM pragma_index_list(?) i, pragma_index_xinfo(i.name) c ORDER BY i.name, c.seqno",
            (table,),
        )
    return list(map(tuple, found))


def _words(connection: sqlite3.Connection) -> list[str]:
    """Return the text of a store's schema without its comments and white space."""
    texts = connection.execute("SELECT coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
    return ["".join("".join(line.partition("--")[0].split()) for line in text.split("\n")) for (text,) in texts]


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
            raise StoreError(
                f"{path} is a symbolic link: set BUB_CRON_STATE to the directory that it leads to"
            ) from error
        raise
    try:
        if others_write(os.fstat(file), file):
            raise StoreError(
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
        raise StoreError(f"{path} is not a store of bub-cron: move it away, or set BUB_CRON_STATE to another directory")
    if found > shape.version:
        raise StoreError(
            f"{path} was written by a newer bub-cron (store version {found}, this one knows {shape.version}):"
            " upgrade the bub-cron that runs here"
        )
    return found


def store_error(path: str, error: Exception, shape: Shape | None = None) -> StoreError:
    """Return the `StoreError` that says in one line what an error of `ERRORS`, or an OSError, means for a store.

    SQLite refuses a statement for a typo of ours, and also where a page of the schema is damaged. So the store itself is
    looked through: it is damaged only if that finds it so, else it is a `StoreFaultError`. Without its `shape`, nobody
    can tell.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror or error}")
    what = one_line(str(error))
    if _code(error) in _DAMAGE:
        return DamagedStoreError(f"{path} is damaged: {what}")
    if shape is None or not _is_refusal(error):
        return StoreError(f"{path}: {what}")
    try:
        _look_closely(path, shape)
    except DamagedStoreError as damage:
        return damage
    except ERRORS as found:  # what is asked there is right for every store that is whole
        is_damage = _code(found) in _DAMAGE or _is_refusal(found)
        return DamagedStoreError(f"{path} is damaged: {what}") if is_damage else StoreError(f"{path}: {found}")
    return StoreFaultError(f"{path} is whole, and yet: {what}; this is a fault of bub-cron, please report it")


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code


def _is_refusal(error: Exception) -> bool:
    # The last two are Python's own, before SQLite has seen the statement.
    kinds = (UnicodeDecodeError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
    return _code(error) in _REFUSALS or isinstance(error, kinds)


def _look_closely(path: str, shape: Shape) -> None:
    connection = sqlite3.connect(uri(path, "mode=rw"), uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        # A damaged store is put aside as it was found, so closing it leaves the log as it is.
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        check_whole(connection, path, shape, closely=True)
    finally:
        connection.close()


def uri(path: str, options: str) -> str:
    """Return the URI by which SQLite opens a file with these options, which never make it."""
    return f"file:{path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?{options}"


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
