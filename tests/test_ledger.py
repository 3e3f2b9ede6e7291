"""trigger/ledger.py and trigger/firings.py: each fire time once, each state left only as its table says, each line as the
gateway reads it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import put, settle

from bub_cron.states import FINAL, LEDGER_MOVES, all_states, open_states
from bub_cron.store import FAR
from bub_cron.trigger import firings
from bub_cron.trigger.firings import Firing, Verdict
from bub_cron.trigger.ledger import Ledger
from bub_cron.wire import Request, parse_request

NOON = 1_795_608_000  # 2026-11-25T12:00:00Z
HOUR, DAY = 3600, 86400
ID = "a@2026-11-25T12:00:00Z"
CONTENT = json.dumps({"reminder": "a", "to": "telegram:1", "text": 'Grüße "you"\n'}, ensure_ascii=False)
SETTLED = [move.state for name, move in LEDGER_MOVES.items() if move.sources == ("due",) and move.state]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(str(tmp_path / "ledger.db"))) as opened:
        yield opened


def rows(ledger: Ledger, columns: str = "id, state, reason, error") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(ledger.path)) as store:
        return store.execute(f"SELECT {columns} FROM firings ORDER BY fire_time, id").fetchall()  # noqa: S608


def record(ledger: Ledger, *fire_times: int, now: int = NOON, **how: Any) -> None:
    firings.record(ledger, "a", fire_times, **{"content": CONTENT, "grace": HOUR, "now": now, **how})


def due(ledger: Ledger, now: int = NOON + 9 * DAY) -> list[Firing]:
    return firings.due(ledger, now)


# --- Recording


def test_a_fire_time_is_due_within_its_grace_and_missed_after_it(ledger: Ledger) -> None:
    record(ledger, NOON - HOUR - 1, NOON - HOUR, NOON)
    assert rows(ledger) == [
        ("a@2026-11-25T10:59:59Z", "missed", "late", "its grace was over before a tick ran"),
        ("a@2026-11-25T11:00:00Z", "due", None, None),
        (ID, "due", None, None),
    ]
    assert rows(ledger, "expires, recorded_at, settled_at, submitted_at") == [
        (NOON - 1, NOON, NOON, None),
        (NOON, NOON, None, None),
        (NOON + HOUR, NOON, None, None),
    ]


def test_what_was_past_already_is_missed_whatever_its_grace(ledger: Ledger) -> None:
    record(ledger, NOON, past=True)
    assert rows(ledger) == [(ID, "missed", "past", "already past when the file was saved")]


@pytest.mark.parametrize("state", ["due", *SETTLED])
def test_a_known_id_stays_as_it_is(ledger: Ledger, state: str) -> None:
    record(ledger, NOON)
    if state != "due":
        settle(ledger, [ID], state, "why", NOON)
    before = rows(ledger, "*")
    record(ledger, NOON, content="{}", grace=1, now=NOON + 9 * HOUR)
    record(ledger, NOON, past=True)
    assert rows(ledger, "*") == before


def test_what_a_clock_that_was_ahead_called_missed_is_due_when_its_time_comes(ledger: Ledger) -> None:
    record(ledger, NOON, now=NOON + 9 * HOUR)
    assert rows(ledger, "state") == [("missed",)]
    record(ledger, NOON, content='{"text": "new"}', now=NOON + 1)
    assert rows(ledger, "state, reason, error, content, expires, recorded_at, settled_at") == [
        ("due", None, None, '{"text": "new"}', NOON + HOUR, NOON + 1, None)
    ]


def test_what_was_submitted_before_it_was_missed_stays_missed_whatever_the_clock(ledger: Ledger) -> None:
    record(ledger, NOON, now=NOON + HOUR)
    firings.mark_submitted(ledger, [ID], NOON + HOUR)
    settle(ledger, [ID], "missed", "why", NOON + HOUR)
    before = rows(ledger, "*")
    record(ledger, NOON, now=NOON)
    firings.judge_anew(ledger, NOON)
    firings.take_back(ledger, after=0, recorded_from=0)
    assert rows(ledger, "*") == before


def test_a_crowd_of_fire_times_shares_one_missed_row(ledger: Ledger) -> None:
    for _ in range(2):
        firings.record_crowd(ledger, "a", NOON, NOON + 60_000, 1001, CONTENT, NOON + 130_000)
    assert rows(ledger, "id, state, count, fire_time, reason, error") == [
        (f"{ID}/2026-11-26T04:40:00Z", "missed", 1001, NOON + 60_000, "downtime",
         "1,001 fire times passed while no tick ran"),
    ]  # fmt: skip


@pytest.mark.parametrize("state", all_states(LEDGER_MOVES))
def test_what_is_taken_back_is_what_was_recorded_from_then_on_and_never_submitted(ledger: Ledger, state: str) -> None:
    record(ledger, NOON, NOON + HOUR, NOON + 2 * HOUR, now=NOON + 2 * HOUR)
    record(ledger, NOON - HOUR, now=NOON)
    if state == "unknown":
        settle(ledger, [row[0] for row in rows(ledger)], "accepted", None, NOON)
    if state != "due":
        settle(ledger, [row[0] for row in rows(ledger)], state, None, NOON)
    firings.take_back(ledger, after=NOON, recorded_from=NOON + HOUR)
    left = [NOON - HOUR, NOON] if state in LEDGER_MOVES["take_back"].sources else [
        NOON - HOUR, NOON, NOON + HOUR, NOON + 2 * HOUR,
    ]  # fmt: skip
    assert rows(ledger, "fire_time") == [(instant,) for instant in left]


# --- Settling


@pytest.mark.parametrize("state", SETTLED)
def test_a_firing_settles_once(ledger: Ledger, state: str) -> None:
    record(ledger, NOON)
    settle(ledger, [ID], state, "first", NOON + 1, "late")
    for other in SETTLED:
        settle(ledger, [ID], other, "second", NOON + 2)
    firings.mark_submitted(ledger, [ID], NOON + 2)
    firings.mark_edited(ledger, [ID])
    found = rows(ledger, "state, reason, error, settled_at, submitted_at, edited")
    assert found == [(state, "late", "first", NOON + 1, None, 0)]
    assert not ledger.waiting(NOON)
    assert due(ledger) == []


def test_only_an_accepted_one_can_be_lost(ledger: Ledger) -> None:
    record(ledger, NOON)
    for state in ("due", "accepted", "unknown"):
        assert rows(ledger, "state") == [(state,)]
        firings.settle(ledger, [Verdict(ID, "lose", "lost_record", "gone")], NOON + 2)
        if state == "due":
            assert rows(ledger, "state") == [("due",)]
            settle(ledger, [ID], "accepted", None, NOON + 1)
    assert open_states(LEDGER_MOVES) == ("accepted", "due")


def test_there_are_no_other_moves(ledger: Ledger) -> None:
    record(ledger, NOON)
    with pytest.raises(KeyError):
        firings.settle(ledger, [Verdict(ID, "deliver")], NOON)
    assert ledger.waiting(NOON) == {"due"}


def test_the_store_takes_no_other_state_and_no_other_outcome(ledger: Ledger) -> None:
    record(ledger, NOON)
    for column, value in (("state", "delivered"), ("outcome", "accepted"), ("outcome", "due")):
        with pytest.raises(sqlite3.IntegrityError):
            ledger.db.execute(f"UPDATE firings SET {column} = ?", (value,))  # noqa: S608


@pytest.mark.parametrize("column", ["fire_time", "expires", "recorded_at", "submitted_at"])
@pytest.mark.parametrize("value", [-1, 2**60, -(2**63), 5.5, "noon", "5.5", b"5", b"", 1e300])
def test_the_store_takes_nothing_but_instants_for_instants(ledger: Ledger, column: str, value: object) -> None:
    record(ledger, NOON)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.db.execute(f"UPDATE firings SET {column} = ?", (value,))  # noqa: S608
    for good in (0, FAR):
        ledger.db.execute("UPDATE firings SET submitted_at = ?, settled_at = NULL", (good,))


@pytest.mark.parametrize("table, column", [("firings", "content"), ("files", "path"), ("pauses", "why")])
def test_the_store_takes_no_blob_for_a_text(ledger: Ledger, table: str, column: str) -> None:
    record(ledger, NOON)
    ledger.db.execute("INSERT INTO files (path, faults, status) VALUES ('x', '', 65)")
    ledger.db.execute("INSERT INTO pauses (reminder, kind, since, who) VALUES ('x', 'pause', 0, '')")
    for blob in (b"", b"{}"):
        with pytest.raises(sqlite3.IntegrityError):
            ledger.db.execute(f"UPDATE {table} SET {column} = ?", (blob,))  # noqa: S608


def test_the_first_submission_is_the_one_that_is_kept(ledger: Ledger) -> None:
    record(ledger, NOON)
    for now in (NOON + 5, NOON + 65):
        firings.mark_submitted(ledger, [ID, "unknown"], now)
    assert [firing.submitted_at for firing in due(ledger)] == [NOON + 5]


# --- Outcomes


def test_the_outcomes_asked_for_are_of_what_was_accepted_a_while_ago_the_oldest_first(ledger: Ledger) -> None:
    record(ledger, NOON - 120, NOON - 60, NOON, NOON + 60)
    ids = [row[0] for row in rows(ledger)]
    settle(ledger, ids[:3], "accepted", None, NOON)
    assert firings.without_outcome(ledger, NOON - 1, 9) == []
    assert firings.without_outcome(ledger, NOON, 2) == ids[:2]
    firings.keep_outcomes(ledger, [(ids[0], "delivered"), (ids[3], "delivered")])
    assert firings.without_outcome(ledger, NOON, 9) == ids[1:3]
    assert rows(ledger, "outcome") == [("delivered",), (None,), (None,), (None,)]


@pytest.mark.parametrize("outcome", sorted(FINAL))
def test_any_final_outcome_can_be_kept(ledger: Ledger, outcome: str) -> None:
    record(ledger, NOON)
    settle(ledger, [ID], "accepted", None, NOON)
    firings.keep_outcomes(ledger, [(ID, outcome)])
    assert rows(ledger, "outcome") == [(outcome,)]


# --- Due firings and edits


def test_due_firings_come_oldest_first_beside_what_their_reminder_says_now(ledger: Ledger) -> None:
    record(ledger, NOON, NOON - 60)
    put(ledger, content="{}", grace=60, catch_up="all")
    found = due(ledger)
    assert [firing.fire_time for firing in found] == [NOON - 60, NOON]
    assert {(firing.content, firing.new_content, firing.new_grace, firing.catch_up) for firing in found} == {
        (CONTENT, "{}", 60, "all")
    }


def test_what_is_due_at_a_time_to_come_waits_for_it(ledger: Ledger) -> None:
    record(ledger, NOON, NOON + 60)
    assert [firing.fire_time for firing in due(ledger, NOON + 59)] == [NOON]
    assert ledger.waiting(NOON) == {"due"}
    assert not ledger.waiting(NOON - 1)


@pytest.mark.parametrize(
    ("columns", "changed"),
    [({}, False), ({"content": "{}"}, True), ({"grace": 60}, True), ({"catch_up": "all"}, False)],
)
def test_a_firing_is_changed_by_another_content_or_grace(
    ledger: Ledger, columns: dict[str, Any], changed: bool
) -> None:
    record(ledger, NOON)
    put(ledger, **{"content": CONTENT, **columns})
    (firing,) = due(ledger)
    assert firing.changed is changed
    firing.take_over()
    assert not firing.changed
    firings.change_due(ledger, [firing])
    (again,) = due(ledger)
    assert (again.content, again.expires) == (columns.get("content", CONTENT), NOON + columns.get("grace", HOUR))


def test_a_firing_without_its_reminder_takes_nothing_over(ledger: Ledger) -> None:
    record(ledger, NOON)
    (firing,) = due(ledger)
    firing.take_over()
    assert (firing.changed, firing.content, firing.expires) == (False, CONTENT, NOON + HOUR)


def test_an_edited_firing_is_not_changed(ledger: Ledger) -> None:
    record(ledger, NOON)
    put(ledger, content="{}")
    firings.mark_edited(ledger, [ID])
    (firing,) = due(ledger)
    assert firing.edited
    assert not firing.changed


def test_the_line_is_a_request_of_the_protocol(ledger: Ledger) -> None:
    record(ledger, NOON)
    (firing,) = due(ledger)
    line = firing.line()
    assert line.endswith(b"\n")
    request = parse_request(line[:-1], now=0, new_id=str)
    assert isinstance(request, Request)
    assert (request.id, request.fire_time, request.expires, request.wait, request.reminder, request.body) == (
        ID, "2026-11-25T12:00:00Z", NOON + HOUR, False, "a", 'Grüße "you"\n',
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
    assert set(ledger.tick_row()) == {None}
    ledger.set_last_tick(NOON, NOON + 1)
    ledger.set_files(signature="signature", faulty=[("/d/a.yaml", "its faults", 65), ("/d", "it can't be read", 65)])
    ledger.set_seen_tz("UTC")
    row = ledger.tick_row()
    assert [row[name] for name in ("last_tick", "high", "signature", "tz_seen")] == [NOON, NOON + 1, "signature", "UTC"]
    put(ledger)
    assert [tuple(fault) for fault in ledger.faulty_files()] == [("it can't be read", 65, 0), ("its faults", 65, 0)]
    put(ledger, name="b", file="/d/a.yaml")
    assert [tuple(fault) for fault in ledger.faulty_files()] == [("it can't be read", 65, 1), ("its faults", 65, 1)]
    ledger.set_files(signature="other", faulty=[])
    assert ledger.tick_row()["signature"] == "other"
    assert ledger.faulty_files() == []


def test_what_is_overdue_comes_longest_overdue_first(ledger: Ledger) -> None:
    for name, next_at in (("a", NOON + 60), ("b", NOON), ("c", None), ("d", NOON - 60), ("e", NOON)):
        put(ledger, name=name, next_at=next_at)
    assert [row["name"] for row in ledger.overdue(NOON)] == ["d", "b", "e"]


def test_what_is_written_in_a_transaction_that_fails_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.transaction():
        record(ledger, NOON)
        ledger.set_last_tick(NOON, NOON)
        raise KeyError
    assert rows(ledger) == []
    assert ledger.tick_row()["last_tick"] is None


# --- Pruning


def test_gaps_are_noted_once_and_pruned_with_the_rest(ledger: Ledger) -> None:
    for began in (NOON, NOON, NOON + DAY):
        ledger.note_gap(began, began + HOUR)
    query = "SELECT began, ended FROM gaps ORDER BY began"
    with closing(sqlite3.connect(ledger.path)) as store:
        assert store.execute(query).fetchall() == [(NOON, NOON + HOUR), (NOON + DAY, NOON + DAY + HOUR)]
        firings.prune(ledger, NOON + HOUR)
        assert len(store.execute(query).fetchall()) == 2
        firings.prune(ledger, NOON + HOUR + 1)
        assert store.execute(query).fetchall() == [(NOON + DAY, NOON + DAY + HOUR)]


def test_a_store_that_is_too_large_loses_its_oldest_final_firings(ledger: Ledger) -> None:
    times = [NOON + 60 * number for number in range(3000)]
    with ledger.transaction():
        record(ledger, *times, grace=9 * DAY, content=json.dumps({"text": "x" * 900}), now=NOON + 3000 * 60)
    before = len(rows(ledger))
    oldest, *ids = [row[0] for row in rows(ledger, "id")]
    settle(ledger, ids, "accepted", None, NOON)
    with ledger.transaction():
        firings.prune_to_size(ledger, 2 << 20)
    left = rows(ledger, "id, state")
    assert 1000 < len(left) < before
    assert left[0] == (oldest, "due")
    assert [row[0] for row in left[1:]] == ids[1 - len(left) :]
    pages = (
        ledger.db.execute("PRAGMA page_count").fetchone()[0] - ledger.db.execute("PRAGMA freelist_count").fetchone()[0]
    )
    assert pages * 4096 <= 2 << 20
    assert pages * 4096 > 1 << 20  # and no more went than had to


def test_a_store_full_of_what_waits_loses_nothing(ledger: Ledger) -> None:
    with ledger.transaction():
        record(ledger, *[NOON + number for number in range(2000)], grace=DAY, now=NOON)
        firings.prune_to_size(ledger, 1 << 16)
    assert len(rows(ledger)) == 2000
