"""salvage.py: whatever happens to a store's bytes, nobody sees a traceback, the damaged file lives on as it was found,
what can be read comes over whole, and the next tick, or the next start of the gateway, works."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_bub import NOON as INBOX_NOON
from fake_bub import FakeClockInbox, open_inbox, request, run
from fake_gateway import Place, at
from loguru import logger

from bub_cron import salvage
from bub_cron.errors import DamagedStoreError, StoreError
from bub_cron.gateway import inbox as inbox_module
from bub_cron.trigger import ledger as ledger_module
from bub_cron.trigger.tick import signature

type Row = tuple[Any, ...]
type Damage = Callable[[bytes], bytes]

NOON = at("2026-11-23T12:00:00")
MINUTE = 60
LATER = NOON + 161 * MINUTE  # the first tick after the damage
PAGE = 4096
REMINDERS = "abc"
REFUSALS = ("is not a store of bub-cron", "was written by a newer bub-cron")
WHOLE_FIRING = "SELECT id, reminder, fire_time, expires, content, state, reason, submitted_at FROM firings"
WHOLE_INBOX_FIRING = "SELECT seq, id, target, kind, content, state, attempts, sends, sending, reply, error FROM firings"


# --- Two stores as they are after some hours of work


@pytest.fixture(scope="module")
def ledger() -> Iterator[tuple[bytes, dict[str, Row]]]:
    """A ledger's bytes, and its firings by their ids: 453 accepted ones, and 30 that wait."""
    with tempfile.TemporaryDirectory() as home:
        place = Place(Path(home))
        write_reminders(place)
        assert place.tick(NOON - 30) == (0, "")
        with place.gateway():
            assert place.tick(NOON + 150 * MINUTE) == (0, "")
        assert place.tick(NOON + 160 * MINUTE)[0] == 69
        rows = {row[0]: row for row in place.select(WHOLE_FIRING)}
        assert [sum(row[5] == state for row in rows.values()) for state in ("accepted", "due")] == [453, 30]
        yield Path(place.paths.ledger).read_bytes(), rows


def write_reminders(place: Place) -> None:
    entries = "".join(f"  {name}:\n    every: 1m\n    text: hello from {name}\n" for name in REMINDERS)
    head = "defaults: {to: 'telegram:1', timezone: UTC, grace: 1d, catch_up: all}\nreminders:\n"
    place.write(head + entries, NOON - 60)


@pytest.fixture
def place(tmp_path: Path, ledger: tuple[bytes, dict[str, Row]]) -> Place:
    made = Place(tmp_path / "bub")
    write_reminders(made)
    put_ledger(made, ledger[0])
    # The files' signature holds their inodes: what the ledger knows must be this very file.
    with closing(sqlite3.connect(made.paths.ledger)) as store:
        [(tz, zone_files)] = store.execute("SELECT tz, zone_files FROM tick")
        found = signature(made.paths.file, tz, zone_files.splitlines())
        store.execute("UPDATE tick SET signature = ?, file = ?", (found, made.paths.file))
        store.execute("UPDATE reminders SET file = ?", (made.paths.file,))
        store.commit()
    return made


def put_ledger(place: Place, content: bytes) -> Path:
    """Leave a state directory with this ledger and nothing else."""
    state = Path(place.paths.state)
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(mode=0o700)
    path = Path(place.paths.ledger)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def filled_inbox() -> Iterator[tuple[bytes, dict[str, Row]]]:
    """An inbox's bytes, and its firings by their ids: 300 delivered ones, then 100 that are open."""

    async def fill(path: Path) -> None:
        async with open_inbox(path) as inbox:
            for number in range(400):
                await inbox.take_in(request(id=f"f{number:03}", text=f"hello {number} " + "x" * 40), INBOX_NOON)
            for number in range(300):
                await inbox.begin_send(f"f{number:03}", INBOX_NOON)
                await inbox.finish(f"f{number:03}", "delivered", None, INBOX_NOON + 1)

    with tempfile.TemporaryDirectory() as home:
        run(fill(Path(home)))
        path = Path(home) / "inbox.db"
        yield path.read_bytes(), inbox_rows(path)


def inbox_rows(path: Path) -> dict[str, Row]:
    with closing(sqlite3.connect(path)) as store:
        store.text_factory = lambda text: text.decode("utf-8", "replace")
        return {row[1]: row for row in store.execute(WHOLE_INBOX_FIRING)}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what hangs."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- Damage


def leaves(content: bytes, sign: bytes) -> list[int]:
    """The numbers, from 0, of the table's leaf pages that hold `sign`."""
    pages = [content[start : start + PAGE] for start in range(0, len(content), PAGE)]
    return [number for number, page in enumerate(pages) if number and page[0] == 0x0D and sign in page]


def overwrite(content: bytes, number: int, seed: int) -> bytes:
    noise = random.Random(seed).randbytes(PAGE)
    return content[: number * PAGE] + noise + content[(number + 1) * PAGE :]


def a_page_of_rows(seed: int) -> Damage:
    def damage(content: bytes) -> bytes:
        found = leaves(content, b'"text"')
        # Not the last one: the others need their way past it.
        return overwrite(content, random.Random(seed).choice(found[1:-1]), seed)

    return damage


def any_page(seed: int) -> Damage:
    return lambda content: overwrite(content, random.Random(seed).randrange(1, len(content) // PAGE), seed)


DAMAGES: dict[str, Damage] = {
    **{f"a page of rows, seed {seed}": a_page_of_rows(seed) for seed in range(4)},
    **{f"any page, seed {seed}": any_page(seed) for seed in range(100, 112)},
    "the last page of rows": lambda content: overwrite(content, leaves(content, b'"text"')[-1], 1),
    "the header": lambda content: random.Random(5).randbytes(100) + content[100:],
    "the first page": lambda content: overwrite(content, 0, 5),
    "half of it": lambda content: content[: len(content) // 2],
    "a page and a half of it": lambda content: content[: PAGE * 3 // 2],
    "ten bytes of it": lambda content: content[:10],
    "nothing of it": lambda _: b"",
    "text": lambda _: b"reminders:\n  a: {every: 1m}\n" * 200,
    "one page of zeros": lambda content: content[: 5 * PAGE] + bytes(PAGE) + content[6 * PAGE :],
    "noise": lambda content: random.Random(6).randbytes(len(content)),
}


def flipped(content: bytes, seed: int, first: int, end: int) -> tuple[bytes, int]:
    """Return the content with one byte, or three, changed in [first, end); and how many."""
    chance = random.Random(seed)
    changed = bytearray(content)
    count = chance.choice((1, 1, 3))
    for _ in range(count):
        changed[chance.randrange(first, min(end, len(changed)))] ^= chance.randrange(1, 256)
    return bytes(changed), count


def asides(path: Path) -> list[Path]:
    """What was put aside beside a store, the companions not counted."""
    return [
        found
        for found in path.parent.glob(f"{path.name}.damaged-*")
        if not found.name.endswith(("-wal", "-shm", "-journal"))
    ]


# --- A damaged ledger


def ticks_after(place: Place, path: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """Run three ticks a minute apart over what is there; return what they said, and the ids they submitted.

    What holds whatever was damaged: no traceback; it works, or it says in one line why not; the file isn't lost.
    """
    found = path.read_bytes()
    with place.gateway() as gateway, within(1.5):
        said = [place.tick(LATER + number * MINUTE) for number in range(3)]
    for status, text in said:
        assert status == 76 or (status, text.count("\n")) in ((0, 0), (74, 1)), said
        assert status != 74 or text.startswith(f"bub-cron: {path}"), said
        assert status != 76 or "the gateway rejected" in text, said  # a letter of a message is another one
    if any("was damaged" in text for _, text in said):
        assert len(asides(path)) == 1, said
        if "was damaged" in said[0][1]:
            # What a tick did before it came upon the damage stands in it, too.
            assert len(asides(path)[0].read_bytes()) >= len(found)
    else:
        assert asides(path) == []
    return said, gateway.submitted


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger(place: Place, ledger: tuple[bytes, dict[str, Row]], damage: str) -> None:
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    path = Path(place.paths.ledger)
    put_ledger(place, DAMAGES[damage](path.read_bytes()))
    said, submitted = ticks_after(place, path)
    assert [status for status, _ in said[1:]] == [0, 0], said
    # Nothing that was accepted already is submitted again, and what is submitted is so once.
    assert [firing for firing in submitted if firing in before and before[firing][5] == "accepted"] == []
    assert len(submitted) == len(set(submitted))
    if said[0][0] == 74:
        kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
        assert_whole(kept, before)


def assert_whole(kept: dict[str, Row], before: dict[str, Row]) -> None:
    """Whatever is there of the old rows is what it was, but for what a tick has done about the due ones since."""
    for firing in kept.keys() & before.keys():
        was = before[firing]
        if was[5] == "due":
            assert kept[firing][:5] == was[:5]
        else:
            assert kept[firing] == was


def mended(place: Place, now: float = LATER) -> str:
    return str(ledger_module.mend(place.paths.ledger, now))


@pytest.mark.parametrize("seed", range(5))
def test_a_page_that_is_lost_costs_only_its_own_rows(place: Place, seed: int) -> None:
    path = Path(place.paths.ledger)
    content = path.read_bytes()
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    damaged = a_page_of_rows(seed)(content)
    put_ledger(place, damaged)
    text = mended(place)
    assert asides(path)[0].read_bytes() == damaged
    kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
    assert len(before) - 40 < len(kept) < len(before)
    assert kept.items() <= before.items()
    [(gaps,)] = place.select("SELECT count(*) FROM gaps")
    others = len(REMINDERS) + 1 + gaps  # the reminders, the tick's own row
    assert text == (
        f"{path} was damaged: it was put aside as {asides(path)[0]}, and {len(kept) + others:,} rows that could still be"
        " read were kept; what it had beyond these is not known any more"
    )


@pytest.mark.parametrize("part", [b"firings_due", b"firings_reminder"])
def test_an_index_that_is_lost_costs_no_row(place: Place, part: bytes) -> None:
    path = Path(place.paths.ledger)
    before = place.select(WHOLE_FIRING + " ORDER BY id")
    [(root,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = ?", part.decode())
    put_ledger(place, overwrite(path.read_bytes(), root - 1, 3))
    mended(place)
    assert place.select(WHOLE_FIRING + " ORDER BY id") == before


def test_what_is_kept_of_a_truncated_ledger_is_every_row_that_is_left(place: Place) -> None:
    path = Path(place.paths.ledger)
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    content = path.read_bytes()
    half = content[: len(content) // 2]
    left = [firing for firing in before if half.count(firing.encode())]
    put_ledger(place, half)
    mended(place)
    kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
    assert kept.items() <= before.items()
    assert len(kept) > len(left) / 2 > 50


@pytest.mark.parametrize("damage", ["random bytes", "another schema", "schema not UTF-8"])
def test_rows_whose_pages_are_whole_are_kept_though_the_first_page_is_not(place: Place, damage: str) -> None:
    path = Path(place.paths.ledger)
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    content = path.read_bytes()
    if damage == "random bytes":
        content = random.Random(8).randbytes(100) + content[100:]
    else:
        content = content.replace(
            b"    content      TEXT", b"    c\xf3ntent      TEXT" if "UTF" in damage else b"    cantent      TEXT"
        )
    put_ledger(place, content)
    mended(place)
    kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
    assert kept == before


# --- Bytes flipped anywhere


def hold_after_flips(place: Place, seeds: range, first: int, end: int) -> None:
    path = Path(place.paths.ledger)
    good = path.read_bytes()
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    faults: list[str] = []
    for seed in seeds:
        damaged, count = flipped(good, seed, first, end)
        put_ledger(place, damaged)
        try:
            hold_after(place, path, before, count)
        except Exception as error:
            faults.append(f"seed {seed}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    assert faults == [], f"{len(faults)} of {len(seeds)}"


def hold_after(place: Place, path: Path, before: dict[str, Row], count: int) -> None:
    found = path.read_bytes()
    said, submitted = ticks_after(place, path)
    if any(refusal in said[0][1] for refusal in REFUSALS):
        # The bytes that say whose store it is: such a one is left alone.
        assert said == [said[0]] * 3
        assert path.read_bytes() == found
        return
    assert {status for status, _ in said} <= {0, 74, 76}, said
    assert [status for status, _ in said].count(74) <= 1, said
    again = [firing for firing in submitted if firing in before and before[firing][5] == "accepted"]
    assert len(again) <= count, "what was accepted is submitted again"
    if asides(path):
        kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
        other = [firing for firing in kept.keys() & before.keys() if kept[firing][:5] != before[firing][:5]]
        assert len(other) <= count, "rows that are not what they were"


def test_bytes_flipped_in_the_header(place: Place) -> None:
    hold_after_flips(place, range(60), 0, 100)


def test_bytes_flipped_in_the_schema(place: Place) -> None:
    hold_after_flips(place, range(50), 100, PAGE)


def test_bytes_flipped_elsewhere(place: Place) -> None:
    hold_after_flips(place, range(60), PAGE, 1 << 30)


def test_bytes_flipped_where_the_tick_reads(place: Place) -> None:
    """The pages of the tick's own row, of the reminders, and of the firings that wait."""
    [(tick,), (reminders,)] = place.select(
        "SELECT rootpage FROM sqlite_master WHERE name IN ('tick', 'reminders') ORDER BY name DESC"
    )
    for page in (tick, reminders):
        hold_after_flips(place, range(20), page * PAGE - 700, page * PAGE)


SPOILT = {
    "text that is not UTF-8": "UPDATE firings SET content = CAST(x'7bff' AS TEXT) WHERE state = 'due'",
    "a blob for a text": "UPDATE firings SET content = x'7b22' WHERE state = 'due'",
    "a text for an instant": "UPDATE firings SET fire_time = 'soon' WHERE state = 'due'",
    "an instant of no year": "UPDATE firings SET fire_time = 1 << 62 WHERE state = 'due'",
    "the tick's own row gone": "DELETE FROM tick",
    "a last tick that is text": "UPDATE tick SET last_tick = 'noon'",
    "a last tick of no year": "UPDATE tick SET last_tick = 1 << 62",
    "a schedule that is no JSON": "UPDATE reminders SET schedule = '{\"ev'",
    "a schedule that is not UTF-8": "UPDATE reminders SET schedule = CAST(x'ff' AS TEXT)",
    "a next fire time that is text": "UPDATE reminders SET next_at = 'noon'",
    "a next fire time of long ago": "UPDATE reminders SET next_at = -(1 << 62)",
    "a grace that is text": "UPDATE reminders SET grace = 'long'",
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


def test_a_header_that_forbids_to_write_is_damage_as_well(place: Place) -> None:
    content = bytearray(Path(place.paths.ledger).read_bytes())
    content[18] = 0x77  # the version of the format that a writer must know
    path = put_ledger(place, bytes(content))
    said, _ = ticks_after(place, path)
    assert [status for status, _ in said[1:]] == [0, 0]


# --- After it


def test_reminders_that_could_not_be_kept_are_read_from_the_file_again(place: Place) -> None:
    [(root,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = 'reminders'")
    put_ledger(place, overwrite(Path(place.paths.ledger).read_bytes(), root - 1, 4))
    with place.gateway() as gateway:
        assert place.tick(LATER)[0] == 74
        for number in range(1, 4):
            assert place.tick(LATER + number * MINUTE) == (0, "")
    assert place.select("SELECT count(*) FROM reminders") == [(len(REMINDERS),)]
    latest = {firing[0] for firing in gateway.submitted if at(firing.split("@")[1]) > LATER + MINUTE}
    assert latest == set(REMINDERS)


def test_the_minute_in_which_a_ledger_is_mended_is_not_skipped(place: Place) -> None:
    """Nothing of it can be read; what the file says for that minute fires all the same, or has a row that says why not."""
    put_ledger(place, b"no store\n" * 2000)
    with place.gateway():
        assert place.tick(LATER)[0] == 74
        assert place.tick(LATER + MINUTE) == (0, "")
        assert place.tick(LATER + 2 * MINUTE) == (0, "")
    times = {row[0] for row in place.select("SELECT fire_time FROM firings WHERE reminder = 'a'")}
    assert {LATER, LATER + MINUTE, LATER + 2 * MINUTE} <= times


def test_a_second_damage_in_the_same_second_gets_another_name(place: Place) -> None:
    path = Path(place.paths.ledger)
    contents = [f"damage {number}\n".encode() * 1000 for number in range(3)]
    for content in contents:
        path.write_bytes(content)
        assert place.tick(LATER)[0] == 74
    assert sorted(aside.read_bytes() for aside in asides(path)) == contents
    assert place.tick(LATER)[0] == 69 or place.tick(LATER)[0] == 0


@pytest.mark.parametrize("companion", ["-wal", "-journal"])
def test_companions_go_with_it(tmp_path: Path, companion: str) -> None:
    store = tmp_path / "a.db"
    store.write_bytes(b"store")
    (tmp_path / f"a.db{companion}").write_bytes(b"companion")
    aside = Path(salvage.put_aside(str(store), "now"))
    assert (aside.read_bytes(), Path(f"{aside}{companion}").read_bytes()) == (b"store", b"companion")
    # The store itself has both names until the new one takes its place.
    assert sorted(os.listdir(tmp_path)) == sorted(["a.db", aside.name, aside.name + companion])


def half_done(path: Path) -> tuple[bytes, bytes]:
    """Leave a store as a tick does that was killed in its transaction; return the store's bytes and its journal's."""
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA cache_size = 1")
        store.execute("BEGIN IMMEDIATE")
        store.execute("UPDATE firings SET reason = 'half done, and longer than it was before'")
        journal, content = Path(f"{path}-journal").read_bytes(), path.read_bytes()
        store.execute("ROLLBACK")
    return content, journal


def test_a_journal_that_was_left_is_put_aside_as_it_was(place: Place) -> None:
    """It belongs to the damaged file, and neither is changed."""
    path = Path(place.paths.ledger)
    [(root,)] = place.select("SELECT rootpage FROM sqlite_master WHERE name = 'reminders'")
    content, journal = half_done(path)
    content = overwrite(content, root - 1, 4)
    put_ledger(place, content)
    Path(f"{path}-journal").write_bytes(journal)
    mended(place)
    [aside] = asides(path)
    assert (aside.read_bytes(), Path(f"{aside}-journal").read_bytes()) == (content, journal)
    assert place.select("SELECT count(*), count(reason) FROM firings") == [(483, 0)]


def test_a_first_page_that_the_journal_still_has_is_no_damage(place: Place) -> None:
    path = Path(place.paths.ledger)
    before = place.select(WHOLE_FIRING + " ORDER BY id")
    content, journal = half_done(path)
    put_ledger(place, b"not a header" + content[12:])
    Path(f"{path}-journal").write_bytes(journal)
    assert ledger_module.mend(place.paths.ledger, LATER) is None
    assert place.tick(LATER)[0] == 69
    assert asides(path) == []
    after = {row[0]: row for row in place.select(WHOLE_FIRING)}
    assert {row[0] for row in before} <= after.keys()


def test_a_tick_that_comes_second_does_not_put_the_mended_store_aside(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ticks find the damage at once: the second must look again before it moves anything."""
    path = Path(place.paths.ledger)
    put_ledger(place, b"no store\n" * 2000)
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
def test_a_full_disk_while_it_is_mended_loses_no_row(place: Place, room: int) -> None:
    path = Path(place.paths.ledger)
    before = {row[0]: row for row in place.select(WHOLE_FIRING)}
    put_ledger(place, a_page_of_rows(1)(path.read_bytes()))
    damaged = path.read_bytes()
    with no_file_over(room), pytest.raises(StoreError):
        mended(place)
    assert path.read_bytes() == damaged
    assert os.listdir(path.parent) == ["ledger.db"]
    mended(place)
    assert [found.read_bytes() for found in asides(path)] == [damaged]
    kept = {row[0]: row for row in place.select(WHOLE_FIRING)}
    assert len(kept.keys() & before.keys()) > len(before) - 40


@pytest.fixture
def open_house() -> Iterator[Path]:
    """A directory that any user may reach, outside of pytest's own private ones."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: S103 - another user is to look into it
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user, whom a mode keeps from writing")
@pytest.mark.parametrize("damaged", [False, True])
def test_a_directory_that_may_not_be_written_is_left_as_it_is(
    open_house: Path, ledger: tuple[bytes, dict[str, Row]], damaged: bool
) -> None:
    place = Place(open_house / "bub")
    write_reminders(place)
    path = put_ledger(place, b"no store\n" * 2000 if damaged else ledger[0])
    content = path.read_bytes()
    os.chown(path, 65534, 65534)
    os.chmod(path.parent, 0o755)  # noqa: S103 - root's own, so the other user can't write there
    os.seteuid(65534)
    try:
        said = [place.tick(LATER + number * MINUTE) for number in range(2)]
    finally:
        os.seteuid(0)
    for status, text in said:
        assert (status, text.count("\n")) == (74, 1)
        assert text.startswith(f"bub-cron: {path}: ")
        assert "put aside" not in text
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["ledger.db"]


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
            found = await inbox.recover(INBOX_NOON + 60, lambda _: 30.0)
            await inbox.notices()
            await works(inbox)
            return [firing.id for firing in found]

    with within(5):
        return run(main())


async def works(inbox: FakeClockInbox) -> None:
    """Take one firing through it."""
    await inbox.take_in(request(id="afterwards"), INBOX_NOON)
    await inbox.begin_send("afterwards", INBOX_NOON)
    firing, _ = await inbox.finish("afterwards", "delivered", None, INBOX_NOON)
    assert firing.state == "delivered"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_inbox(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]], said: list[str], damage: str
) -> None:
    content, before = filled_inbox
    path = tmp_path / "inbox.db"
    damaged = DAMAGES[damage](content)
    path.write_bytes(damaged)
    found = opened_again(path.parent)
    [aside] = asides(path)
    assert aside.read_bytes() == damaged
    kept = inbox_rows(path)
    del kept["afterwards"]
    assert kept.items() <= before.items()
    assert found == [firing for firing, row in sorted(kept.items()) if row[5] == "accepted"]
    [told] = [line for line in said if "was put aside" in line]
    assert f"{path} was damaged: it was put aside as {aside}, and {len(kept):,} rows" in told
    if damage.startswith("a page of rows"):
        assert len(kept) > len(before) - 40


@pytest.mark.parametrize("part", ["half of it", "the header"])
def test_open_firings_whose_rows_are_whole_are_kept(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]], part: str
) -> None:
    content, before = filled_inbox
    path = tmp_path / "inbox.db"
    path.write_bytes(DAMAGES[part](content))
    opened_again(path.parent)
    kept = inbox_rows(path)
    assert len(kept) > len(before) // 4


def test_an_inbox_with_a_log_beside_it_is_put_aside_as_it_was(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]]
) -> None:
    """A gateway that was killed leaves its write-ahead log: the newest rows are in it alone."""
    path = tmp_path / "inbox.db"
    wal = Path(f"{path}-wal")
    path.write_bytes(filled_inbox[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("UPDATE firings SET state = 'missed' WHERE id = 'f399'")
        log = wal.read_bytes()
    damaged = a_page_of_rows(2)(filled_inbox[0])
    path.write_bytes(damaged)
    wal.write_bytes(log)
    found = opened_again(path.parent)
    assert len(found) >= 60
    assert inbox_rows(path)["f399"][5] == "missed"
    [aside] = asides(path)
    companion = Path(f"{aside}-wal")
    assert (aside.read_bytes(), companion.read_bytes() if companion.exists() else None) == (damaged, log)


def test_an_inbox_that_is_damaged_while_it_is_open_is_mended(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]], said: list[str]
) -> None:
    content, before = filled_inbox
    path = tmp_path / "inbox.db"
    path.write_bytes(content)

    async def main() -> list[str]:
        async with open_inbox(tmp_path) as inbox:
            await inbox.sql("PRAGMA cache_size = 1")  # it is to read the disk, and not what it remembers
            await inbox.sql("PRAGMA shrink_memory")
            with path.open("r+b") as file:  # in place: the connection looks at this very file
                for number in leaves(content, b'"text"')[1:-1]:
                    file.seek(number * PAGE)
                    file.write(random.Random(number).randbytes(PAGE))
            with pytest.raises(DamagedStoreError):
                for firing in before:
                    await inbox.get(firing)
            await works(inbox)
            return [firing.id for firing in await inbox.recover(INBOX_NOON, lambda _: 30.0)]

    found = run(main())
    assert len(asides(path)) == 1
    assert sum("was put aside" in line for line in said) == 1
    kept = inbox_rows(path)
    assert found == [firing for firing, row in sorted(kept.items()) if row[5] == "accepted"] != []


def test_a_full_disk_while_an_inbox_is_mended_loses_no_firing(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]]
) -> None:
    path = tmp_path / "inbox.db"
    path.write_bytes(a_page_of_rows(1)(filled_inbox[0]))
    with no_file_over(60 * 1024), pytest.raises(StoreError):
        opened_again(path.parent)
    assert len(opened_again(path.parent)) > 60


@pytest.mark.parametrize(
    "spoilt",
    [
        'content = \'{"body": "hel\'',
        "content = '[]'",
        "content = CAST(x'7bff' AS TEXT)",
        "content = x'7bff'",
        "reply = CAST(x'ff' AS TEXT)",
        "not_before = 'soon', state = 'retrying'",
        "expires = 'soon'",
    ],
)
def test_one_row_that_no_gateway_wrote_keeps_no_other_from_running(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]], spoilt: str
) -> None:
    path = tmp_path / "inbox.db"
    path.write_bytes(filled_inbox[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute(f"UPDATE firings SET {spoilt} WHERE id = 'f350'")  # noqa: S608 - the test's own words
    found = opened_again(path.parent)
    assert {f"f{number:03}" for number in range(300, 400) if number != 350} <= set(found)


def hold_inbox_after_flips(
    path: Path, filled: tuple[bytes, dict[str, Row]], seeds: range, first: int, end: int
) -> None:
    good, before = filled
    faults: list[str] = []
    for seed in seeds:
        for left in path.parent.iterdir():
            left.unlink()
        damaged, count = flipped(good, seed, first, end)
        path.write_bytes(damaged)
        try:
            hold_inbox_after(path, damaged, before, count)
        except Exception as error:
            faults.append(f"seed {seed}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    assert faults == [], f"{len(faults)} of {len(seeds)}"


def hold_inbox_after(path: Path, damaged: bytes, before: dict[str, Row], count: int) -> None:
    try:
        opened_again(path.parent)
    except StoreError as error:
        if any(refusal in str(error) for refusal in REFUSALS):
            assert path.read_bytes() == damaged
            return
        raise
    kept = inbox_rows(path)
    del kept["afterwards"]
    for aside in asides(path):
        assert aside.read_bytes() == damaged
    assert sum(kept[firing] != before[firing] for firing in kept.keys() & before.keys()) <= count


@pytest.mark.parametrize(("first", "end"), [(0, 100), (100, PAGE), (PAGE, 1 << 30)], ids=["header", "schema", "rows"])
def test_bytes_flipped_in_an_inbox(
    tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]], first: int, end: int
) -> None:
    hold_inbox_after_flips(tmp_path / "inbox.db", filled_inbox, range(40), first, end)


# --- What is refused


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")


def newer(path: Path) -> None:
    inbox_module.open_inbox(str(path)).close()
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(("make", "words"), [(foreign, REFUSALS[0]), (newer, REFUSALS[1])])
def test_an_inbox_that_is_refused_is_left_alone(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "inbox.db"
    make(path)
    content = path.read_bytes()

    async def main() -> None:
        inbox = FakeClockInbox(str(path), most_open=1)
        with pytest.raises(StoreError, match=words):
            await inbox.open()
        await asyncio.wait_for(inbox.close(), 5)

    run(main())
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["inbox.db"]


def test_what_is_counted_is_what_is_there(tmp_path: Path, filled_inbox: tuple[bytes, dict[str, Row]]) -> None:
    """Also where the new store's own checks refuse what came out of the old one."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.write_bytes(filled_inbox[0])
    with closing(sqlite3.connect(old, isolation_level=None)) as store:
        store.execute("PRAGMA ignore_check_constraints = 1")
        store.execute("UPDATE firings SET state = 'flying' WHERE id = 'f007'")
    fresh = inbox_module.open_inbox(str(new))
    with closing(fresh):
        fresh.execute("BEGIN")
        kept = salvage.keep_what_can_be_read(str(old), fresh)
        fresh.execute("COMMIT")
    assert kept == len(inbox_rows(new)) == 399
    assert json.loads(inbox_rows(new)["f008"][4])["body"].startswith("hello 8 ")
