"""Open one of the two SQLite stores: private from the first instant, of a known kind and version, with full sync.

Kept true here: a store of a newer version, of another program, or one that SQLite can't read is never written to; what
goes wrong is a `StoreError` that names the file and says what to do. Both sides use this, each for its own store.
"""

import os
import sqlite3

from bub_cron.errors import DamagedStoreError, StoreError
from bub_cron.paths import make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BUSY_SECONDS = 10.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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

    The connection is in autocommit mode: use `Transaction`. The statements of `schema` are run once, for an empty file; `journal` is
    SQLite's journal mode; `migrations` holds, for each version before this one, the statements that lead to the next: an
    older store is brought up to date in one transaction. Raises `StoreError`, for a damaged store `DamagedStoreError`.
    """
    try:
        make_private_directory(os.path.dirname(path))
        # Created before SQLite does it, so that the file is private from its first instant, whatever the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise store_error(path, error) from error
    try:
        _check_or_create(connection, path, application_id, version, schema, migrations or {})
        connection.execute(f"PRAGMA journal_mode={journal}").fetchone()
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error as error:
        connection.close()
        raise store_error(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _check_or_create(
    connection: sqlite3.Connection,
    path: str,
    application_id: int,
    version: int,
    schema: tuple[str, ...],
    migrations: "Mapping[int, tuple[str, ...]]",
) -> None:
    if _version(connection, path, application_id, version) == version:
        return
    with Transaction(connection):
        # Asked again: another process may have created or migrated it while this one waited for the lock.
        found = _version(connection, path, application_id, version)
        if found == 0:
            steps = schema
        else:
            steps = tuple(statement for old in range(found, version) for statement in migrations[old])
        for statement in steps:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={application_id}")
        connection.execute(f"PRAGMA user_version={version}")


def _version(connection: sqlite3.Connection, path: str, application_id: int, version: int) -> int:
    """Return the store's version, 0 for an empty file; raise `StoreError` if it is newer, or not ours."""
    found_id = connection.execute("PRAGMA application_id").fetchone()[0]
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found_id == application_id and found > version:
        raise StoreError(
            f"{path} was written by a newer bub-cron (store version {found}, this one knows {version}):"
            " upgrade the bub-cron that runs here"
        )
    if found_id == application_id and found > 0:
        return found
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if found_id == found == 0 and empty:
        return 0
    raise StoreError(f"{path} is not a store of bub-cron: move it away, or set BUB_CRON_STATE to another directory")


def store_error(path: str, error: Exception) -> StoreError:
    """Return the `StoreError` that says in one line what an operating system or SQLite error means for a store."""
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error.strerror or error}")
    # The primary code is in the low byte.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
        return DamagedStoreError(f"{path} is damaged: {error}")
    return StoreError(f"{path}: {error}")


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
            except sqlite3.Error:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        # Some errors (a full disk) have rolled back already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
