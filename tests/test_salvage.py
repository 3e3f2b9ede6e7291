"""salvage.py: whatever happens to a store's bytes, nobody sees a traceback, the damaged file lives on as it was found,
what can be read comes over whole, and the next tick, or the next start of the gateway, works."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON as INBOX_NOON
from fake_bub import FakeClockInbox, open_inbox, request, run
from fake_gateway import Place, at
from killed import states_of
from loguru import logger

from bub_cron import records, salvage
from bub_cron.errors import DamagedStoreError, StoreError
from bub_cron.gateway import inbox as inbox_module
from bub_cron.gateway import inbox_schema
from bub_cron.gateway.settling import recover
from bub_cron.store import Shape, lock, open_store
from bub_cron.trigger import ledger as ledger_module
from bub_cron.trigger.tick import signature

type Row = tuple[Any, ...]
type Damage = Callable[[bytes], bytes]

NOON = at("2026-11-23T12:00:00")
MINUTE = 60
LATER = NOON + 161 * MINUTE  # the first tick after the damage
PAGE = 4096
REMINDERS = "abc"
SHAPES = {"ledger": ledger_module.SHAPE, "inbox": inbox_schema.SHAPE}
REFUSALS = ("is not a store of bub-cron", "was written by a newer bub-cron")
LEDGER_ROWS = "SELECT id, reminder, fire_time, expires, content, state, error, submitted_at FROM firings ORDER BY id"
INBOX_ROWS = "SELECT id, moment, expires, request, seq, state, attempts, reason, reply, error FROM firings ORDER BY id"


# --- Two stores as they are after some hours of work


def rows_of(path: Path) -> dict[str, Row]:
    """Return the firings of a ledger or an inbox, by their ids."""
    with closing(sqlite3.connect(path)) as store:
        store.text_factory = lambda text: text.decode("utf-8", "replace")
        return {row[0]: row for row in store.execute(LEDGER_ROWS if path.name == "ledger.db" else INBOX_ROWS)}


def write_reminders(place: Place) -> None:
    entries = "".join(f"  {name}:\n    every: 1m\n    text: hello from {name}\n" for name in REMINDERS)
    head = "defaults: {to: 'telegram:1', timezone: UTC, grace: 1d, catch_up: all}\nreminders:\n"
    place.write(head + entries, NOON - 60)


@pytest.fixture(scope="module")
def filled_ledger() -> Iterator[bytes]:
    """A ledger's bytes: 453 firings that are accepted, and 30 that wait."""
    with tempfile.TemporaryDirectory() as home:
        place = Place(Path(home))
        write_reminders(place)
        assert place.tick(NOON - 30) == (0, "")
        with place.gateway():
            assert place.tick(NOON + 150 * MINUTE) == (0, "")
        assert place.tick(NOON + 160 * MINUTE)[0] == 69
        states = [row[5] for row in rows_of(Path(place.paths.ledger)).values()]
        assert (states.count("accepted"), states.count("due")) == (453, 30)
        yield Path(place.paths.ledger).read_bytes()


@pytest.fixture
def place(tmp_path: Path, filled_ledger: bytes) -> Place:
    made = Place(tmp_path / "bub")
    write_reminders(made)
    put(Path(made.paths.ledger), filled_ledger)
    # The files' signature holds their inodes: what the ledger knows must be this very file.
    with closing(sqlite3.connect(made.paths.ledger)) as store:
        [(tz, zone_files)] = store.execute("SELECT tz, zone_files FROM tick")
        found = signature(made.paths.file, tz, zone_files.splitlines())
        store.execute("UPDATE tick SET signature = ?, file = ?", (found, made.paths.file))
        store.execute("UPDATE reminders SET file = ?", (made.paths.file,))
        # Else the tick would ask what became of each.
        store.execute("UPDATE firings SET outcome = 'delivered' WHERE state = 'accepted'")
        store.commit()
    return made


def put(path: Path, content: bytes) -> Path:
    """Leave a state directory with this store and nothing else."""
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def filled_inbox() -> Iterator[bytes]:
    """An inbox's bytes: 300 firings that were delivered, then 100 that are open."""

    async def fill(path: Path) -> None:
        async with open_inbox(path) as inbox:
            for number in range(400):
                await inbox.take_in(request(id=f"f{number:03}", text=f"hello {number} " + "x" * 40), INBOX_NOON)
            done = "UPDATE firings SET state = 'delivered', finished_at = ? WHERE id < 'f300'"
            await inbox.sql(done, INBOX_NOON + 1)

    with tempfile.TemporaryDirectory() as home:
        run(fill(Path(home)))
        yield (Path(home) / "inbox.db").read_bytes()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what hangs."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds:g} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# --- Damage


def leaves(content: bytes, sign: bytes = b'"text"', kind: int = 0x0D) -> list[int]:
    """Return the numbers, from 0, of the leaf pages that hold `sign`, in their order."""
    pages = [content[start : start + PAGE] for start in range(0, len(content), PAGE)]
    return [number for number, page in enumerate(pages) if number and page[0] == kind and sign in page]


def overwrite(content: bytes, number: int, seed: int) -> bytes:
    noise = random.Random(seed).randbytes(PAGE)
    return content[: number * PAGE] + noise + content[(number + 1) * PAGE :]


def a_page_of_rows(seed: int) -> Damage:
    # Not the last one: the others need their way past it.
    return lambda content: overwrite(content, random.Random(seed).choice(leaves(content)[1:-1]), seed)


def any_page(seed: int) -> Damage:
    def damage(content: bytes) -> bytes:
        pages = range(1, len(content) // PAGE)
        # Where the list of the tables is, everything is lost.
        others = [number for number in pages if b"CREATE " not in content[number * PAGE :][:PAGE]]
        return overwrite(content, random.Random(seed).choice(others), seed)

    return damage


DAMAGES: dict[str, Damage] = {
    **{f"a page of rows, seed {seed}": a_page_of_rows(seed) for seed in range(3)},
    **{f"any page, seed {seed}": any_page(seed) for seed in range(100, 108)},
    "the last page of rows": lambda content: overwrite(content, leaves(content)[-1], 1),
    "the header": lambda content: random.Random(5).randbytes(100) + content[100:],
    "the first page": lambda content: overwrite(content, 0, 5),
    "half of it": lambda content: content[: len(content) // 2],
    "a page and a half of it": lambda content: content[: PAGE * 3 // 2],
    "ten bytes of it": lambda content: content[:10],
    "nothing of it": lambda _: b"",
    "text": lambda _: b"reminders:\n  a: {every: 1m}\n" * 200,
    "one page of zeros": lambda content: content[: 5 * PAGE] + bytes(PAGE) + content[6 * PAGE :],
}
NOTHING_LEFT = ("the header", "the first page", "a page and a half of it", "ten bytes of it", "nothing of it", "text")


def flipped(content: bytes, seed: int, first: int, end: int) -> tuple[bytes, int]:
    """Return the content with one byte, or three, changed in [first, end); and how many."""
    chance = random.Random(seed)
    changed = bytearray(content)
    count = chance.choice((1, 1, 3))
    for _ in range(count):
        changed[chance.randrange(first, min(end, len(changed)))] ^= chance.randrange(1, 256)
    return bytes(changed), count


def asides(path: Path) -> list[Path]:
    """Return what was put aside beside a store, the companions not counted."""
    return [
        found for found in path.parent.glob(f"{path.name}.damaged-*") if not found.name.endswith(("-wal", "-journal"))
    ]


# --- Which rows come over


@pytest.mark.parametrize("how", ["", "WITHOUT ROWID"])
@pytest.mark.parametrize("seed", range(6))
def test_rows_come_over_from_both_ends_until_the_damage(tmp_path: Path, how: str, seed: int) -> None:
    chance = random.Random(seed)
    create = f"CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER CHECK (size < 9999), filler TEXT) {how}"
    shape = Shape(77, 1, (create, "CREATE INDEX things_size ON things (size)"), "DELETE")
    path = tmp_path / "a.db"
    with closing(open_store(str(path), shape)) as store:
        store.execute("BEGIN")
        for number in range(2000):
            store.execute("INSERT INTO things VALUES (?, ?, ?)", (f"thing {number:04}.", number, "x" * 100))
        store.execute("COMMIT")
    content = path.read_bytes()
    lost = sorted(chance.sample(leaves(content, b"xxx", 0x0A if how else 0x0D)[1:-1], chance.randint(1, 3)))
    on_them = [int(name) for page in lost for name in re.findall(rb"thing (....)\.", content[page * PAGE :][:PAGE])]
    for page in lost:
        content = overwrite(content, page, seed)
    path.write_bytes(content)
    told = str(salvage.mend(str(path), shape, 0))
    with closing(sqlite3.connect(path)) as store:
        kept = [name for (name,) in store.execute("SELECT name FROM things ORDER BY name")]
        assert store.execute("SELECT count(*) FROM things WHERE size <> substr(name, 7, 4)").fetchone() == (0,)
    assert f"{len(kept):,} rows that could still be read" in told
    gone = [number for number in range(2000) if f"thing {number:04}." not in kept]
    assert gone == list(range(gone[0], gone[-1] + 1)), "in one piece"
    # Beside a leaf, a row of a table without rowids may stand on the page above it.
    assert min(on_them) - 1 <= gone[0] <= gone[-1] <= max(on_them) + 1


def test_an_index_that_is_lost_costs_no_row(place: Place) -> None:
    path = Path(place.paths.ledger)
    rest = "SELECT last_tick, trouble, count(*) FROM tick, reminders"
    before = rows_of(path), place.select(rest)
    [(root,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = 'firings_reminder'")
    mended(put(path, overwrite(path.read_bytes(), root - 1, 3)))
    assert (rows_of(path), place.select(rest)) == before


def test_a_row_that_the_new_store_does_not_take_costs_no_other(tmp_path: Path, filled_inbox: bytes) -> None:
    path = tmp_path / "inbox.db"
    path.write_bytes(filled_inbox)
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute("UPDATE firings SET state = 'flying' WHERE id = 'f007'")
        store.execute("UPDATE firings SET request = x'7bff' WHERE id = 'f009'")
    before = rows_of(path)
    assert "398 rows" in str(salvage.mend(str(path), inbox_schema.SHAPE, 0))
    assert rows_of(path) == {firing: row for firing, row in before.items() if firing not in ("f007", "f009")}


def test_a_row_whose_number_was_damaged_takes_no_other_ones_place(tmp_path: Path, filled_inbox: bytes) -> None:
    path = put(tmp_path / "state" / "inbox.db", filled_inbox)
    before = rows_of(path)
    # A row begins with its size and its number, each in two bytes here: the number of f200 becomes f000's.
    [page] = leaves(filled_inbox, b"f200")
    there = filled_inbox.index(b"f200", page * PAGE)
    start = filled_inbox.rindex(bytes([0x80 | 201 >> 7, 201 & 0x7F]), there - 40, there)
    path.write_bytes(filled_inbox[:start] + b"\x80\x01" + filled_inbox[start + 2 :])
    salvage.mend(str(path), inbox_schema.SHAPE, 0)
    assert rows_of(path)["f000"] == before["f000"]
    assert len(rows_of(path)) >= 399


# --- A damaged ledger


def mended(path: Path, now: float = LATER) -> str:
    return str(ledger_module.mend(str(path), now))


# What a tick may say of a damaged ledger. Of a letter that is another one now, it can't know that.
SAID = (
    (74, "ledger.db "),
    (76, "the gateway rejected"),
    (65, "this state directory belonged to"),
    (0, "the clock is behind the last tick"),
)


def ticks_after(place: Place, path: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """Run three ticks a minute apart over what is there; return what they said, and the ids they submitted.

    What holds whatever was damaged: no traceback; it works, or it says in one line why not; the file isn't lost.
    """
    found = path.read_bytes()
    with place.gateway() as gateway, within(1.5):
        said = [place.tick(LATER + number * MINUTE) for number in range(3)]
    for status, text in said:
        assert (status, text) == (0, "") or any(status == code and sign in text for code, sign in SAID), said
        assert status != 74 or (text.startswith(f"bub-cron: {path}") and text.count("\n") == 1), said
    if any("was damaged" in text for _, text in said):
        assert len(asides(path)) == 1, said
        if "was damaged" in said[0][1]:
            # What a tick did before it came upon the damage stands in it, too.
            assert len(asides(path)[0].read_bytes()) >= len(found)
    else:
        assert asides(path) == []
    return said, gateway.submitted


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger(place: Place, damage: str) -> None:
    path = Path(place.paths.ledger)
    before = rows_of(path)
    put(path, DAMAGES[damage](path.read_bytes()))
    said, submitted = ticks_after(place, path)
    # The first tick doesn't read every page.
    assert sorted(status for status, _ in said) in ([0, 0, 0], [0, 0, 74]), said
    # Nothing that was accepted already is submitted again, and what is submitted is so once.
    assert [firing for firing in submitted if firing in before and before[firing][5] == "accepted"] == []
    assert len(submitted) == len(set(submitted))
    if asides(path):
        kept = rows_of(path)
        assert all(kept[firing][:5] == before[firing][:5] for firing in kept.keys() & before.keys())
    assert (" and 0 rows that could still be read" in said[0][1]) == (damage in NOTHING_LEFT), said


HEADER, SCHEMA, ROWS = (0, 100), (100, PAGE), (PAGE, 1 << 30)


def faults_of(path: Path, first: int, end: int, hold: Callable[[bytes, dict[str, Row], int], None]) -> list[str]:
    """Flip bytes in [first, end) of a store again and again, and return where what should hold doesn't."""
    good, before = path.read_bytes(), rows_of(path)
    faults: list[str] = []
    for seed in range(30):
        damaged, count = flipped(good, seed, first, end)
        put(path, damaged)
        try:
            hold(damaged, before, count)
        except Exception as error:
            faults.append(f"seed {seed}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    return faults


@pytest.mark.parametrize("where", [HEADER, SCHEMA, ROWS, "the tick's own row"], ids=str)
def test_bytes_flipped_in_a_ledger(place: Place, where: tuple[int, int] | str) -> None:
    path = Path(place.paths.ledger)
    if isinstance(where, str):
        [(page,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = 'tick'")
        where = (page * PAGE - 700, page * PAGE)

    def hold(damaged: bytes, before: dict[str, Row], count: int) -> None:
        said, submitted = ticks_after(place, path)
        if any(refusal in said[0][1] for refusal in REFUSALS):
            # The bytes that say whose store it is: such a one is left alone.
            assert said == [said[0]] * 3
            assert path.read_bytes() == damaged
            return
        assert [status for status, _ in said].count(74) <= 1, said
        again = [firing for firing in submitted if firing in before and before[firing][5] == "accepted"]
        assert len(again) <= count, "what was accepted is submitted again"
        if asides(path):
            kept = rows_of(path)
            other = [firing for firing in kept.keys() & before.keys() if kept[firing][:5] != before[firing][:5]]
            assert len(other) <= count, "rows that are not what they were"

    assert faults_of(path, *where, hold) == []


SPOILT = {
    "text that is not UTF-8": "UPDATE firings SET content = CAST(x'7bff' AS TEXT) WHERE state = 'due'",
    "a text for an instant": "UPDATE firings SET fire_time = 'soon' WHERE state = 'due'",
    "an instant of no year": "UPDATE firings SET fire_time = 1 << 62 WHERE state = 'due'",
    "the tick's own row gone": "DELETE FROM tick",
    "a last tick that is text": "UPDATE tick SET last_tick = 'noon'",
    "a schedule that is no JSON": "UPDATE reminders SET schedule = '{\"ev'",
    "a next fire time of long ago": "UPDATE reminders SET next_at = -(1 << 62)",
    "said at, as text": "UPDATE tick SET said_at = 'noon', trouble = 'x'",
    "its last status, as text": "INSERT INTO files VALUES ('/x', 'x', 'x')",
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_value_that_no_tick_wrote_ends_no_tick_with_a_traceback(place: Place, spoilt: str) -> None:
    with closing(sqlite3.connect(place.paths.ledger)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute(SPOILT[spoilt])
        store.commit()
    with place.gateway(), within(1.5):
        said = [place.tick(LATER + number * MINUTE) for number in range(3)]
    assert {status for status, _ in said} <= {0, 65, 74, 76}
    # Whatever it was, a reminder that is added now fires.
    place.write("reminders:\n  new: {every: 1m, to: 'telegram:1', text: hi}\n", LATER + 3 * MINUTE)
    with place.gateway() as gateway:
        for number in range(4, 7):
            place.tick(LATER + number * MINUTE)
    assert [firing for firing in gateway.submitted if firing.startswith("new@")] != []


def test_reminders_that_could_not_be_kept_are_read_from_the_file_again(place: Place) -> None:
    [(root,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = 'reminders'")
    path = Path(place.paths.ledger)
    put(path, overwrite(path.read_bytes(), root - 1, 4))
    with place.gateway() as gateway:
        assert place.tick(LATER)[0] == 74
        for number in range(1, 4):
            assert place.tick(LATER + number * MINUTE) == (0, "")
    assert place.select("SELECT count(*) FROM reminders") == [(len(REMINDERS),)]
    latest = {firing[0] for firing in gateway.submitted if at(firing.split("@")[1]) > LATER + MINUTE}
    assert latest == set(REMINDERS)


def test_the_minute_in_which_a_ledger_is_mended_is_not_skipped(place: Place) -> None:
    """Nothing of it can be read; what the file says for that minute fires all the same, or has a row that says why not."""
    put(Path(place.paths.ledger), b"no store\n" * 2000)
    with place.gateway():
        assert place.tick(LATER)[0] == 74
        assert place.tick(LATER + MINUTE) == (0, "")
        assert place.tick(LATER + 2 * MINUTE) == (0, "")
    times = {row[0] for row in place.select("SELECT fire_time FROM firings WHERE reminder = 'a'")}
    assert {LATER, LATER + MINUTE, LATER + 2 * MINUTE} <= times


# --- What is put aside, and by whom


def test_a_second_damage_in_the_same_second_gets_another_name(place: Place) -> None:
    path = Path(place.paths.ledger)
    contents = [f"damage {number}\n".encode() * 1000 for number in range(3)]
    for content in contents:
        path.write_bytes(content)
        assert place.tick(LATER)[0] == 74
    name = "ledger.db.damaged-2026-11-23T14:41:00Z"
    assert [(path.parent / f"{name}{number}").read_bytes() for number in ("", "-2", "-3")] == contents
    assert place.tick(LATER)[0] in (0, 69)


def half_done(path: Path) -> tuple[bytes, bytes]:
    """Do what a tick does that is killed in its transaction; return the store's bytes and its journal's then."""
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA cache_size = 1")
        store.execute("BEGIN IMMEDIATE")
        store.execute("UPDATE firings SET error = 'half done, and longer than it was before'")
        journal, content = Path(f"{path}-journal").read_bytes(), path.read_bytes()
        store.execute("ROLLBACK")
    return content, journal


def test_a_first_page_that_the_journal_still_has_is_no_damage(place: Place) -> None:
    path = Path(place.paths.ledger)
    before = rows_of(path)
    content, journal = half_done(path)
    put(path, b"not a header" + content[12:])
    Path(f"{path}-journal").write_bytes(journal)
    assert ledger_module.mend(place.paths.ledger, LATER) is None
    assert place.tick(LATER)[0] == 69
    assert asides(path) == []
    assert before.keys() <= rows_of(path).keys()


def test_one_process_at_a_time_mends(place: Place) -> None:
    path = put(Path(place.paths.ledger), b"no store\n" * 2000)
    found = files(path.parent)
    held = lock(str(path))
    mender = threading.Thread(target=mended, args=(path,))
    mender.start()
    mender.join(0.3)
    assert mender.is_alive(), "it waits"
    assert files(path.parent) == found
    os.close(held)
    mender.join(10)
    assert len(asides(path)) == 1


def test_a_tick_that_comes_second_does_not_put_the_mended_store_aside(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ticks find the damage at once: the second must look again before it moves anything."""
    path = put(Path(place.paths.ledger), b"no store\n" * 2000)
    real = ledger_module.mend

    def after_another(store: str, now: float) -> StoreError | None:
        monkeypatch.setattr(ledger_module, "mend", real)
        with place.gateway():
            assert place.tick(now)[0] == 74  # it has mended it
            assert place.tick(now) == (0, "")
        return real(store, now)

    monkeypatch.setattr(ledger_module, "mend", after_another)
    place.tick(LATER)
    assert len(asides(path)) == 1


# --- Killed in the middle


def damaged_ledger(directory: Path, content: bytes) -> list[str]:
    """Leave a damaged ledger with the journal of a tick that was killed; return the ids that wait."""
    path = put(directory / "ledger.db", content)
    waiting = [firing for firing, row in rows_of(path).items() if row[5] == "due"]
    with closing(sqlite3.connect(path)) as store:
        [(root,)] = store.execute("SELECT rootpage FROM sqlite_master WHERE name = 'reminders'")
    half, journal = half_done(path)
    path.write_bytes(overwrite(half, root - 1, 4))
    Path(f"{path}-journal").write_bytes(journal)
    return waiting


def damaged_inbox(directory: Path, content: bytes) -> list[str]:
    """Leave a damaged inbox with the log of a gateway that was killed; return the ids of ten that are in the log alone."""
    path = put(directory / "inbox.db", content)
    accepted = [f"in-the-log-{number}" for number in range(10)]

    async def main() -> None:
        async with open_inbox(directory) as inbox:
            for firing in accepted:
                await inbox.take_in(request(id=firing), INBOX_NOON)
            shutil.copytree(directory, directory.with_name("killed"))

    run(main())
    shutil.rmtree(directory)
    directory.with_name("killed").rename(directory)
    path.write_bytes(a_page_of_rows(2)(content))
    return accepted


def opened(path: Path) -> None:
    """Open a store as a gateway's start, or a tick that looks through it, does."""
    if path.name == "inbox.db":
        inbox_module._open(str(path)).close()
        return
    try:
        with closing(ledger_module.Ledger(str(path))) as ledger:
            ledger.check()
    except DamagedStoreError:
        mended(path)


def files(directory: Path) -> dict[str, bytes]:
    return {found.name: found.read_bytes() for found in directory.iterdir() if not found.name.endswith("-shm")}


@pytest.fixture(params=["ledger", "inbox"])
def wreck(
    request: pytest.FixtureRequest, tmp_path: Path, filled_ledger: bytes, filled_inbox: bytes
) -> tuple[Path, list[str]]:
    """The path of a damaged store, and the ids of the firings that are not to be lost."""
    path = tmp_path / "state" / f"{request.param}.db"
    if request.param == "ledger":
        return path, damaged_ledger(path.parent, filled_ledger)
    return path, damaged_inbox(path.parent, filled_inbox)


def assert_mended(state: Path, wreck: Path, found: dict[str, bytes], rows: dict[str, Row]) -> None:
    """Hold that a store has the rows that it should, and that the damaged one stands beside it as it was found."""
    assert rows_of(state / wreck.name) == rows
    [aside] = asides(state / wreck.name)
    assert files(state) == {
        wreck.name: (state / wreck.name).read_bytes(),
        **{name.replace(wreck.name, aside.name): content for name, content in found.items()},
    }


def test_a_mend_that_is_killed_at_any_step_loses_nothing(wreck: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, precious = wreck
    found = files(path.parent)
    *killed, done = states_of(f"mend {path.stem}", path.parent, tmp_path / "states")
    rows = rows_of(done / path.name)
    assert {*precious} <= rows.keys()
    assert_mended(done, path, found, rows)
    decided = [(state / f"{path.name}.mended").exists() for state in killed]
    assert 5 < sum(decided) < len(killed)
    for state, is_decided in zip(killed, decided, strict=True):
        if is_decided:
            assert records.known_to_inbox(str(state / path.name), precious) is None, "nobody knows yet"
            opened(state / path.name)  # whoever opens it finishes it
        else:
            # Opening the ledger would first undo what the tick that was killed has half done.
            salvage.mend(str(state / path.name), SHAPES[path.stem], LATER)
        assert_mended(state, path, found, rows)


def test_the_finishing_of_a_mend_may_be_killed_too(wreck: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, _ = wreck
    found = files(path.parent)
    *killed, done = states_of(f"mend {path.stem}", path.parent, tmp_path / "states")
    rows = rows_of(done / path.name)
    decided = [state for state in killed if (state / f"{path.name}.mended").exists()]
    for state in (decided[0], decided[len(decided) // 2]):
        for again in states_of(f"open {path.stem}", state, tmp_path / "again"):
            opened(again / path.name)
            assert_mended(again, path, found, rows)
        shutil.rmtree(tmp_path / "again")


# --- A disk that does not let it be mended


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let no file grow over a size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 2 * PAGE, 12 * PAGE, 30 * PAGE])
def test_a_full_disk_while_it_is_mended_loses_no_row(wreck: tuple[Path, list[str]], room: int) -> None:
    path, precious = wreck
    found = files(path.parent)
    if path.stem == "inbox":
        room //= 2
    with no_file_over(room), pytest.raises(StoreError):
        salvage.mend(str(path), SHAPES[path.stem], LATER)
    assert files(path.parent) == found
    salvage.mend(str(path), SHAPES[path.stem], LATER)
    assert_mended(path.parent, path, found, rows_of(path))
    assert {*precious} <= rows_of(path).keys()


# --- A damaged inbox


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the gateway side logs."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


def opened_again(directory: Path) -> list[str]:
    """Open the inbox as a gateway's start does; return the ids of what is to be run."""

    async def main() -> list[str]:
        async with open_inbox(directory) as inbox:
            found = await recover(inbox, INBOX_NOON + 60)
            await works(inbox)
            return [firing.id for firing in found]

    with within(5):
        return run(main())


async def works(inbox: FakeClockInbox) -> None:
    """Take one firing through it."""
    firing = await inbox.put("sending", "afterwards", text="hello")
    firing = await inbox.move_message(firing, firing.messages[0], "deliver", INBOX_NOON)
    assert firing.state == "delivered"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_inbox(tmp_path: Path, filled_inbox: bytes, said: list[str], damage: str) -> None:
    path = put(tmp_path / "state" / "inbox.db", filled_inbox)
    before = rows_of(path)
    damaged = DAMAGES[damage](filled_inbox)
    path.write_bytes(damaged)
    found = opened_again(path.parent)
    [aside] = asides(path)
    assert aside.read_bytes() == damaged
    kept = rows_of(path)
    del kept["afterwards"]
    assert kept.items() <= before.items()
    assert found == [firing for firing, row in sorted(kept.items()) if row[5] == "accepted"]
    [told] = [line for line in said if "was put aside" in line]
    assert told == (
        f"cron.store {path} was damaged: it was put aside as {aside}, and {len(kept):,} rows that could still be read were"
        " kept; what it had beyond these is not known any more"
    )
    assert len(kept) > (360 if "a page of rows" in damage else 100 if damage == "half of it" else -1)
    assert (kept == {}) == (damage in NOTHING_LEFT)


def test_an_inbox_that_is_damaged_while_it_is_open_is_mended(
    tmp_path: Path, filled_inbox: bytes, said: list[str]
) -> None:
    path = put(tmp_path / "state" / "inbox.db", filled_inbox)
    before = rows_of(path)

    async def main() -> list[str]:
        async with open_inbox(path.parent) as inbox:
            await inbox.sql("PRAGMA cache_size = 1")  # it is to read the disk, and not what it remembers
            await inbox.sql("PRAGMA shrink_memory")
            await inbox.take_in(request(id="in-the-log"), INBOX_NOON)
            with path.open("r+b") as file:  # in place: the connection looks at this very file
                for number in leaves(filled_inbox)[1:-4]:
                    file.seek(number * PAGE)
                    file.write(random.Random(number).randbytes(PAGE))
            damaged.update(files(path.parent))
            with pytest.raises(DamagedStoreError):
                for firing in before:
                    await inbox.get(firing)
            await works(inbox)
            return [firing.id for firing in await recover(inbox, INBOX_NOON)]

    damaged: dict[str, bytes] = {}
    found = run(main())
    [aside] = asides(path)
    assert [aside.read_bytes(), Path(f"{aside}-wal").read_bytes()] == [damaged["inbox.db"], damaged["inbox.db-wal"]]
    assert "in-the-log" in rows_of(path)
    assert sum("was put aside" in line for line in said) == 1
    assert found == [firing for firing, row in sorted(rows_of(path).items()) if row[5] == "accepted"] != []


@pytest.mark.parametrize(
    "spoilt",
    [
        'request = \'{"body": "hel\'',
        "request = CAST(x'7bff' AS TEXT)",
        "reply = CAST(x'ff' AS TEXT)",
        "not_before = 'soon', state = 'retrying'",
    ],
)
def test_one_row_that_no_gateway_wrote_keeps_no_other_from_running(
    tmp_path: Path, filled_inbox: bytes, spoilt: str
) -> None:
    path = put(tmp_path / "state" / "inbox.db", filled_inbox)
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute(f"UPDATE firings SET {spoilt} WHERE id = 'f350'")  # noqa: S608 - the test's own words
    found = opened_again(path.parent)
    assert {f"f{number:03}" for number in range(300, 400) if number != 350} <= set(found)


@pytest.mark.parametrize("where", [HEADER, SCHEMA, ROWS], ids=str)
def test_bytes_flipped_in_an_inbox(tmp_path: Path, filled_inbox: bytes, where: tuple[int, int]) -> None:
    path = put(tmp_path / "state" / "inbox.db", filled_inbox)

    def hold(damaged: bytes, before: dict[str, Row], count: int) -> None:
        try:
            opened_again(path.parent)
        except StoreError as error:
            assert any(refusal in str(error) for refusal in REFUSALS), error
            assert path.read_bytes() == damaged
            return
        kept = rows_of(path)
        assert [aside.read_bytes() for aside in asides(path)] in ([], [damaged])
        assert sum(kept[firing] != before[firing] for firing in kept.keys() & before.keys()) <= count

    assert faults_of(path, *where, hold) == []
