"""Tell whether a store is whole, and made as its `Shape` says.

Invariants:
- A look changes no byte of the store, nor of what lies beside it.
- Everything that is asked here is right for every store that is whole: what SQLite refuses of it, it refuses for damage.

Beside store.py, since a tick that has nothing to do needs none of it.
"""

import os
import sqlite3
from urllib.parse import quote

from bub_cron.errors import DamagedStoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.store import Shape

_BUSY_SECONDS = 10.0


def look_closely(path: str, shape: "Shape") -> None:
    """Check the store at a path closely, through a connection of its own."""
    connection = sqlite3.connect(uri(path, "mode=rw"), uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        # A damaged store is put aside as it was found, so closing it leaves the log as it is.
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        check_whole(connection, path, shape, closely=True)
    finally:
        connection.close()


def uri(path: str, options: str) -> str:
    """Return the URI by which SQLite opens a file with these options, which never make it."""
    return f"file:{quote(os.fsencode(path))}?{options}"


def check_whole(connection: sqlite3.Connection, path: str, shape: "Shape", *, closely: bool = False) -> None:
    """Look through the whole store, and raise `DamagedStoreError` if anything in it is not as it was written.

    `closely` also holds each index against its table, and the words of the schema against ours.
    """
    found = connection.execute("PRAGMA integrity_check(1)" if closely else "PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedStoreError(f"{path} is damaged: {found}")
    if connection.execute("PRAGMA user_version").fetchone()[0] != shape.version:
        return  # made by an earlier version: how it was made isn't known any more
    pattern = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in shape.schema:
            pattern.execute(statement)
        if _structure(connection) != _structure(pattern) or (closely and _words(connection) != _words(pattern)):
            raise DamagedStoreError(f"{path} is damaged: its tables are not those that it was made with")
        for table in _tables(pattern):
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
