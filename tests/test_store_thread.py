"""store_thread.py: everybody gets an answer, one sync for many, whose error it is, and a store that went away."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from bub_cron.errors import DamagedStoreError, StoreError, StoreFaultError
from bub_cron.gateway.inbox import StaleError
from bub_cron.gateway.store_thread import StoreThread
from bub_cron.store import Shape, open_store

SHAPE = Shape(
    77,
    1,
    (
        "CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL DEFAULT 0 CHECK (size < 10)) WITHOUT ROWID",
        "CREATE INDEX things_size ON things (size)",
    ),
    "WAL",
)


class Panic(BaseException):
    """As pyo3's: no `Exception`, and its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def opened(path: str) -> sqlite3.Connection:
    return open_store(path, SHAPE)


def add(name: str, size: int = 0) -> Callable[[sqlite3.Connection], str]:
    def step(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO things VALUES (?, ?)", (name, size))
        return name

    return step


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]


def on_disk(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as store:
        return names(store)


def with_thread(path: Path, test: Callable[[StoreThread], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        thread = StoreThread(str(path), SHAPE, how.pop("open_", opened), name="test", **how)
        await thread.open()
        try:
            await test(thread)
        finally:
            await thread.close()

    asyncio.run(asyncio.wait_for(main(), 10))


@asynccontextmanager
async def held(thread: StoreThread) -> AsyncIterator[list[str]]:
    """Keep the thread busy within, so that what is asked for goes into one batch; yield the statements from then on."""
    holds, may_go = threading.Event(), threading.Event()
    statements: list[str] = []

    def hold(connection: sqlite3.Connection) -> None:
        holds.set()
        may_go.wait(10)
        connection.set_trace_callback(statements.append)

    asked = asyncio.create_task(thread.ask(hold))
    await asyncio.to_thread(holds.wait, 10)
    yield statements
    may_go.set()
    await asked


async def together(thread: StoreThread, *steps: Callable[[sqlite3.Connection], Any]) -> list[Any]:
    """Ask for steps in one batch; return their results and errors."""
    async with held(thread):
        asked = [asyncio.create_task(thread.ask(step)) for step in steps]
        await asyncio.sleep(0)
    return await asyncio.gather(*asked, return_exceptions=True)


# --- One transaction for many


def test_what_is_asked_while_the_thread_is_busy_is_committed_together(tmp_path: Path) -> None:
    async def test(thread: StoreThread) -> None:
        async with held(thread) as statements:
            asked = [asyncio.create_task(thread.ask(add(f"{number:03}"))) for number in range(300)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*asked) == [f"{number:03}" for number in range(300)]
        transactions = [word for word in statements if word.startswith(("BEGIN", "COMMIT"))]
        assert transactions == ["COMMIT", "BEGIN IMMEDIATE", "COMMIT"]
        assert len(on_disk(tmp_path / "a.db")) == 300, "for everybody to see"

    with_thread(tmp_path / "a.db", test)


def test_an_asker_that_leaves_does_not_take_its_step_back_nor_the_others_answers(tmp_path: Path) -> None:
    async def test(thread: StoreThread) -> None:
        async with held(thread):
            leaves, stays = (asyncio.create_task(thread.ask(add(name))) for name in "ab")
            await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.wait({leaves})
        assert await stays == "b"
        assert await thread.ask(names) == ["a", "b"]

    with_thread(tmp_path / "a.db", test)


# --- Whose error it is


def raises(error: BaseException) -> Callable[[sqlite3.Connection], None]:
    def step(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half done', 0)")
        raise error

    return step


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StaleError("mine"), StaleError),
        (RuntimeError("mine"), StoreFaultError),
        (asyncio.CancelledError(), StoreFaultError),
        (SystemExit(3), StoreFaultError),
        (KeyboardInterrupt(), StoreFaultError),
        (GeneratorExit(), StoreFaultError),
        (StopIteration(), StoreFaultError),
        (BaseExceptionGroup("many", [SystemExit(1)]), StoreFaultError),
        (Panic(), StoreFaultError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_a_steps_own_error_is_its_callers_alone(tmp_path: Path, error: BaseException, told: type[Exception]) -> None:
    async def test(thread: StoreThread) -> None:
        for number in range(3):
            first, own, last = await together(thread, add(f"a{number}"), raises(error), add(f"b{number}"))
            assert (first, last) == (f"a{number}", f"b{number}")
            assert type(own) is told
        assert await thread.ask(names) == ["a0", "a1", "a2", "b0", "b1", "b2"]

    with_thread(tmp_path / "a.db", test)


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("SELEKT 1", ()),
        ("INSERT INTO nowhere VALUES (1)", ()),
        ("SELECT nothing FROM things", ()),
        ("INSERT INTO things VALUES ('a', 0)", ()),
        ("INSERT INTO things VALUES ('b', 99)", ()),
        ("INSERT INTO things VALUES (NULL, 0)", ()),
        ("SELECT ?", ()),
        ("SELECT ?", (object(),)),
        ("SELECT zeroblob(?)", (1 << 40,)),
    ],
)
def test_a_statement_that_sqlite_refuses_is_a_fault_of_ours_and_its_callers_alone(
    tmp_path: Path, statement: str, values: tuple[object, ...]
) -> None:
    async def test(thread: StoreThread) -> None:
        await thread.ask(add("a"))
        ended = await together(thread, add("b"), lambda store: store.execute(statement, values), add("c"))
        assert [type(end) for end in ended] == [str, StoreFaultError, str]
        assert await thread.ask(names) == ["a", "b", "c"]

    with_thread(tmp_path / "a.db", test)


def break_disk(connection: sqlite3.Connection) -> None:
    """From now on SQLite refuses every change."""
    changes = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in changes else sqlite3.SQLITE_OK)


def test_an_error_of_the_disk_reaches_everybody_and_nothing_is_stored(tmp_path: Path) -> None:
    async def test(thread: StoreThread) -> None:
        await thread.ask(add("a"))
        ended = await together(thread, add("b"), break_disk, add("c"), names)
        assert [type(end) for end in ended] == [StoreError] * 4
        assert "a.db" in str(ended[0])
        await thread.ask(lambda connection: connection.set_authorizer(None))
        assert await thread.ask(names) == ["a"]

    with_thread(tmp_path / "a.db", test)


def no_commit(connection: sqlite3.Connection) -> None:
    """From now on SQLite refuses every commit."""
    commit = (sqlite3.SQLITE_TRANSACTION, "COMMIT")
    connection.set_authorizer(
        lambda action, word, *_: sqlite3.SQLITE_DENY if (action, word) == commit else sqlite3.SQLITE_OK
    )


def test_a_disk_that_refuses_the_commit_reaches_everybody(tmp_path: Path) -> None:
    async def test(thread: StoreThread) -> None:
        ended = await together(thread, add("a"), no_commit, add("b"))
        assert [type(end) for end in ended] == [StoreError] * 3

    with_thread(tmp_path / "a.db", test)
    assert on_disk(tmp_path / "a.db") == []


def test_a_step_that_ends_the_transaction_or_the_connection_leaves_a_thread_that_works(tmp_path: Path) -> None:
    async def test(thread: StoreThread) -> None:
        await thread.ask(add("a"))
        for statement in ("COMMIT", "ROLLBACK", "RELEASE step"):
            with pytest.raises(StoreError):
                await thread.ask(lambda connection, word=statement: connection.execute(word))  # type: ignore[misc]
        with pytest.raises(StoreError):
            await thread.ask(lambda connection: connection.close())
        assert await thread.ask(names) == ["a"]

    with_thread(tmp_path / "a.db", test)


# --- Damage, and a store that went away


def test_a_damaged_store_is_opened_anew_for_the_next_batch(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    openings: list[str] = []

    def mending(store: str) -> sqlite3.Connection:
        openings.append(store)
        if len(openings) > 1:
            path.rename(tmp_path / "damaged.db")
            for companion in ("-wal", "-shm"):
                Path(f"{path}{companion}").unlink(missing_ok=True)
        return opened(store)

    async def test(thread: StoreThread) -> None:
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
        ended = await together(thread, lambda _: None, names, lambda _: None)
        assert [type(end) for end in ended] == [DamagedStoreError] * 3
        assert await thread.ask(names) == []

    opened(str(path)).close()
    with_thread(path, test, open_=mending)
    assert len(openings) == 2


def test_a_schema_that_was_damaged_shows_as_a_refusal_and_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    opened(str(path)).close()
    path.write_bytes(path.read_bytes().replace(b"size INTEGER", b"sise INTEGER").replace(b"(size", b"(sise"))

    async def test(thread: StoreThread) -> None:
        with pytest.raises(DamagedStoreError):
            await thread.ask(add("a", 3))  # is right, and would be whatever the column's name
            await thread.ask(lambda connection: connection.execute("SELECT size FROM things"))

    with_thread(path, test)


def test_a_store_that_can_not_be_opened_ends_no_thread(tmp_path: Path) -> None:
    works = True

    def maybe(path: str) -> sqlite3.Connection:
        if not works:
            raise SystemExit
        return opened(path)

    async def test(thread: StoreThread) -> None:
        nonlocal works
        works = False
        (tmp_path / "a.db").unlink()
        for _ in range(2):
            with pytest.raises(StoreError):
                await thread.ask(names)
        works = True
        assert await thread.ask(names) == []

    with_thread(tmp_path / "a.db", test, open_=maybe)


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for file in path.parent.glob("a.db*"):
        file.unlink()


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    other = path.with_name("other.db")
    with closing(opened(str(other))) as store:
        add("other")(store)
    other.replace(path)


def replace_all(path: Path) -> None:
    """As a backup is put back: the log goes with its store, and another one comes with the other."""
    other = path.with_name("other.db")
    store = opened(str(other))
    store.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    add("other")(store)
    store.close()
    for companion in ("", "-wal"):
        Path(f"{path}{companion}").rename(path.with_name(f"moved.db{companion}"))
        Path(f"{other}{companion}").rename(f"{path}{companion}")
    Path(f"{path}-shm").unlink()


@pytest.mark.parametrize("how", [remove, remove_all, remove_directory, move, replace, replace_all])
def test_what_is_stored_after_the_store_went_away_survives(tmp_path: Path, how: Callable[[Path], None]) -> None:
    path = tmp_path / "state" / "a.db"
    there = ["other"] if how in (replace, replace_all) else []

    async def test(thread: StoreThread) -> None:
        await thread.ask(add("before"))
        how(path)
        assert await thread.ask(names) == there
        await thread.ask(add("after"))
        assert await thread.ask(names) == ["after", *there]

    with_thread(path, test)
    assert on_disk(path) == ["after", *there]
    if how in (move, replace_all):
        assert on_disk(path.with_name("moved.db")) == ["before"], "what it had went with it"


def test_the_log_of_a_store_that_was_replaced_is_not_taken_into_the_other(tmp_path: Path) -> None:
    """Not even where a reader keeps it from being emptied."""
    path = tmp_path / "a.db"

    async def test(thread: StoreThread) -> None:
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            assert names(reader) == []
            await thread.ask(add("before"))
            replace(path)
            assert await thread.ask(names) == ["other"]

    with_thread(path, test)
    assert on_disk(path) == ["other"]


# --- Start and end


def test_a_start_that_fails_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    made: list[threading.Thread] = []

    async def main() -> None:
        for error in (StoreError("no"), OSError("no"), RuntimeError("no"), SystemExit()):

            def fails(_: str, error: BaseException = error) -> sqlite3.Connection:
                made.append(threading.current_thread())
                raise error

            thread = StoreThread(str(tmp_path / "a.db"), SHAPE, fails, name="test")
            with pytest.raises(StoreError):
                await thread.open()
            with pytest.raises(StoreError, match="is closed"):
                await thread.ask(names)
            await thread.close()

    asyncio.run(asyncio.wait_for(main(), 10))
    for thread in made:
        thread.join(5)
    assert [thread.is_alive() for thread in made] == [False] * 4


def test_a_start_that_nobody_waits_for_any_more_leaves_no_thread(tmp_path: Path) -> None:
    may_go = threading.Event()
    made: list[threading.Thread] = []

    def slowly(path: str) -> sqlite3.Connection:
        made.append(threading.current_thread())
        may_go.wait(10)
        return opened(path)

    async def main() -> None:
        starting = asyncio.create_task(StoreThread(str(tmp_path / "a.db"), SHAPE, slowly, name="test").open())
        while not made:
            await asyncio.sleep(0.001)
        starting.cancel()
        await asyncio.wait({starting})
        may_go.set()
        await asyncio.to_thread(made[0].join, 5)
        assert not made[0].is_alive()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_the_end_carries_out_what_was_asked_before_and_refuses_what_comes_after(tmp_path: Path) -> None:
    async def main() -> None:
        thread = StoreThread(str(tmp_path / "a.db"), SHAPE, opened, name="test")
        await thread.open()
        async with held(thread):
            before = asyncio.create_task(thread.ask(add("before")))
            await asyncio.sleep(0)
            closing = asyncio.create_task(thread.close())
            await asyncio.sleep(0)
            with pytest.raises(StoreError, match="is closed"):
                await thread.ask(add("after"))
        await closing
        assert await before == "before"
        await thread.close()

    asyncio.run(asyncio.wait_for(main(), 10))
    assert on_disk(tmp_path / "a.db") == ["before"]
    assert os.listdir(tmp_path) == ["a.db"], "the log was taken into the store"


def test_a_thread_outlives_a_loop_that_was_closed_under_it(tmp_path: Path) -> None:
    """Whoever asked has gone; what was asked for is stored, and no error is printed."""
    may_go = threading.Event()
    path = tmp_path / "a.db"
    thread = StoreThread(str(path), SHAPE, opened, name="test")

    def slowly(connection: sqlite3.Connection) -> None:
        may_go.wait(10)
        add("a")(connection)

    async def main() -> None:
        await thread.open()
        asyncio.create_task(thread.ask(slowly))  # noqa: RUF006 - the loop's end cancels it
        await asyncio.sleep(0)

    asyncio.run(main())
    may_go.set()
    real = thread._thread
    assert real is not None
    thread._queue.put(None)
    real.join(10)
    assert on_disk(path) == ["a"]
