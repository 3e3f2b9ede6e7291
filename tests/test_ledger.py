"""trigger/ledger.py: each fire time once, each state left only as its table says, each line as the gateway reads it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import version_1

from bub_cron.errors import DamagedStoreError
from bub_cron.store import open_store
from bub_cron.trigger.ledger import APPLICATION_ID, Ledger, mend
from bub_cron.wire import Request, iso, parse_request

NOON = 1_795_608_000  # 2026-11-25T12:00:00Z
HOUR = 3600
CONTENT = json.dumps({"reminder": "a", "to": "telegram:1", "text": 'Grüße "you"\n'}, ensure_ascii=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(str(tmp_path / "ledger.db"))) as opened:
        yield opened


def put(ledger: Ledger, **columns: Any) -> None:
    row = {
        "name": "a", "schedule": "s", "content": CONTENT, "enabled": 1, "grace": HOUR, "catch_up": "latest",
        "next_at": None, **columns,
    }  # fmt: skip
    ledger.put_reminders("f", [tuple(row.values())])


def rows(ledger: Ledger, columns: str = "id, state, reason") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(ledger.path)) as store:
        return store.execute(f"SELECT {columns} FROM firings ORDER BY fire_time, id").fetchall()  # noqa: S608


def record(ledger: Ledger, *fire_times: int, now: int = NOON, **how: Any) -> None:
    ledger.record("a", fire_times, **{"content": CONTENT, "grace": HOUR, "now": now, **how})


# --- Recording


def test_a_fire_time_is_due_within_its_grace_and_missed_after_it(ledger: Ledger) -> None:
    record(ledger, NOON - HOUR - 1, NOON - HOUR, NOON)
    assert rows(ledger) == [
        ("a@2026-11-25T10:59:59Z", "missed", "its grace was over before a tick ran"),
        ("a@2026-11-25T11:00:00Z", "due", None),
        ("a@2026-11-25T12:00:00Z", "due", None),
    ]
    assert rows(ledger, "expires, recorded_at, settled_at, submitted_at") == [
        (NOON - 1, NOON, NOON, None),
        (NOON, NOON, None, None),
        (NOON + HOUR, NOON, None, None),
    ]


def test_what_was_past_already_is_missed_whatever_its_grace(ledger: Ledger) -> None:
    record(ledger, NOON, past="already past")
    assert rows(ledger) == [("a@2026-11-25T12:00:00Z", "missed", "already past")]


@pytest.mark.parametrize("state", ["due", "accepted", "missed", "rejected"])
def test_a_known_id_stays_as_it_is(ledger: Ledger, state: str) -> None:
    record(ledger, NOON)
    if state != "due":
        ledger.settle([("a@2026-11-25T12:00:00Z", state, "why")], NOON)
    before = rows(ledger, "*")
    record(ledger, NOON, content="{}", grace=1, now=NOON + 9 * HOUR)
    record(ledger, NOON, past="past")
    assert rows(ledger, "*") == before


def test_what_a_clock_that_was_ahead_called_missed_is_due_when_its_time_comes(ledger: Ledger) -> None:
    record(ledger, NOON, now=NOON + 9 * HOUR)
    assert rows(ledger, "state") == [("missed",)]
    record(ledger, NOON, content='{"text": "new"}', now=NOON + 1)
    assert rows(ledger, "state, reason, content, expires, recorded_at, settled_at") == [
        ("due", None, '{"text": "new"}', NOON + HOUR, NOON + 1, None)
    ]


def test_what_was_submitted_before_it_was_missed_stays_missed_whatever_the_clock(ledger: Ledger) -> None:
    record(ledger, NOON, now=NOON + HOUR)
    ledger.mark_submitted(["a@2026-11-25T12:00:00Z"], NOON + HOUR)
    ledger.settle([("a@2026-11-25T12:00:00Z", "missed", "why")], NOON + HOUR)
    before = rows(ledger, "*")
    record(ledger, NOON, now=NOON)
    assert rows(ledger, "*") == before


def test_a_crowd_of_fire_times_shares_one_missed_row(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.record("a", range(NOON, NOON + 2001 * 60, 60), content=CONTENT, grace=60, now=NOON + 130_000)
    assert rows(ledger, "id, state, count, fire_time, reason")[:1] == [
        ("a@2026-11-25T12:00:00Z/2026-11-26T04:40:00Z", "missed", 1001, NOON + 60_000,
         "1,001 fire times passed while no tick ran"),
    ]  # fmt: skip
    assert rows(ledger, "count(*), sum(count)") == [(1001, 2001)]


# --- Settling


@pytest.mark.parametrize("state", ["accepted", "missed", "rejected"])
def test_a_firing_settles_once(ledger: Ledger, state: str) -> None:
    record(ledger, NOON)
    ledger.settle([("a@2026-11-25T12:00:00Z", state, "first")], NOON + 1)
    for other in ("accepted", "missed", "rejected"):
        ledger.settle([("a@2026-11-25T12:00:00Z", other, "second")], NOON + 2)
    ledger.mark_submitted(["a@2026-11-25T12:00:00Z"], NOON + 2)
    ledger.mark_edited(["a@2026-11-25T12:00:00Z"])
    assert rows(ledger, "state, reason, settled_at, submitted_at, edited") == [(state, "first", NOON + 1, None, 0)]
    assert not ledger.any_due()
    assert ledger.due() == []


@pytest.mark.parametrize("state", ["due", "delivered", "busy", ""])
def test_there_are_no_other_states_to_settle_in(ledger: Ledger, state: str) -> None:
    record(ledger, NOON)
    with pytest.raises(ValueError, match="no state to settle in"):
        ledger.settle([("a@2026-11-25T12:00:00Z", state, None)], NOON)
    assert ledger.any_due()


def test_the_first_submission_is_the_one_that_is_kept(ledger: Ledger) -> None:
    record(ledger, NOON)
    for now in (NOON + 5, NOON + 65):
        ledger.mark_submitted(["a@2026-11-25T12:00:00Z", "unknown"], now)
    assert [firing.submitted_at for firing in ledger.due()] == [NOON + 5]


# --- Due firings and edits


def test_due_firings_come_oldest_first_beside_what_their_reminder_says_now(ledger: Ledger) -> None:
    record(ledger, NOON, NOON - 60)
    put(ledger, content="{}", grace=60, catch_up="all")
    due = ledger.due()
    assert [firing.fire_time for firing in due] == [NOON - 60, NOON]
    assert {(firing.content, firing.new_content, firing.new_grace, firing.catch_up) for firing in due} == {
        (CONTENT, "{}", 60, "all")
    }


@pytest.mark.parametrize(
    ("columns", "changed"),
    [({}, False), ({"content": "{}"}, True), ({"grace": 60}, True), ({"catch_up": "all"}, False)],
)
def test_a_firing_is_changed_by_another_content_or_grace(
    ledger: Ledger, columns: dict[str, Any], changed: bool
) -> None:
    record(ledger, NOON)
    put(ledger, **columns)
    (firing,) = ledger.due()
    assert firing.changed is changed
    firing.take_over()
    assert not firing.changed
    ledger.change_due([firing])
    (again,) = ledger.due()
    assert (again.content, again.expires) == (columns.get("content", CONTENT), NOON + columns.get("grace", HOUR))


def test_a_firing_without_its_reminder_takes_nothing_over(ledger: Ledger) -> None:
    record(ledger, NOON)
    (firing,) = ledger.due()
    firing.take_over()
    assert (firing.changed, firing.content, firing.expires) == (False, CONTENT, NOON + HOUR)


def test_an_edited_firing_is_not_changed(ledger: Ledger) -> None:
    record(ledger, NOON)
    put(ledger, content="{}")
    ledger.mark_edited(["a@2026-11-25T12:00:00Z"])
    (firing,) = ledger.due()
    assert firing.edited
    assert not firing.changed


def test_the_line_is_a_request_of_the_protocol(ledger: Ledger) -> None:
    record(ledger, NOON)
    (firing,) = ledger.due()
    line = firing.line()
    assert line.endswith(b"\n")
    request = parse_request(line[:-1], now=0, new_id=str)
    assert isinstance(request, Request)
    assert (request.id, request.fire_time, request.expires, request.wait, request.reminder, request.body) == (
        "a@2026-11-25T12:00:00Z", "2026-11-25T12:00:00Z", NOON + HOUR, False, "a", 'Grüße "you"\n',
    )  # fmt: skip


# --- The tick's own row, and the reminders


def test_trouble_is_news_when_it_is_new_and_then_once_an_hour(ledger: Ledger) -> None:
    said = [
        ("", 0, False),
        ("a", 60, True),
        ("a", 120, False),
        ("a", 3659, False),
        ("a", 3660, True),
        ("a", 3720, False),
        ("b", 3780, True),
        ("", 3840, False),
        ("b", 3900, True),
        ("b", 0, True),  # the clock went back
        ("b", 60, False),
        ("a\nb", 120, True),
        ("b", 180, False),  # what is left is nothing new
        ("b", 3719, False),
        ("b", 3720, True),
        ("a\nb", 3780, True),  # what has come again is
        ("a", 3840, False),
    ]
    assert [(trouble, now, ledger.is_news(trouble, now)) for trouble, now, _ in said] == said


def test_the_ticks_row_is_kept(ledger: Ledger) -> None:
    assert ledger.tick_row() == (None, None, None)
    ledger.set_last_tick(NOON)
    ledger.set_files("signature", [("/d/a.yaml", "its faults", 65), ("/d", "it can't be read", 65)], "/d.yaml")
    assert ledger.tick_row() == (NOON, "signature", "/d.yaml")
    put(ledger)
    assert ledger.faulty_files() == [("it can't be read", 65, False), ("its faults", 65, False)]
    ledger.put_reminders("/d/a.yaml", [("b", "s", CONTENT, 1, HOUR, "latest", None)])
    assert ledger.faulty_files() == [("it can't be read", 65, True), ("its faults", 65, True)]
    ledger.set_files("other", [])
    assert ledger.tick_row() == (NOON, "other", "/d.yaml")
    assert ledger.faulty_files() == []


def test_reminders_are_put_read_moved_on_and_dropped(ledger: Ledger) -> None:
    for name, next_at in (("a", NOON + 60), ("b", NOON), ("c", None), ("d", NOON - 60)):
        put(ledger, name=name, next_at=next_at)
    put(ledger, name="d", grace=5, next_at=NOON - 60)
    assert ledger.overdue_reminders(NOON) == [
        ("d", "s", CONTENT, 5, NOON - 60),
        ("b", "s", CONTENT, HOUR, NOON),
    ]
    ledger.set_next([(None, "b"), (NOON + 1, "d")])
    assert ledger.overdue_reminders(NOON) == []
    ledger.drop_reminders({"a", "c", "d"})
    assert ledger.reminders() == {"b": ("s", CONTENT, 1, HOUR, "latest", None)}


def test_what_is_written_in_a_transaction_that_fails_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.transaction():
        record(ledger, NOON)
        ledger.set_last_tick(NOON)
        raise KeyError
    assert rows(ledger) == []
    assert ledger.tick_row()[0] is None


# --- Gaps


def test_gaps_are_noted_once_and_pruned_with_the_rest(ledger: Ledger) -> None:
    day = 86400
    for began in (NOON, NOON, NOON + day):
        ledger.note_gap(began, began + HOUR)
    query = "SELECT began, ended FROM gaps ORDER BY began"
    with closing(sqlite3.connect(ledger.path)) as store:
        assert store.execute(query).fetchall() == [(NOON, NOON + HOUR), (NOON + day, NOON + day + HOUR)]
        ledger.prune(NOON + HOUR)
        assert len(store.execute(query).fetchall()) == 2
        ledger.prune(NOON + HOUR + 1)
        assert store.execute(query).fetchall() == [(NOON + day, NOON + day + HOUR)]


def test_a_ledger_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    store = open_store(path, application_id=APPLICATION_ID, version=1, schema=version_1.LEDGER, journal="DELETE")
    store.execute("UPDATE tick SET last_tick = ?, signature = 'x'", (NOON,))
    store.execute("INSERT INTO reminders VALUES ('a', 'every 60', '{}', 1, 60, 'all', ?)", (NOON + 60,))
    row = (f"a@{iso(NOON)}", "a", NOON, 1, NOON + 60, "{}", "due", None, 0, NOON, NOON, None)
    store.execute("INSERT INTO firings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    store.close()
    for _ in range(2):
        with closing(Ledger(path)) as ledger:
            assert ledger.tick_row() == (NOON, None, None)
            assert ledger.reminders() == {"a": ("every 60", "{}", 1, 60, "all", NOON + 60)}
            assert [firing.id for firing in ledger.due()] == [row[0]]
            ledger.note_gap(NOON, NOON + HOUR)
            ledger.check()


def test_a_ledger_of_the_version_before_that_is_damaged_is_not_brought_up_to_date_but_mended(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    store = open_store(path, application_id=APPLICATION_ID, version=1, schema=version_1.LEDGER, journal="DELETE")
    store.execute("UPDATE tick SET last_tick = 'noon'")
    store.close()
    with pytest.raises(DamagedStoreError):
        Ledger(path)
    assert "was damaged" in str(mend(path, NOON))
    with closing(Ledger(path)) as ledger:
        assert ledger.tick_row()[0] == NOON - 60
