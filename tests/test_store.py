"""store.py: private from the first instant; what isn't ours, or is newer, is refused and left alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bub_cron.errors import EX_IOERR, DamagedStoreError, StoreError, StoreFaultError
from bub_cron.store import Shape, Transaction, made_anew, open_store, store_error

SCHEMA = ("CREATE TABLE things (name TEXT PRIMARY KEY)", "INSERT INTO things VALUES ('first')")
SHAPE = Shape(77, 1, SCHEMA, "DELETE")
NOBODY = 65534


def opened(path: Path, version: int = 1, journal: str = "DELETE", application_id: int = 77) -> sqlite3.Connection:
    return open_store(str(path), Shape(application_id, version, SCHEMA, journal))


def names(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as store:
        return [name for (name,) in store.execute("SELECT name FROM things ORDER BY name")]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user whom a mode of 0500 keeps from writing; root isn't kept by any."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that `unprivileged` can read and not write, outside of pytest's own private ones."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)  # noqa: S103 - that is what is tested
        yield Path(name)
        os.chmod(name, 0o700)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_store_is_private_whatever_the_umask(tmp_path: Path, mask: int, journal: str) -> None:
    path = tmp_path / "state" / "a.db"
    with umask(mask), closing(opened(path, journal=journal)) as store:
        store.execute("INSERT INTO things VALUES ('x')")
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    beside = {"a.db-wal": 0o600, "a.db-shm": 0o600} if journal == "WAL" else {}
    assert modes == {"a.db": 0o600, **beside}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_schema_is_run_once(tmp_path: Path) -> None:
    for _ in range(2):
        opened(tmp_path / "a.db").close()
    assert names(tmp_path / "a.db") == ["first"]


def test_an_empty_file_is_a_damaged_store(tmp_path: Path) -> None:
    """A store comes into being whole, so that one cut to nothing can be told from a new one."""
    (tmp_path / "a.db").touch()
    with pytest.raises(DamagedStoreError, match=r"a\.db is damaged: it is empty"):
        opened(tmp_path / "a.db")


@pytest.mark.parametrize("left", [b"", b"half of a sto"])
def test_what_was_left_by_one_that_did_not_come_to_its_end_is_made_anew(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "a.db.making").write_bytes(left)
    opened(tmp_path / "a.db").close()
    assert names(tmp_path / "a.db") == ["first"]
    assert os.listdir(tmp_path) == ["a.db"]


def test_a_store_whose_making_is_cut_short_is_not_there(tmp_path: Path) -> None:
    broken = (*SCHEMA, "CREATE TABLE things (name)")
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "a.db"), Shape(77, 1, broken, "DELETE"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"X"), (18, b"\x77"), (19, b"\x00"), (21, b"\x00"), (47, b"\x09"), (52, b"\x01"), (56, b"\0\0\0\2")],
)
def test_what_sqlite_would_take_at_its_word_is_damage(tmp_path: Path, place: int, value: bytes) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match="its first bytes are not those of a store"):
        opened(path)
    assert path.read_bytes() == content


def test_what_was_left_by_a_store_that_was_removed_is_not_taken_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(opened(path, journal="WAL")) as store:
        store.execute("INSERT INTO things VALUES ('x')")
        path.unlink()
        log = Path(f"{path}-wal").read_bytes()
    Path(f"{path}-wal").write_bytes(log)
    Path(f"{path}-journal").write_bytes(b"a journal")
    opened(path, journal="WAL").close()
    assert names(path) == ["first"]


def test_rows_have_names_and_text_that_is_not_utf8_comes_out_all_the_same(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db")) as store:
        store.execute("UPDATE things SET name = CAST(x'41ff' AS TEXT)")
        assert store.execute("SELECT name FROM things").fetchone()["name"] == "A\ufffd"


def test_it_syncs_fully_and_keeps_the_journal_asked_for(tmp_path: Path) -> None:
    for journal in ("delete", "wal"):
        with closing(opened(tmp_path / f"{journal}.db", journal=journal)) as store:
            assert store.execute("PRAGMA journal_mode").fetchone()[0] == journal
            assert store.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_many_processes_create_it_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdin.read(1)\n"
        "from bub_cron.store import Shape, open_store\n"
        f"open_store({str(tmp_path / 's' / 'a.db')!r}, Shape(77, 1, {SCHEMA!r}, 'WAL'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        process.communicate(b"x")
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert names(tmp_path / "s" / "a.db") == ["first"]


# --- What is refused


def newer(path: Path) -> str:
    opened(path, version=2).close()
    return "was written by a newer bub-cron (store version 2, this one knows 1): upgrade the bub-cron that runs here"


def foreign(path: Path) -> str:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    return "is not a store of bub-cron: move it away, or set BUB_CRON_STATE to another directory"


def marked(path: Path) -> str:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id = 5")
    return "is not a store of bub-cron: move it away"


def other_store(path: Path) -> str:
    opened(path, application_id=78).close()
    return "is not a store of bub-cron: move it away"


def text(path: Path) -> str:
    path.write_text("Dear diary,\n" * 100)
    return "is damaged: its first bytes are not those of a store"


def damaged(path: Path) -> str:
    opened(path).close()
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4096)
    return "malformed"


def directory(path: Path) -> str:
    path.mkdir()
    return "Is a directory"


@pytest.mark.parametrize("make", [newer, foreign, marked, other_store, text, damaged, directory])
def test_what_is_not_a_store_of_ours_is_refused_and_left_alone(tmp_path: Path, make: object) -> None:
    assert callable(make)
    path = tmp_path / "a.db"
    message = make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError) as caught:
        opened(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert caught.value.exit_status == EX_IOERR
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]
    assert not path.is_file() or path.read_bytes() == before


def test_a_file_where_the_directory_would_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")
    with pytest.raises(StoreError, match=r"a\.db: (File exists|Not a directory)"):
        opened(tmp_path / "state" / "a.db")
    assert (tmp_path / "state").read_text() == "mine"


def test_a_directory_that_cannot_be_written_is_refused(read_only: Path) -> None:
    with unprivileged():
        for path in (read_only / "a.db", read_only / "state" / "a.db"):
            with pytest.raises(StoreError, match=r"a\.db: Permission denied"):
                opened(path)
    assert list(read_only.iterdir()) == []


def test_a_store_that_cannot_be_written_is_refused(read_only: Path) -> None:
    read_only.chmod(0o755)
    opened(read_only / "a.db").close()
    (read_only / "a.db").chmod(0o444)
    read_only.chmod(0o555)
    before = (read_only / "a.db").read_bytes()
    with unprivileged(), pytest.raises(StoreError, match=r"a\.db: Permission denied"):
        opened(read_only / "a.db")
    assert (read_only / "a.db").read_bytes() == before


# --- Transactions


def test_a_transaction_commits_at_its_end_and_not_before(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db", journal="WAL")) as store:
        with Transaction(store):
            store.execute("INSERT INTO things VALUES ('x')")
            assert names(tmp_path / "a.db") == ["first"]
        assert names(tmp_path / "a.db") == ["first", "x"]


def test_a_transaction_rolls_back_on_any_exception(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db")) as store:
        for error in (ValueError, KeyboardInterrupt, sqlite3.OperationalError):
            with pytest.raises(error), Transaction(store):
                store.execute("INSERT INTO things VALUES ('x')")
                raise error
            assert not store.in_transaction
    assert names(tmp_path / "a.db") == ["first"]


def test_a_second_writer_waits_at_the_start(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db")) as one, closing(opened(tmp_path / "a.db")) as two:
        two.execute("PRAGMA busy_timeout = 0")
        with Transaction(one):
            with pytest.raises(sqlite3.OperationalError, match="locked"), Transaction(two):
                raise AssertionError("never reached")
            assert not two.in_transaction


def test_a_commit_that_fails_is_rolled_back(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db")) as store, closing(sqlite3.connect(tmp_path / "a.db")) as reader:
        store.execute("PRAGMA busy_timeout = 0")
        # A reader in the middle of its rows keeps a rollback journal from being committed.
        rows = reader.execute("SELECT * FROM things, (SELECT 1 UNION ALL SELECT 2)")
        rows.fetchone()
        with pytest.raises(sqlite3.OperationalError, match="locked"), Transaction(store):
            store.execute("INSERT INTO things VALUES ('x')")
        assert not store.in_transaction
        rows.close()
    assert names(tmp_path / "a.db") == ["first"]


# --- Whose fault it is


@pytest.mark.parametrize(
    "statement",
    [
        "SELEKT 1",
        "SELECT size FROM things",
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO things VALUES ('first')",
        "SELECT zeroblob(1 << 40)",
        "CREATE TABLE things (x)",
        "SELECT ?",
    ],
)
def test_a_statement_that_a_whole_store_refuses_is_a_fault_of_ours(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "a.db"
    with closing(opened(path)) as store:
        with pytest.raises(sqlite3.Error) as caught:
            store.execute(statement)
        found = store_error(str(path), caught.value, SHAPE)
        assert isinstance(found, StoreFaultError)
        assert str(path) in str(found)
        assert "\n" not in str(found)
        assert not isinstance(store_error(str(path), caught.value), DamagedStoreError), "nobody can tell"


@pytest.mark.parametrize("column", [b"nama", b"n\xff\xffe"])
def test_a_letter_that_is_lost_in_the_schema_shows_as_a_refusal_and_is_damage(tmp_path: Path, column: bytes) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    path.write_bytes(path.read_bytes().replace(b"things (name", b"things (" + column))
    with closing(opened(path)) as store:
        with pytest.raises((sqlite3.OperationalError, UnicodeDecodeError)) as caught:
            store.execute("INSERT INTO things (name) VALUES ('x')")
        assert isinstance(store_error(str(path), caught.value, SHAPE), DamagedStoreError)


def test_an_index_that_lost_a_row_shows_as_a_refusal_and_is_damage(tmp_path: Path) -> None:
    """Looking through it daily doesn't find that; looking closely does."""
    path = tmp_path / "a.db"
    with closing(opened(path)) as store:
        store.execute("PRAGMA writable_schema = 1")
        store.execute("INSERT INTO things VALUES ('second')")
        [index], [table] = (
            store.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE ?", (like,)).fetchone()
            for like in ("%auto%", "things")
        )
    content = path.read_bytes()
    cut = content.rindex(b"second", 0, table * 4096)
    path.write_bytes(content[:cut] + b"third." + content[cut + 6 :])  # in the table; the index still has "second"
    assert index != table
    with closing(opened(path)) as store:
        assert names(path) == ["first", "second"]
        with pytest.raises(sqlite3.IntegrityError) as caught:
            store.execute("INSERT INTO things VALUES ('second')")
        assert isinstance(store_error(str(path), caught.value, SHAPE), DamagedStoreError)


def test_a_disk_that_refuses_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(opened(path)) as store:
        store.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        with pytest.raises(sqlite3.DatabaseError) as caught:
            store.execute("SELECT 1")
    assert type(store_error(str(path), caught.value, SHAPE)) is StoreError
    assert type(store_error(str(path), OSError(28, "No space left on device"), SHAPE)) is StoreError
    # Nor is one that can't be looked at.
    path.unlink()
    refused = sqlite3.OperationalError("no such table: things")
    refused.sqlite_errorcode = sqlite3.SQLITE_ERROR
    assert type(store_error(str(path), refused, SHAPE)) is StoreError
    assert not path.exists()


# --- Migrations


def test_an_older_store_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    create = "CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL)"
    shape = Shape(
        77,
        3,
        (create,),
        "DELETE",
        {
            1: made_anew("things", create, "name, size", "upper(name), 2"),
            2: ("UPDATE things SET size = size + 1", lambda store: store.execute("UPDATE things SET size = size * 2")),
        },
    )
    with closing(open_store(str(path), shape)) as store:
        assert [tuple(row) for row in store.execute("SELECT name, size FROM things")] == [("FIRST", 6)]
        assert store.execute("PRAGMA user_version").fetchone()[0] == 3


def raises(_: sqlite3.Connection) -> None:
    raise KeyError("no such thing")


@pytest.mark.parametrize("last", ["INSERT INTO nowhere VALUES (1)", "INSERT INTO things VALUES ('first')", raises])
def test_a_migration_that_fails_changes_nothing_and_is_a_fault_of_ours(tmp_path: Path, last: Any) -> None:
    path = tmp_path / "a.db"
    opened(path).close()
    with pytest.raises(StoreFaultError):
        open_store(str(path), Shape(77, 2, SCHEMA, "DELETE", {1: ("INSERT INTO things VALUES ('second')", last)}))
    assert names(path) == ["first"]
    with closing(opened(path)) as store:
        assert store.execute("PRAGMA user_version").fetchone()[0] == 1
