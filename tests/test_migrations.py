"""Stores that earlier versions wrote, kept as files in tests/stores, are brought up to date with all that they hold."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_bub import open_inbox, run
from fake_gateway import Place, at

from bub_cron.errors import DamagedStoreError, StoreFaultError
from bub_cron.gateway import inbox_schema
from bub_cron.gateway.settling import recover
from bub_cron.states import DUE, LEDGER_MOVES, all_states
from bub_cron.store import Shape, open_store
from bub_cron.store_check import check_whole
from bub_cron.trigger import ledger

STORES = Path(__file__).parent / "stores"
FILES = sorted(path.name for path in STORES.glob("*.db"))
SHAPES = {"ledger": ledger.SHAPE, "inbox": inbox_schema.SHAPE}

# What version 3 of the ledger keeps in another way than versions 1 and 2: see the last test.
MADE_OTHERWISE = {"tick.signature", "tick.faults", "tick.status", "firings.state", "firings.reason"}

LEAF = 13  # of a table's tree, https://www.sqlite.org/fileformat.html

type Row = dict[str, Any]


def shape_of(name: str) -> Shape:
    return SHAPES[name.split("-")[0]]


def copied(name: str, directory: Path) -> Path:
    """Copy a store to where its side looks for it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{name.split('-')[0]}.db"
    shutil.copyfile(STORES / name, path)
    path.chmod(0o600)
    return path


def contents(path: Path) -> dict[str, list[Row]]:
    """Return the rows of each table, in the order of their keys."""
    with closing(sqlite3.connect(path)) as store:
        store.row_factory = sqlite3.Row
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        return {
            table: [dict(row) for row in store.execute(f"SELECT * FROM {table} ORDER BY 1")]  # noqa: S608
            for (table,) in tables.fetchall()
        }


def test_every_earlier_version_is_among_them() -> None:
    for side, shape in SHAPES.items():
        assert {f"{side}-{version}.db" for version in range(1, shape.version)} <= {*FILES}
        assert {*shape.migrations} == {*range(1, shape.version)}


@pytest.mark.parametrize("name", FILES)
def test_it_is_brought_up_to_date_with_all_that_it_holds(tmp_path: Path, name: str) -> None:
    path, shape = copied(name, tmp_path), shape_of(name)
    before = contents(path)
    assert sum(map(len, before.values())) > 25
    for _ in range(2):
        with closing(open_store(str(path), shape)) as store:
            assert store.execute("PRAGMA user_version").fetchone()[0] == shape.version
            # Made of the same words as a new store.
            check_whole(store, str(path), shape, closely=True)
        assert_schema_is_on_the_first_page(path)
        after = contents(path)
        if name < "inbox-3" and name.startswith("inbox"):
            assert_same_inbox(before, after)
            continue
        for table, rows in before.items():
            otherwise = MADE_OTHERWISE if name < "ledger-3" else {}
            same = [column for column in rows[0] if f"{table}.{column}" not in otherwise]
            assert [[row[column] for column in same] for row in after[table]] == [
                [row[column] for column in same] for row in rows
            ]


def assert_schema_is_on_the_first_page(path: Path) -> None:
    """So that no other damaged page costs all rows."""
    assert path.read_bytes()[100] == LEAF


def test_the_schema_of_a_new_store_fits_on_its_first_page(tmp_path: Path) -> None:
    for side, shape in SHAPES.items():
        path = tmp_path / side
        open_store(str(path), shape).close()
        assert_schema_is_on_the_first_page(path)


OVERLAPPED = "missed-overlap"
MESSAGE_STATES = {
    "sending": "sending", "sending-text": "sending", "resending": "waiting", "resending-text": "waiting",
    "delivered": "delivered", "delivered-text": "delivered", "undelivered": "undelivered", "unknown": "unknown",
}  # fmt: skip
REASONS = {
    "undelivered": "refused", "undelivered-no-channel": "no_channel", "failed": "attempts", "failed-again": "attempts",
    "failed-told": "attempts", "unknown": "not_seen", "unknown-agent": "lost_turn", "missed": "late",
    "missed-later": "late", OVERLAPPED: "overlap",
}  # fmt: skip


def assert_same_inbox(before: dict[str, list[Row]], after: dict[str, list[Row]]) -> None:
    """An inbox of version 1 or 2 holds what it held; sends and notices are messages now, and ends have a reason."""
    kept = ("seq", "id", "reminder", "fire_time", "expires", "error", "attempts", "tokens", "not_before",
            "accepted_at", "started_at", "finished_at")  # fmt: skip
    for old, new in zip(before["firings"], after["firings"], strict=True):
        assert {column: old[column] for column in kept} == {column: new[column] for column in kept}
        assert new["request"] == old["content"]
        assert new["state"] == ("skipped" if old["id"] == OVERLAPPED else old["state"])
        assert new["reason"] == REASONS.get(old["id"])
        assert new["reply"] == (None if old["kind"] == "text" else old["reply"])
        assert new["moment"] == (at("2026-11-23T12:00:00") if old["id"] == "accepted" else old["accepted_at"])
    sends = {row["id"]: row["sends"] for row in before["firings"] if row["sends"]}
    replies = {row["firing"]: row for row in after["messages"] if row["kind"] == "reply"}
    assert {firing: row["state"] for firing, row in replies.items()} == MESSAGE_STATES
    assert {firing: row["sends"] for firing, row in replies.items()} == sends
    notices = {row["firing"]: (row["state"], row["content"]) for row in after["messages"] if row["kind"] == "notice"}
    assert notices == {
        "failed": ("waiting", "The reminder bad failed: RuntimeError: no luck."),
        "failed-told": ("delivered", "The reminder told failed: an empty reply."),
    }


@pytest.mark.parametrize("name", FILES)
def test_a_migration_that_is_killed_in_the_middle_has_changed_nothing(tmp_path: Path, name: str) -> None:
    """All of it is one transaction."""
    path, shape = copied(name, tmp_path), shape_of(name)
    before = contents(path)

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM firings")
        raise ValueError("in the middle")

    with closing(sqlite3.connect(path)) as store:
        version = store.execute("PRAGMA user_version").fetchone()[0]
    last = shape.version
    migrations = {**shape.migrations, last: (fails,)}
    broken = Shape(shape.application_id, last + 1, shape.schema, shape.journal, migrations)
    with pytest.raises(StoreFaultError):
        open_store(str(path), broken)
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("PRAGMA user_version").fetchone()[0] == version
    assert contents(path) == before


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("ledger")])
def test_a_tick_goes_on_with_it(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path / "bub")
    path = copied(name, Path(place.paths.state))
    waiting = {row["id"] for row in contents(path)["firings"] if row["state"] == "due" and not row["edited"]}
    with place.gateway() as gateway:
        gateway.knows_all = True  # it is the one that accepted what is accepted
        status, said = place.tick(at("2026-11-24T18:05:00"))
    assert status == 66, said  # the file is not there; its last good version stays in force
    assert waiting & set(gateway.taken)
    assert "put aside" not in said
    assert set(place.states().values()) <= {*all_states(LEDGER_MOVES)} - {DUE}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("inbox")])
def test_a_gateway_goes_on_with_it(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    open_ones = [row["id"] for row in contents(path)["firings"] if row["state"] in ("accepted", "running", "retrying")]

    async def main() -> None:
        async with open_inbox(tmp_path) as opened:
            found = [firing for firing in await recover(opened, at("2026-11-23T12:10:00")) if not firing.is_final]
            assert {firing.id for firing in found} == {*open_ones} - {"sending", "sending-text"}, (
                "their end was not seen"
            )

    run(main())
    assert not list(tmp_path.glob("*.damaged-*"))


@pytest.mark.parametrize("name", [name for name in FILES if int(name[-4]) < shape_of(name).version])
def test_one_that_is_damaged_is_not_brought_up_to_date(tmp_path: Path, name: str) -> None:
    path = copied(name, tmp_path)
    with closing(sqlite3.connect(path)) as store:
        [(root,)] = store.execute("SELECT rootpage FROM sqlite_master WHERE name = 'firings'")
    content = path.read_bytes()
    damaged = content[: (root - 1) * 4096] + b"\xff" * 4096 + content[root * 4096 :]
    path.write_bytes(damaged)
    with pytest.raises(DamagedStoreError):
        open_store(str(path), shape_of(name))
    assert path.read_bytes() == damaged


def test_a_row_that_an_earlier_version_took_and_this_one_does_not_is_no_damage(tmp_path: Path) -> None:
    """It would be lost if the store were mended. So the store stays as it is, and each tick says why."""
    path = copied("ledger-1.db", tmp_path)
    with closing(sqlite3.connect(path)) as store:
        store.execute("UPDATE tick SET last_tick = 'noon'")
        store.commit()
    before = contents(path)
    with pytest.raises(StoreFaultError, match="CHECK constraint failed"):
        open_store(str(path), ledger.SHAPE)
    assert contents(path) == before


def test_what_a_sentence_said_of_a_firing_is_a_reason_now(tmp_path: Path) -> None:
    """Version 2 called what was chosen so `missed`, and said why in a sentence."""
    path = copied("ledger-2.db", tmp_path)
    told = {
        "edited": ("missed", "edited: its reminder was removed, disabled or rescheduled", 1),
        "superseded": ("missed", "catching up: a@2026-11-23T12:00:00Z starts in its place", 1),
        "past": ("missed", "already past when the file was saved", 1),
        "downtime": ("missed", "700 fire times passed while no tick ran", 700),
        "late": ("missed", "its grace was over before a tick ran", 1),
        "rejected": ("rejected", "edited: commands are not allowed", 1),
        "none": ("accepted", None, 1),
    }
    with closing(sqlite3.connect(path)) as store:
        for name, (state, reason, count) in told.items():
            store.execute(
                "INSERT INTO firings (id, reminder, fire_time, count, expires, content, state, reason, recorded_at)"
                " VALUES (?, 'r', 0, ?, 0, '{}', ?, ?, 0)",
                (name, count, state, reason),
            )
        store.commit()
    with closing(open_store(str(path), ledger.SHAPE)) as store:
        rows = store.execute("SELECT id, state, reason, error, count FROM firings WHERE reminder = 'r'").fetchall()
    found = {row["id"]: tuple(row)[1:] for row in rows}
    assert found == {
        name: (
            "skipped" if name in ("edited", "superseded") else state, None if name == "none" else name, sentence, count,
        )
        for name, (state, sentence, count) in told.items()
    }  # fmt: skip
