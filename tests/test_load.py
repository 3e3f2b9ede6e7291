"""trigger/load.py: a changed file is taken in whole or not at all, and nothing counts from before it was written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_gateway import Place, at, firing

from bub_cron.schedule import encode, parse_every
from bub_cron.trigger import firings
from bub_cron.trigger.ledger import Ledger
from bub_cron.trigger.load import take_in
from bub_cron.trigger.tick import signature

TODAY = "2026-11-23T"
NOW = at(TODAY + "12:00:30")
MINUTE = 60


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with closing(Ledger(place.paths.ledger)) as opened:
        yield opened


def file(**entries: str) -> str:
    """A file of reminders, each with its keys as lines."""
    lines = ["defaults: {to: 'telegram:1', timezone: UTC}", "reminders:"]
    for name, keys in entries.items():
        lines += [f"  {name}:", *(f"    {key.strip()}" for key in keys.split(";"))]
        if "text:" not in keys:
            lines.append("    text: hi")
    return "\n".join([*lines, ""])


def take(place: Place, ledger: Ledger, text: str, *, saved: int, last_tick: int | None, now: int = NOW) -> None:
    place.write(text, saved)
    if last_tick is not None:
        ledger.set_last_tick(last_tick, last_tick)
    assert take_in(ledger, place.paths.file, "UTC", now) == []


def next_at(ledger: Ledger) -> dict[str, int | None]:
    return {row["name"]: row["next_at"] for row in stored(ledger)}


def stored(ledger: Ledger) -> list[sqlite3.Row]:
    return ledger.db.execute("SELECT * FROM reminders ORDER BY name").fetchall()


def set_next(ledger: Ledger, instant: int) -> None:
    ledger.db.execute("UPDATE reminders SET next_at = ?", (instant,))


def test_a_reminder_is_stored_with_all_that_a_tick_needs(place: Place, ledger: Ledger) -> None:
    text = file(a="every: 30m; grace: 2h; catch_up: all; attempts: 5", b="every: 1h; enabled: false; text: Grüße")
    take(place, ledger, text, saved=NOW, last_tick=None)
    plain = {"to": "telegram:1", "timeout": 600, "overlap": "skip", "reply": "chat", "quiet": False}
    found = {row["name"]: (json.loads(row["content"]), *tuple(row)[1:4], *tuple(row)[5:]) for row in stored(ledger)}
    file_ = place.paths.file
    assert found == {
        "a": ({**plain, "reminder": "a", "text": "hi", "attempts": 5}, file_, encode(parse_every(1800)), 0, 1, 7200, "all",
              NOW, at(TODAY + "12:30:00"), None, None),
        "b": ({**plain, "reminder": "b", "text": "Grüße", "attempts": 3}, file_, encode(parse_every(3600)), 0, 0, 3600,
              "latest", NOW, None, None, None),
    }  # fmt: skip
    tick = ledger.tick_row()
    assert (tick["file"], tick["tz"], tick["last_tick"]) == (place.paths.file, "UTC", None)
    assert tick["signature"] == signature(place.paths.file, "UTC", tick["zone_files"].splitlines())


@pytest.mark.parametrize(
    ("saved", "last_tick", "since"),
    [
        ("12:00:10", None, "12:00:30"),  # no tick before: from now
        ("11:00:00", None, "12:00:30"),
        ("12:00:10", "11:59:30", "12:00:10"),  # from the save
        ("11:00:00", "11:59:30", "11:59:30"),  # an old file moved here: from the last tick
        ("13:00:00", "11:59:30", "12:00:30"),  # saved in the future
        ("11:00:00", "13:00:00", "12:00:30"),  # the clock went back
    ],
)
def test_an_entry_counts_from_its_files_save_but_not_from_before_the_last_tick(
    place: Place, ledger: Ledger, saved: str, last_tick: str | None, since: str
) -> None:
    before = None if last_tick is None else at(TODAY + last_tick)
    times = "[2026-11-23 11:30, 2026-11-23 12:00, 2026-11-23 12:30]"
    take(place, ledger, file(a="every: 1m", b=f"at: {times}"), saved=at(TODAY + saved), last_tick=before)
    begin = at(TODAY + since)
    after = [moment for moment in ("11:30:00", "12:00:00", "12:30:00") if at(TODAY + moment) > begin]
    assert next_at(ledger) == {"a": begin - begin % 60 + 60, "b": at(TODAY + after[0])}


def test_an_at_that_is_past_is_recorded_as_missed(place: Place, ledger: Ledger) -> None:
    text = file(
        a="at: [2026-11-23 08:00, 2026-11-23 12:00, 2026-11-23 13:00]", b="at: 2026-11-23 09:00; enabled: false"
    )
    take(place, ledger, text, saved=at(TODAY + "11:59:50"), last_tick=at(TODAY + "11:59:00"))
    assert place.states() == {firing("a", TODAY + "08:00:00"): "missed"}
    assert place.reason(firing("a", TODAY + "08:00:00")) == "past"
    assert next_at(ledger) == {"a": at(TODAY + "12:00:00"), "b": None}


def test_an_at_that_was_past_is_missed_once_and_again_with_new_times_alone(place: Place, ledger: Ledger) -> None:
    for number, times in enumerate([
        "[2026-11-23 08:00]",
        "[2026-11-23 08:00, 2026-11-23 09:00]",
        "[2026-11-23 09:00]",
    ]):
        take(place, ledger, file(a=f"at: {times}"), saved=NOW, last_tick=NOW - MINUTE, now=NOW + number)
    assert place.select("SELECT id, recorded_at FROM firings ORDER BY fire_time") == [
        (firing("a", TODAY + "08:00:00"), NOW),
        (firing("a", TODAY + "09:00:00"), NOW + 1),
    ]


@pytest.mark.parametrize("edit", ["text: other", "grace: 5m", "catch_up: all", "attempts: 1", "to: x:2"])
def test_an_entry_with_the_same_schedule_keeps_its_place_in_time(place: Place, ledger: Ledger, edit: str) -> None:
    take(place, ledger, file(a="every: 30m"), saved=NOW, last_tick=None)
    set_next(ledger, at(TODAY + "11:30:00"))
    take(place, ledger, file(a=f"every: 1800s; {edit}"), saved=NOW, last_tick=NOW)
    assert next_at(ledger) == {"a": at(TODAY + "11:30:00")}


@pytest.mark.parametrize(
    ("first", "second", "following"),
    [
        ("every: 30m", "every: 20m", "12:20:00"),
        ("every: 30m", "cron: '45 * * * *'", "12:45:00"),
        ("every: 30m", "every: 30m; enabled: false", None),
        ("every: 30m; enabled: false", "every: 30m", "12:30:00"),
    ],
)
def test_an_entry_that_is_rescheduled_or_switched_counts_anew(
    place: Place, ledger: Ledger, first: str, second: str, following: str | None
) -> None:
    take(place, ledger, file(a=first), saved=NOW, last_tick=None)
    set_next(ledger, at(TODAY + "11:30:00"))
    take(place, ledger, file(a=second), saved=NOW, last_tick=NOW - MINUTE)
    assert next_at(ledger) == {"a": following and at(TODAY + following)}


def test_a_reminder_that_is_gone_is_forgotten(place: Place, ledger: Ledger) -> None:
    take(place, ledger, file(a="every: 30m", b="every: 1h"), saved=NOW, last_tick=None)
    take(place, ledger, file(b="every: 1h"), saved=NOW, last_tick=NOW)
    assert set(next_at(ledger)) == {"b"}


def record_due(ledger: Ledger, *instants: str) -> None:
    firings.record(ledger, "a", [at(TODAY + instant) for instant in instants], content="{}", grace=3600, now=NOW)


def edited(place: Place) -> set[str]:
    return {identity[-9:-4] for (identity,) in place.select("SELECT id FROM firings WHERE edited")}


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ("every: 30m", "every: 30m; text: other", set()),
        ("every: 30m", "every: 15m", {"11:30", "12:00"}),
        ("every: 30m", "every: 30m; enabled: false", {"11:30", "12:00"}),
        ("every: 30m", "at: 2026-11-23 12:00", {"11:30"}),
        ("at: [2026-11-23 11:30, 2026-11-23 12:00]", "at: [2026-11-23 12:00, 2026-11-23 13:00]", {"11:30"}),
        ("at: [2026-11-23 11:30, 2026-11-23 12:00]", "at: [2026-11-23 12:00]; enabled: false", {"11:30", "12:00"}),
    ],
)
def test_due_firings_of_what_was_rescheduled_or_disabled_are_marked(
    place: Place, ledger: Ledger, first: str, second: str, marked: set[str]
) -> None:
    take(place, ledger, file(a=first), saved=NOW, last_tick=None)
    # Recorded anew as due: an `at` that was past when it was first taken in is missed already.
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as store:
        store.execute("DELETE FROM firings")
    record_due(ledger, "11:30:00", "12:00:00")
    take(place, ledger, file(a=second), saved=NOW, last_tick=NOW)
    assert edited(place) == marked


def test_due_firings_of_what_is_gone_are_marked(place: Place, ledger: Ledger) -> None:
    take(place, ledger, file(a="every: 30m"), saved=NOW, last_tick=None)
    record_due(ledger, "12:00:00")
    take(place, ledger, file(b="every: 30m"), saved=NOW, last_tick=NOW)
    assert edited(place) == {"12:00"}


@pytest.mark.parametrize(
    ("broken", "status"),
    [("reminders: [", 65), (file(b="every: 1m", c="every: 1x"), 65), (None, 66), ("", 65)],
)
def test_a_file_that_is_not_good_leaves_its_last_good_version_in_force(
    place: Place, ledger: Ledger, broken: str | None, status: int
) -> None:
    take(place, ledger, file(a="every: 30m"), saved=NOW, last_tick=None)
    before = list(map(tuple, stored(ledger)))
    Path(place.paths.file).unlink()
    if broken:
        place.write(broken, NOW)
    elif broken == "":
        Path(place.paths.file).mkdir()
    assert take_in(ledger, place.paths.file, "UTC", NOW) == []
    assert list(map(tuple, stored(ledger))) == before
    [(faults, found, older)] = ledger.faulty_files()
    assert (faults.startswith(place.paths.file), found, older) == (True, status, 1)
