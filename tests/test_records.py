"""records.py: both stores seen as one, without a trace of the looking."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import ledger_kit
import pytest
from fake_gateway import Place, at, firing, insert
from test_migrations import copied

from bub_cron import records
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
    lost,
    names_in_force,
    waiting,
)
from bub_cron.states import BAD, IN_INBOX, OUTCOMES
from bub_cron.trigger import firings
from bub_cron.trigger.firings import Verdict
from bub_cron.trigger.ledger import Ledger
from bub_cron.wire import firing_id as firing_id_of
from bub_cron.wire import iso

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
    assert waiting(place.paths) == lost(place.paths, 0, NOON) == []
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


def test_what_waits_for_a_gateway_or_is_open_in_its_inbox(place: Place) -> None:
    record(place, NOON + 60, reminder="b", state="accepted")
    record(place, NOON + 120, reminder="c", state="missed")
    record(place, NOON)
    record(place, NOON + 180, reminder="d")
    place.fill_inbox(id=firing("d", DAY + "12:03:00"), reminder="d", fire_time=f"{DAY}12:03:00Z", state="delivered")
    for number, state in enumerate(("running", "retrying", "accepted", "delivered", "failed")):
        place.fill_inbox(id=f"poke-{number}", state=state, accepted_at=NOON - number)
    assert [entry.id for entry in waiting(place.paths)] == ["poke-0", NOON_ID, "poke-1", "poke-2"]


def test_what_a_gateway_accepted_and_its_inbox_does_not_have_is_lost(place: Place) -> None:
    record(place, NOON, NOON + 60, NOON + 120, state="accepted")
    record(place, NOON + 60, reminder="b")
    assert lost(place.paths, 0, NOON + 999) == [], "the inbox is elsewhere"
    place.fill_inbox(id=NOON_ID, reminder="a", fire_time=NOON_TEXT)
    ids = [firing("a", DAY + "12:02:00"), firing("a", DAY + "12:01:00")]
    assert [entry.id for entry in lost(place.paths, 0, NOON + 999)] == ids
    assert [entry.id for entry in lost(place.paths, NOON + 60, NOON + 119)] == ids[1:]


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
    ("state", "reason", "bad"),
    [(state, None, state in BAD) for state in sorted(IN_INBOX)]
    + [("missed", "late", True), ("missed", "downtime", True), ("missed", "past", False), ("failed", "past", True)],
)
def test_what_is_bad_is_told_by_outcome_and_reason(place: Place, state: str, reason: str | None, bad: bool) -> None:
    place.fill_inbox(state=state, reason=reason, error="edited: whatever a sentence says")
    assert one(place).is_bad is bad


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
        "outcome": state or "due", "reason": {"missed": "late", "rejected": "rejected"}.get(state or ""), "attempts": 0,
        "sends": 0, "error": "the reason" if state else None, "reply": None, "gate": None, "messages": [],
        "tokens": None, "accepted_at": None, "started_at": None,
        "finished_at": NOON + 60 if state in ("missed", "rejected") else None, "moment": NOON,
    }  # fmt: skip


def test_the_inbox_alone(place: Place) -> None:
    columns = {
        "id": "poke-7", "reminder": None, "fire_time": "lunch", "attempts": 2, "reason": "attempts", "error": "e",
        "reply": "r", "gate": None, "tokens": 9, "accepted_at": 5.5, "started_at": 6.0, "finished_at": 8.25,
    }  # fmt: skip
    place.fill_inbox(state="failed", request="{}", messages=[{"sends": 2}, {"kind": "notice", "error": "x"}], **columns)
    entry = one(place)
    messages = [tuple(message) for message in entry.messages]
    assert messages == [
        ("poke-7", 1, "reply", "telegram:1", "delivered", 2, None),
        ("poke-7", 2, "notice", "telegram:1", "delivered", 1, "x"),
    ]
    assert {name: getattr(entry, name) for name in Record.__slots__ if name != "messages"} == {
        **columns,
        "outcome": "failed",
        "content": "{}",
        "sends": 2,
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
    place.open_inbox().close()
    assert lost(place.paths, 0, NOON) == []


@pytest.mark.parametrize("state", [None, "accepted", "missed", "rejected"])
@pytest.mark.parametrize("word", ["accepted", "running", "delivered", "unknown"])
def test_where_both_have_a_word_the_inboxs_counts(place: Place, state: str | None, word: str) -> None:
    record(place, NOON, state=state)
    place.fill_inbox(
        id=NOON_ID, reminder="a", fire_time=NOON_TEXT, state=word, request="{}", attempts=1, accepted_at=NOON + 1
    )
    entry = one(place)
    assert (entry.outcome, entry.attempts, entry.error, entry.content) == (word, 1, None, "{}")
    assert (entry.fire_time, entry.accepted_at, entry.finished_at) == (NOON_TEXT, NOON + 1, None)


@pytest.mark.parametrize(
    ("started", "finished", "seconds"),
    [(5.0, None, None), (None, 7.5, None), (5.0, 7.5, 2.5), (5.0, 4.0, 0)],  # the last: the clock went back meanwhile
)
def test_seconds_are_known_once_it_ended_and_never_negative(
    place: Place, started: float | None, finished: float | None, seconds: float | None
) -> None:
    place.fill_inbox(started_at=started, finished_at=finished)
    assert one(place).seconds == seconds


@pytest.mark.parametrize(
    ("content", "text", "to"),
    [
        ('{"kind": "text", "body": "x", "to": "t:1"}', "x", "t:1"),
        ('{"kind": "prompt", "body": "x", "to": "t:1"}', None, "t:1"),
        ('{"text": "x", "to": "t:1"}', "x", "t:1"),  # as the ledger has it
        ('{"text": 7, "to": []}', None, None),
        ("[]", None, None),
        ("{", None, None),
        ("[" * 100_000, None, None),
    ],
)
def test_what_a_request_said_is_shown_as_well_as_it_can_be(
    place: Place, content: str, text: str | None, to: str | None
) -> None:
    place.fill_inbox(request=content)
    assert (one(place).text, one(place).to) == (text, to)


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
    assert found(place, firing_id=NOON_ID) == found(place, firing_id=NOON_ID, outcome="delivered") == [NOON_ID]
    assert found(place, firing_id=NOON_ID, outcome="due") == [], "the ledger's word counts no more"
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


# --- Both stores, at random, against a plain reading of all rows


def fill_at_random(place: Place, chance: random.Random) -> list[dict[str, Any]]:
    """Put firings into both stores; return what is to be seen of each."""
    expected: dict[str, dict[str, Any]] = {}
    with closing(Ledger(place.paths.ledger)) as ledger, closing(place.open_inbox()) as inbox:
        for reminder in ("a", "b", "c"):
            for moment in sorted(chance.sample(range(NOON, NOON + 3000, 60), 20)):
                with ledger.transaction():
                    firings.record(ledger, reminder, [moment], content="{}", grace=0, now=moment)
                firing_id = firing_id_of(reminder, iso(moment))
                state = chance.choice([None, "accepted", "accepted", "missed", "rejected"])
                if state is not None:
                    ledger_kit.settle(ledger, [firing_id], state, None, moment)
                expected[firing_id] = {"reminder": reminder, "moment": moment, "outcome": state or "due"}
                if state == "accepted" or chance.random() < 0.1:
                    word = chance.choice(sorted(IN_INBOX))
                    insert(
                        inbox, id=firing_id, reminder=reminder, fire_time=iso(moment), state=word, accepted_at=moment
                    )
                    expected[firing_id]["outcome"] = word
        for number in range(30):
            poke = {"reminder": chance.choice([None, "a", "z"]), "moment": chance.randrange(NOON, NOON + 3000, 60)}
            word = chance.choice(sorted(IN_INBOX))
            insert(inbox, id=f"poke-{number}", state=word, accepted_at=0, **poke)
            expected[f"poke-{number}"] = {**poke, "outcome": word}
    rows = [{"firing_id": firing_id, **row} for firing_id, row in expected.items()]
    return sorted(rows, key=lambda row: (row["moment"], row["firing_id"]), reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_every_choice_finds_the_same_as_a_plain_reading_of_all_rows(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    rows = fill_at_random(place, chance)
    for _ in range(300):
        how: dict[str, Any] = {
            "reminder": chance.choice([None, None, "a", "b", "z"]),
            "outcome": chance.choice([None, *OUTCOMES]),
            "since": chance.choice([None, NOON + chance.randrange(3000)]),
            "until": chance.choice([None, NOON + chance.randrange(3000)]),
            "firing_id": chance.choice([None] * 9 + [chance.choice(rows)["firing_id"]]),
            "most": chance.choice([None, 1, 5, 20]),
        }
        expected = [
            row["firing_id"]
            for row in rows
            if all(how[name] in (None, row[name]) for name in ("reminder", "outcome", "firing_id"))
            and (how["since"] is None or row["moment"] >= how["since"])
            and (how["until"] is None or row["moment"] <= how["until"])
        ]
        assert found(place, **how) == expected[: how["most"]], how
    for since, until in ((0, NOON * 2), (NOON + 600, NOON + 1200)):
        between = [row for row in rows if since <= row["moment"] <= until]
        newest = {row["reminder"]: row["firing_id"] for row in reversed(between) if row["reminder"]}
        assert {name: entry.id for name, entry in last_records(place.paths, since, until).items()} == newest
        assert counts(place.paths, since, until) == Counter(row["outcome"] for row in between)


# --- What it costs

CHEAP: dict[str, Callable[[Place], object]] = {
    "log": lambda place: history(place.paths, most=20),
    "log NAME": lambda place: history(place.paths, reminder="r7", most=20),
    "log --id": lambda place: history(place.paths, firing_id="r7@100", most=20),
    "log --since": lambda place: history(place.paths, since=NOON - 50, most=20),
    "log --until": lambda place: history(place.paths, until=NOON - 50, most=20),
    "list": lambda place: last_records(place.paths),
    "status": lambda place: (
        counts(place.paths, NOON - 50, NOON),
        waiting(place.paths),
        lost(place.paths, NOON - 50, NOON),
    ),
}


def fill_both(place: Place, count: int) -> None:
    """Put the same firings into both stores: of ten reminders, one a second until noon."""
    Ledger(place.paths.ledger).close()
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
    row = f"'r' || (n % 10) || '@' || n AS id, 'r' || (n % 10) AS reminder, {NOON} - n"
    with closing(sqlite3.connect(place.paths.ledger)) as ledger, ledger:
        ledger.execute(
            f"{numbers} INSERT INTO firings (id, reminder, fire_time, expires, content, state, recorded_at)"  # noqa: S608
            f" SELECT {row}, 0, '{{}}', 'accepted', 0 FROM numbers",
            (count,),
        )
    with closing(place.open_inbox()) as inbox:
        inbox.execute(
            f"{numbers} INSERT INTO firings (id, reminder, moment, request, expires, state, accepted_at)"  # noqa: S608
            f" SELECT {row} + 0.0, '{{}}', 0.0, 'delivered', 0.0 FROM numbers",
            (count,),
        )


@pytest.mark.parametrize("what", CHEAP)
def test_what_it_costs_to_ask_does_not_grow_with_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    steps = 0

    def connect(*arguments: Any, **how: Any) -> sqlite3.Connection:
        def step() -> None:
            nonlocal steps
            steps += 1

        view: sqlite3.Connection = real(*arguments, **how)
        view.set_progress_handler(step, 10)  # instructions of SQLite's machine
        return view

    real = sqlite3.connect
    few, many = Place(tmp_path / "few"), Place(tmp_path / "many")
    fill_both(few, 200)
    fill_both(many, 20_000)
    monkeypatch.setattr(sqlite3, "connect", connect)
    asked = []
    for place in (few, many):
        steps = 0
        CHEAP[what](place)
        asked.append(steps)
    assert asked[1] <= 1.5 * asked[0] + 10, asked


# --- Stores of other versions


def ledger_of_version_3(place: Place, *rows: dict[str, Any]) -> None:
    """A ledger whose reason is a code, with what a tick has learnt of the inbox's outcome."""
    Ledger(place.paths.ledger).close()
    with closing(sqlite3.connect(place.paths.ledger)) as store, store:
        for row in rows:
            whole = {
                "reminder": "a",
                "expires": 0,
                "content": "{}",
                "recorded_at": NOON,
                "settled_at": NOON + 60,
                **row,
            }
            whole["id"] = firing_id_of("a", iso(whole["fire_time"]))
            marks = ", ".join("?" * len(whole))
            store.execute(f"INSERT INTO firings ({', '.join(whole)}) VALUES ({marks})", tuple(whole.values()))  # noqa: S608


def test_the_ledger_of_version_3_says_what_it_knows(place: Place) -> None:
    ledger_of_version_3(
        place,
        {"fire_time": NOON + 240, "state": "due", "settled_at": None},
        {"fire_time": NOON + 180, "state": "accepted"},
        {"fire_time": NOON + 120, "state": "accepted", "outcome": "failed", "reason": "attempts", "error": "boom"},
        {"fire_time": NOON + 60, "state": "skipped", "reason": "paused", "error": "holidays"},
        {"fire_time": NOON, "state": "missed", "reason": "past"},
    )
    place.fill_inbox(id=firing("a", DAY + "12:02:00"), reminder="a", fire_time=f"{DAY}12:02:00Z", state="silent")
    seen = [(entry.outcome, entry.reason, entry.error, entry.finished_at) for entry in history(place.paths)]
    learnt = ("silent", None, None, None)
    assert seen == [
        ("due", None, None, None), ("accepted", None, None, None), learnt, ("skipped", "paused", "holidays", NOON + 60),
        ("missed", "past", None, NOON + 60),
    ]  # fmt: skip
    os.unlink(place.paths.inbox)
    assert [(entry.outcome, entry.reason, entry.error) for entry in history(place.paths)][2] == (
        "failed",
        "attempts",
        "boom",
    )
    assert found(place, outcome="accepted") == [firing("a", DAY + "12:03:00")]
    assert [entry.is_bad for entry in history(place.paths)] == [False, False, True, False, False]
    place.open_inbox().close()
    assert [entry.id for entry in lost(place.paths, 0, NOON + 999)] == [firing("a", DAY + "12:03:00")]


@pytest.mark.parametrize(
    ("sentence", "outcome", "reason"),
    [
        ("too late: its grace was over before a gateway could take it", "missed", "late"),
        (None, "missed", "late"),
        ("already past when it was saved", "missed", "past"),
        ("1,234 fire times passed while no tick ran", "missed", "downtime"),
        ("edited: its reminder was removed", "skipped", "edited"),
        ("catching up: a@x starts in its place", "skipped", "superseded"),
    ],
)
def test_the_sentences_of_a_ledger_of_version_2(place: Place, sentence: str | None, outcome: str, reason: str) -> None:
    copied("ledger-2.db", Path(place.paths.state))
    with closing(sqlite3.connect(place.paths.ledger)) as store, store:
        store.execute(
            "INSERT INTO firings (id, reminder, fire_time, expires, content, state, reason, recorded_at, settled_at)"
            " VALUES ('x', 'x', ?, 0, '{}', 'missed', ?, 0, ?)",
            (NOON, sentence, NOON + 60),
        )
    (entry,) = history(place.paths, reminder="x")
    assert (entry.outcome, entry.reason, entry.error, entry.finished_at) == (outcome, reason, sentence, NOON + 60)


@pytest.mark.parametrize("name", ["inbox-1.db", "inbox-2.db", "ledger-1.db", "ledger-2.db"])
def test_an_older_store_says_the_same_before_and_after_it_is_brought_up_to_date(place: Place, name: str) -> None:
    path = str(copied(name, Path(place.paths.state)))

    def seen() -> list[Any]:
        fields = [field for field in Record.__slots__ if field not in ("messages", "sends")]
        rows = [{field: getattr(entry, field) for field in fields} for entry in history(place.paths)]
        last = {reminder: entry.id for reminder, entry in last_records(place.paths).items()}
        ids = sorted(entry.id for entry in waiting(place.paths))
        return [
            rows,
            last,
            ids,
            counts(place.paths, 0, NOON * 2),
            last_tick(place.paths).instant,
            names_in_force(place.paths),
        ]

    before = seen()
    assert len(before[0]) >= 25
    if name.startswith("inbox"):
        place.open_inbox().close()
    else:
        Ledger(path).close()
    assert seen() == before


def test_an_older_inbox_with_a_label_that_is_no_instant(place: Place) -> None:
    copied("inbox-2.db", Path(place.paths.state))
    with closing(sqlite3.connect(place.paths.inbox)) as store, store:
        store.execute("UPDATE firings SET fire_time = '2026-99-99T99:99:99Z'")
    entries = history(place.paths)
    assert [entry.moment for entry in entries] == sorted((entry.accepted_at or 0 for entry in entries), reverse=True)


# --- What a tick that was killed left half written

KILLED = """
import os, signal, sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None)
ledger.execute("PRAGMA cache_size=1")
ledger.execute("BEGIN IMMEDIATE")
ledger.execute("UPDATE firings SET state = 'rejected', content = content || hex(randomblob(500))")
ledger.execute("UPDATE tick SET last_tick = 1, trouble = 'half'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_tick_left_half_written_is_not_seen_and_stays_as_it_is(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = range(NOON, NOON + 200 * 60, 60)
    record(place, *times)
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        ledger.set_last_tick(NOON, NOON)
        ledger_kit.put(ledger)
    whole = Path(place.paths.ledger).read_bytes()
    subprocess.run([sys.executable, "-c", KILLED, place.paths.ledger], check=False)
    before = snapshot(place)
    assert set(before) == {"ledger.db", "ledger.db-journal"}
    assert before["ledger.db"][0] != whole, "nothing was half written"
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))

    entries = history(place.paths)
    assert [entry.moment for entry in entries] == list(reversed(times))
    assert {(entry.outcome, entry.content) for entry in entries} == {("due", '{"text": "from the ledger"}')}
    assert (last_tick(place.paths).instant, last_tick(place.paths).trouble) == (NOON, "")
    assert names_in_force(place.paths) == ["a"]
    check(place.paths.ledger)
    assert snapshot(place) == before
    assert list(copies.iterdir()) == []


def test_a_journal_of_a_tick_that_is_at_work_is_no_trace_of_a_killed_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(place, NOON)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: pytest.fail("there is nothing to roll back"))
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        firings.settle(ledger, [Verdict(NOON_ID, "accept")], NOON)
        assert os.path.exists(f"{place.paths.ledger}-journal")
        assert one(place).outcome == "due"
    assert one(place).outcome == "accepted"


def test_an_inbox_that_a_gateway_opens_while_it_is_read_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.fill_inbox(id="x", state="running")
    opened: list[sqlite3.Connection] = []
    real = records._define

    def define(view: sqlite3.Connection) -> None:
        real(view)
        if not opened:
            opened.append(place.open_inbox())
            opened[0].execute("UPDATE firings SET state = 'delivered'")

    monkeypatch.setattr(records, "_define", define)
    try:
        assert one(place).outcome == "delivered"
    finally:
        opened[0].close()


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
