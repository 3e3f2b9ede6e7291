"""records.py: both stores seen as one, without a trace of the looking."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import ledger_kit
import pytest
from fake_gateway import Place, at, firing, insert

from bub_cron.errors import EX_IOERR, DamagedStoreError, StoreError
from bub_cron.records import (
    Record,
    check,
    counts,
    gaps,
    history,
    known_to_inbox,
    last_records,
    last_tick,
    names_in_force,
    not_final,
)
from bub_cron.trigger import firings
from bub_cron.trigger.ledger import Ledger

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
NOON_ID = firing("a", DAY + "12:00:00")
NOON_TEXT = f"{DAY}12:00:00Z"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def record(place: Place, *fire_times: int, reminder: str = "a", state: str | None = None) -> None:
    """Put firings into the ledger; settled, if a state is given, a minute later."""
    ledger_kit.record(
        place.paths.ledger,
        *fire_times,
        name=reminder,
        content='{"text": "from the ledger"}',
        state=state,
        error="the reason",
    )


def found(place: Place, **how: Any) -> list[str]:
    return [entry.id for entry in history(place.paths, **how)]


def one(place: Place) -> Record:
    (entry,) = history(place.paths)
    return entry


def snapshot(place: Place) -> dict[str, tuple[bytes, int, int]]:
    """The state directory's files: contents, modes and times; of the shared memory of a WAL the name alone."""
    return {
        entry.name: (b"", 0, 0)
        if entry.name.endswith("-shm")
        else (entry.read_bytes(), stat.S_IMODE(entry.stat().st_mode), entry.stat().st_mtime_ns)
        for entry in Path(place.paths.state).iterdir()
    }


# --- What status and doctor ask


def test_of_stores_that_are_not_there_nothing_is_known_and_nothing_made(place: Place) -> None:
    assert counts(place.paths, 0, NOON) == {}
    assert not_final(place.paths) == []
    assert gaps(place.paths) == []
    assert names_in_force(place.paths) == []
    assert (last_tick(place.paths).instant, last_tick(place.paths).trouble) == (None, "")
    assert not place.home.exists()


def test_counts_are_of_fire_times_between_two_instants_by_the_word_that_counts(place: Place) -> None:
    record(place, NOON - 60, NOON, NOON + 60, state="accepted")
    place.fill_inbox(id=NOON_ID, reminder="a", fire_time=NOON_TEXT, state="delivered", accepted_at=NOON)
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        firings.record_crowd(ledger, "b", NOON, NOON + 1499, 1500, "{}", NOON + 9000)
    assert counts(place.paths, NOON, NOON + 59) == {"delivered": 1}
    assert counts(place.paths, NOON - 60, NOON + 2000) == {"accepted": 2, "delivered": 1, "missed": 1500}


def test_what_has_no_last_word_in_either_store(place: Place) -> None:
    record(place, NOON)
    record(place, NOON + 60, reminder="b", state="accepted")
    record(place, NOON + 120, reminder="c", state="missed")
    for number, state in enumerate(("running", "retrying", "delivered", "failed")):
        place.fill_inbox(id=f"poke-{number}", state=state, accepted_at=NOON - number)
    ids = [firing("b", DAY + "12:01:00"), NOON_ID, "poke-0", "poke-1"]
    assert sorted(entry.id for entry in not_final(place.paths)) == sorted(ids)
    assert [entry.moment for entry in not_final(place.paths)] == [NOON + 60, NOON, NOON, NOON - 1]


def test_the_last_tick_and_what_it_said(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        ledger.set_last_tick(NOON, NOON)
        ledger.is_news("no gateway", NOON)
        for name in ("b", "a"):
            ledger_kit.put(ledger, name=name)
    assert (last_tick(place.paths).instant, last_tick(place.paths).trouble) == (NOON, "no gateway")
    assert names_in_force(place.paths) == ["a", "b"]


def test_gaps_are_those_that_ended_since_the_newest_first(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        for began in (NOON, NOON + 7200, NOON + 3600):
            ledger.note_gap(began, began + 600)
    assert gaps(place.paths, NOON + 4200) == [(NOON + 7200, NOON + 7800), (NOON + 3600, NOON + 4200)]
    assert len(gaps(place.paths)) == 3


def test_a_ledger_of_the_version_before_has_no_gaps(place: Place) -> None:
    record(place, NOON)
    with closing(sqlite3.connect(place.paths.ledger)) as store:
        store.execute("DROP TABLE gaps")
    assert gaps(place.paths) == []


def test_the_time_range_has_both_its_ends(place: Place) -> None:
    record(place, NOON - 60, NOON, NOON + 60)
    place.fill_inbox(id="poke-1", fire_time="a label", accepted_at=NOON + 30.5)
    assert found(place, since=NOON, until=NOON + 31) == ["poke-1", NOON_ID]
    assert found(place, since=NOON + 61) == []
    assert found(place, until=NOON - 60) == [firing("a", DAY + "11:59:00")]


@pytest.mark.parametrize("side", ["ledger", "inbox"])
def test_a_store_is_looked_through_without_a_trace(place: Place, side: str) -> None:
    record(place, NOON)
    place.fill_inbox(id="poke-1")
    path = Path(getattr(place.paths, side))
    before = snapshot(place)
    check(str(path))
    assert snapshot(place) == before
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(DamagedStoreError, match=f"{side}.db is damaged"):
        check(str(path))
    path.write_bytes(b"")
    with pytest.raises(DamagedStoreError, match="it is empty"):
        check(str(path))


@pytest.mark.parametrize(
    ("state", "reason", "error", "bad"),
    [
        ("missed", "late", "its grace was over", True),
        ("missed", "past", "already past when it was saved", False),
        ("missed", None, "a@x still ran", False),
        ("skipped", "edited", "its reminder was removed", False),
        ("skipped", "superseded", "a@x starts in its place", False),
        ("rejected", "rejected", "edited: a gateway's own word", True),
        ("accepted", None, None, False),
    ],
)
def test_what_is_bad_is_what_nobody_chose(
    place: Place, state: str, reason: str | None, error: str | None, bad: bool
) -> None:
    ledger_kit.record(place.paths.ledger, NOON, name="a", content="{}", state=state, error=error, reason=reason)
    assert (one(place).reason, one(place).is_bad) == (reason, bad)


# --- What is seen


def test_stores_that_are_not_there_are_empty_and_are_not_made(place: Place) -> None:
    assert history(place.paths) == []
    assert last_records(place.paths) == {}
    assert not place.home.exists()


@pytest.mark.parametrize("side", ["ledger", "inbox"])
def test_a_file_without_a_byte_is_a_damaged_store(place: Place, side: str) -> None:
    os.makedirs(place.paths.state)
    path = Path(getattr(place.paths, side))
    path.touch()
    with pytest.raises(StoreError, match=f"{side}.db is damaged: it is empty"):
        history(place.paths)


@pytest.mark.parametrize("state", [None, "accepted", "missed", "rejected"])
def test_the_ledger_alone(place: Place, state: str | None) -> None:
    record(place, NOON, state=state)
    entry = one(place)
    assert {name: getattr(entry, name) for name in Record.__slots__} == {
        "id": NOON_ID, "reminder": "a", "fire_time": NOON_TEXT, "count": 1, "content": '{"text": "from the ledger"}',
        "outcome": state or "due", "attempts": 0, "sends": 0, "error": "the reason" if state else None, "reply": None,
        "tokens": None, "accepted_at": None, "started_at": None, "reason": None,
        "finished_at": NOON + 60 if state in ("missed", "rejected") else None, "moment": NOON,
    }  # fmt: skip


def test_the_inbox_alone(place: Place) -> None:
    columns = {
        "id": "poke-7", "reminder": None, "fire_time": "lunch", "content": "{}", "attempts": 2, "sends": 1, "error": "e",
        "reply": "r", "tokens": 9, "accepted_at": 5.5, "started_at": 6.0, "finished_at": 8.25,
    }  # fmt: skip
    place.fill_inbox(state="failed", **columns)
    entry = one(place)
    assert {name: getattr(entry, name) for name in Record.__slots__} == {
        **columns,
        "outcome": "failed",
        "reason": None,
        "count": 1,
        "moment": 5.5,
    }
    assert entry.seconds == 2.25


def test_what_the_inbox_has_pruned_is_what_it_was(place: Place) -> None:
    record(place, NOON, state="accepted")
    with closing(Ledger(place.paths.ledger)) as ledger:
        firings.keep_outcomes(ledger, [(NOON_ID, "delivered")])
    assert one(place).outcome == "delivered"
    assert counts(place.paths, 0, NOON) == {"delivered": 1}
    assert not_final(place.paths) == []


@pytest.mark.parametrize("state", [None, "accepted", "missed", "rejected"])
@pytest.mark.parametrize("word", ["accepted", "running", "delivered", "unknown"])
def test_where_both_have_a_word_the_inboxs_counts(place: Place, state: str | None, word: str) -> None:
    record(place, NOON, state=state)
    place.fill_inbox(
        id=NOON_ID, reminder="a", fire_time=NOON_TEXT, state=word, content="{}", attempts=1, accepted_at=NOON + 1
    )
    entry = one(place)
    assert (entry.outcome, entry.attempts, entry.error, entry.content) == (word, 1, None, "{}")
    assert (entry.fire_time, entry.accepted_at, entry.finished_at) == (NOON_TEXT, NOON + 1, None)


def test_seconds_are_known_once_it_ended_and_never_negative() -> None:
    row = ["id", None, None, 1, "{}", "ran", 1, 0, None, None, None, 1.0, 5.0, None, None, 1.0]
    assert Record(row).seconds is None
    assert Record([*row[:13], 7.5, None, 1.0]).seconds == 2.5
    assert Record([*row[:13], 4.0, None, 1.0]).seconds == 0  # the clock went back meanwhile
    assert Record([*row[:12], None, 7.5, None, 1.0]).seconds is None


def test_the_newest_come_first_whichever_store_they_are_in(place: Place) -> None:
    record(place, NOON, NOON + 120)
    place.fill_inbox(id="poke-1", accepted_at=NOON + 60)
    place.fill_inbox(id="poke-2", accepted_at=0, fire_time=f"{DAY}12:03:00Z")
    ids = ["poke-2", firing("a", DAY + "12:02:00"), "poke-1", NOON_ID]
    assert found(place) == ids
    assert found(place, most=2) == ids[:2]


@pytest.mark.parametrize("label", ["12:30", "7", "2460000.5"])
def test_a_label_that_is_no_instant_does_not_order(place: Place, label: str) -> None:
    record(place, NOON)
    place.fill_inbox(id="poke-1", accepted_at=NOON + 60, fire_time=label)
    assert found(place, most=1) == ["poke-1"]


def test_they_can_be_chosen_by_reminder_and_outcome(place: Place) -> None:
    record(place, NOON, NOON + 60)
    record(place, NOON, reminder="b")
    place.fill_inbox(id=NOON_ID, reminder="a", fire_time=NOON_TEXT, state="delivered")
    assert found(place, reminder="a") == [firing("a", DAY + "12:01:00"), NOON_ID]
    assert found(place, outcome="delivered") == [NOON_ID]
    assert found(place, outcome="due", reminder="b") == [firing("b", DAY + "12:00:00")]
    assert found(place, reminder="' OR 1") == []


def test_each_reminders_last(place: Place) -> None:
    record(place, NOON, NOON + 60, state="accepted")
    record(place, NOON, reminder="b")
    place.fill_inbox(id=firing("a", DAY + "12:01:00"), reminder="a", fire_time=f"{DAY}12:01:00Z", state="delivered")
    place.fill_inbox(id="fire-b-1", reminder="b", state="failed", accepted_at=NOON + 1)
    place.fill_inbox(id="poke-1", state="failed", accepted_at=NOON + 99)
    assert {name: (entry.id, entry.outcome) for name, entry in last_records(place.paths).items()} == {
        "a": (firing("a", DAY + "12:01:00"), "delivered"),
        "b": ("fire-b-1", "failed"),
    }


def test_a_crowd_is_one_record_with_its_count(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        firings.record_crowd(ledger, "a", NOON, NOON + 60, 2, "{}", NOON + 70_000)
    crowd = history(place.paths)[-1]
    assert (crowd.count, crowd.fire_time) == (2, f"{DAY}12:01:00Z")


# --- What can't be read


def spoil_text(path: str) -> None:
    Path(path).write_text("Dear diary,\n" * 100)


def spoil_foreign(path: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")


def spoil_directory(path: str) -> None:
    os.mkdir(path)


@pytest.mark.parametrize("name", ["ledger", "inbox"])
@pytest.mark.parametrize("spoil", [spoil_text, spoil_foreign, spoil_directory])
def test_a_store_that_cannot_be_read_is_an_error_and_left_alone(
    place: Place, name: str, spoil: Callable[[str], None]
) -> None:
    path = getattr(place.paths, name)
    os.makedirs(place.paths.state)
    spoil(path)
    before = snapshot(place) if spoil is not spoil_directory else None
    for read in (history, last_records):
        with pytest.raises(StoreError) as caught:
            read(place.paths)
        assert place.paths.state in str(caught.value)
        assert caught.value.exit_status == EX_IOERR
    assert before is None or snapshot(place) == before
    assert os.listdir(place.paths.state) == [os.path.basename(path)]


# --- Whether the inbox knows


def test_the_inbox_tells_which_ids_it_knows(place: Place) -> None:
    place.fill_inbox(id="x")
    place.fill_inbox(id="y")
    assert known_to_inbox(place.paths.inbox, ["x", "z", "y"]) == {"x", "y"}
    assert known_to_inbox(place.paths.inbox, ["z"]) == set()


@pytest.mark.parametrize("content", [None, b"", b"no database at all", b"SQLite format 3\0" + b"\xff" * 4096])
def test_nobody_knows_without_an_inbox_that_can_be_read(place: Place, content: bytes | None) -> None:
    os.makedirs(place.paths.state)
    if content is not None:
        Path(place.paths.inbox).write_bytes(content)
    assert known_to_inbox(place.paths.inbox, ["x"]) is None
    assert os.listdir(place.paths.state) == ([] if content is None else ["inbox.db"])


@pytest.mark.parametrize("name", ["with space", "100%", "a?b", "a#b", "ü", "a&mode=rwc"])
def test_any_directory_name_will_do(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path / name)
    record(place, NOON)
    place.fill_inbox(id=NOON_ID, state="delivered")
    assert one(place).outcome == "delivered"
    assert known_to_inbox(place.paths.inbox, [NOON_ID]) == {NOON_ID}


# --- No trace

WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fake_gateway import Place, insert
store = Place(Path(sys.argv[1])).open_inbox()
insert(store, id="in-the-wal", state="delivered")
print("ready", flush=True)
sys.stdin.read()
"""


def gateway_process(place: Place) -> subprocess.Popen[str]:
    """A process that has the inbox open and has written to it."""
    command = [sys.executable, "-c", WRITER, str(place.home), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def look(place: Place) -> None:
    assert {entry.id for entry in history(place.paths)} == {NOON_ID, "in-the-wal"}
    assert last_records(place.paths)["a"].id == NOON_ID
    assert known_to_inbox(place.paths.inbox, ["in-the-wal", "z"]) == {"in-the-wal"}


def test_looking_at_stores_at_rest_leaves_no_trace(place: Place) -> None:
    record(place, NOON)
    place.fill_inbox(id="in-the-wal")
    before = snapshot(place)
    look(place)
    assert snapshot(place) == before
    assert set(before) == {"ledger.db", "inbox.db"}


def test_looking_at_an_inbox_in_use_leaves_no_trace(place: Place) -> None:
    record(place, NOON)
    process = gateway_process(place)
    before = snapshot(place)
    look(place)
    assert snapshot(place) == before
    assert len(before["inbox.db-wal"][0]) > 0
    process.communicate()


@pytest.mark.parametrize("lost", ["", "-shm"])
def test_looking_at_what_a_kill_left_changes_no_byte(place: Place, lost: str) -> None:
    record(place, NOON)
    process = gateway_process(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if lost:
        os.unlink(place.paths.inbox + lost)
    before = snapshot(place)
    look(place)
    # Without its shared memory, SQLite makes one to read the WAL; that holds nothing of its own.
    assert {**before, "inbox.db-shm": (b"", 0, 0)} == snapshot(place)


def test_looking_at_what_a_kill_left_changes_nothing_for_the_next_gateway(place: Place) -> None:
    record(place, NOON)
    process = gateway_process(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    look(place)
    with closing(place.open_inbox()) as store:
        insert(store, id="next")
    assert known_to_inbox(place.paths.inbox, ["in-the-wal", "next"]) == {"in-the-wal", "next"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("gateway", ["never ran", "stopped", "runs", "was killed"])
def test_a_user_who_may_only_read_can_look(gateway: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        place = Place(Path(home) / "bub")
        record(place, NOON)
        if gateway == "stopped":
            place.fill_inbox(id="in-the-wal")
        process = gateway_process(place) if gateway in ("runs", "was killed") else None
        if process is not None and gateway == "was killed":
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for path in (home, place.home, place.paths.state):
            os.chmod(path, 0o755)  # noqa: S103 - that is what is tested
        for entry in Path(place.paths.state).iterdir():
            entry.chmod(0o644)
        before = snapshot(place)
        os.seteuid(65534)
        try:
            ids = {entry.id for entry in history(place.paths)}
        finally:
            os.seteuid(0)
        assert ids == {NOON_ID} | ({"in-the-wal"} if gateway != "never ran" else set())
        assert snapshot(place) == before
        if process is not None:
            process.communicate()
        shutil.rmtree(place.home)
