"""store_check.py: a store is judged by what it is made of and by its rows, never by how its schema is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bub_cron.errors import DamagedStoreError
from bub_cron.gateway import inbox_schema
from bub_cron.store import Shape, open_store
from bub_cron.store_check import check_whole, look_closely
from bub_cron.trigger import ledger

THINGS = """
CREATE TABLE things (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- a comment
    name   TEXT NOT NULL UNIQUE,
    size   INTEGER DEFAULT 1 CHECK (size < 10) -- and another one
)
"""
OTHERS = "CREATE TABLE others (one TEXT, two TEXT, PRIMARY KEY (one, two)) WITHOUT ROWID"
INDEX = "CREATE INDEX things_size ON things (size, name) WHERE size > 2"
ONE = "CREATE TABLE one (only INTEGER PRIMARY KEY)"
ROW = "INSERT INTO one VALUES (1)"
SHAPE = Shape(77, 1, (THINGS, OTHERS, INDEX, ONE, ROW), "DELETE")


def check(path: Path, *, closely: bool = False) -> None:
    with closing(sqlite3.connect(path)) as store:
        check_whole(store, str(path), SHAPE, closely=closely)


def made(path: Path, *schema: str) -> Path:
    open_store(str(path), Shape(77, 1, schema, "DELETE")).close()
    return path


@pytest.mark.parametrize(
    "things",
    [
        THINGS.replace("-- a comment", "-- another word"),
        THINGS.replace("-- and another one", ""),
        THINGS.replace("\n    ", "\n  "),
        THINGS.replace("\n)", "\n\n  )"),
        THINGS.replace("number INTEGER PRIMARY KEY AUTOINCREMENT,", "number INTEGER\n PRIMARY KEY AUTOINCREMENT, --"),
    ],
)
@pytest.mark.parametrize("closely", [False, True])
def test_other_comments_and_white_space_are_no_damage(tmp_path: Path, things: str, closely: bool) -> None:
    assert things != THINGS
    check(made(tmp_path / "a.db", things, OTHERS, INDEX, ONE, ROW), closely=closely)


@pytest.mark.parametrize("shape", [ledger.SHAPE, inbox_schema.SHAPE], ids=["ledger", "inbox"])
def test_both_stores_are_whole_though_every_comment_in_their_schema_was_reworded(tmp_path: Path, shape: Shape) -> None:
    reworded = tuple(statement.replace("\n", "  -- in other words\n") for statement in shape.schema)
    assert reworded != shape.schema
    path = str(tmp_path / "a.db")
    open_store(path, Shape(shape.application_id, shape.version, reworded, shape.journal)).close()
    look_closely(path, shape)


@pytest.mark.parametrize(
    "schema",
    [
        (THINGS.replace("name   TEXT", "nama   TEXT"), OTHERS, INDEX.replace("name", "nama"), ONE, ROW),
        (THINGS.replace("name   TEXT", "name   TEXU"), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace(" NOT NULL", ""), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace(" UNIQUE", ""), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace("DEFAULT 1", "DEFAULT 2"), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace("PRIMARY KEY AUTOINCREMENT", ""), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace(" AUTOINCREMENT", ""), OTHERS, INDEX, ONE, ROW),
        (THINGS.replace("CHECK (size < 10)", ", more TEXT"), OTHERS, INDEX, ONE, ROW),
        (THINGS, OTHERS.replace("PRIMARY KEY (one, two)", "PRIMARY KEY (two, one)"), INDEX, ONE, ROW),
        (THINGS, OTHERS.replace(" WITHOUT ROWID", ""), INDEX, ONE, ROW),
        (THINGS, OTHERS.replace("one TEXT", "one TEXT COLLATE NOCASE"), INDEX, ONE, ROW),
        (THINGS, INDEX, ONE, ROW),
        (THINGS, OTHERS, ONE, ROW),
        (THINGS, OTHERS, INDEX.replace("size, name", "name, size"), ONE, ROW),
        (THINGS, OTHERS, INDEX.replace("size, name", "size DESC, name"), ONE, ROW),
        (THINGS, OTHERS, INDEX.replace("things_size", "things_sise"), ONE, ROW),
        (THINGS, OTHERS, INDEX.replace("CREATE INDEX", "CREATE UNIQUE INDEX"), ONE, ROW),
        (THINGS, OTHERS, INDEX.replace(" WHERE size > 2", ""), ONE, ROW),
        (THINGS, OTHERS, INDEX, ONE, ROW, "CREATE TABLE more (x)"),
        (THINGS, OTHERS, INDEX, ONE, ROW, "CREATE VIEW more AS SELECT 1"),
        (THINGS, OTHERS, INDEX, ONE),
    ],
)
def test_what_a_store_is_made_of_is_held_against_its_shape(tmp_path: Path, schema: tuple[str, ...]) -> None:
    with pytest.raises(DamagedStoreError, match=r"a\.db is damaged"):
        check(made(tmp_path / "a.db", *schema))


@pytest.mark.parametrize(
    "schema",
    [
        (THINGS.replace("size < 10", "size < 20"), OTHERS, INDEX, ONE, ROW),
        (THINGS, OTHERS, INDEX.replace("size > 2", "size > 3"), ONE, ROW),
    ],
)
def test_a_check_or_a_condition_that_is_another_one_is_only_found_closely(
    tmp_path: Path, schema: tuple[str, ...]
) -> None:
    path = made(tmp_path / "a.db", *schema)
    check(path)
    with pytest.raises(DamagedStoreError):
        check(path, closely=True)


def test_a_row_that_the_schema_does_not_take_is_damage(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", *SHAPE.schema)
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute("INSERT INTO things (name, size) VALUES ('a', 99)")
    with pytest.raises(DamagedStoreError, match="CHECK constraint failed"):
        check(path)


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", *SHAPE.schema)
    wal = Shape(77, 1, SHAPE.schema, "WAL")
    with closing(open_store(str(path), wal)) as store:
        store.execute("INSERT INTO others VALUES ('a', 'b')")
        store.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    assert len(before["a.db-wal"]) > 0
    look_closely(str(path), wal)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")} == before
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        look_closely(str(tmp_path / "b%3f?#.db"), wal)
    assert not list(tmp_path.glob("b*"))


def test_a_store_of_an_earlier_version_may_be_made_in_another_way(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", "CREATE TABLE things (x)")
    look_closely(str(path), Shape(77, 2, SHAPE.schema, "DELETE"))
