"""Calendars in ticks: which days fire, what the ledger keeps of them, and what happens when a file or the library changes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_gateway import Place, at

from bub_cron.schedule import sources

NOON = at("2026-12-23T12:00:00")
DAY, MINUTE = 86400, 60
FILE = """\
defaults: {to: 'telegram:1', timezone: UTC}
calendars:
  holidays: {country: DE, subdivision: BE}
  school: {ics: school.ics}
reminders:
  work: {cron: "0 12 * * *", except: holidays, text: hi}
  lunch: {cron: "0 12 * * *", only: school, text: hi}
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sources.remember([])
    made = Place(tmp_path / "bub")
    made.write(FILE, NOON - 60)
    yield made
    sources.remember([])


def school(place: Place, *ranges: tuple[str, str]) -> Path:
    """Write the term's days: first, and the day after the last, as 20261223."""
    events = "".join(
        f"BEGIN:VEVENT\nUID:{first}\nDTSTAMP:20260101T000000Z\nDTSTART;VALUE=DATE:{first}\nDTEND;VALUE=DATE:{after}\n"
        "SUMMARY:Term\nEND:VEVENT\n"
        for first, after in ranges
    )
    path = place.home / "school.ics"
    fresh = path.with_suffix(".new")
    fresh.write_text(f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n{events}END:VCALENDAR\n")
    fresh.chmod(0o644)
    os.replace(fresh, path)
    return path


def fired(place: Place, reminder: str) -> list[str]:
    rows = place.select("SELECT id FROM firings WHERE reminder = ? ORDER BY fire_time", reminder)
    return [name.partition("@")[2][:10] for (name,) in rows]


def tick_daily(place: Place, first: int, days: int) -> list[tuple[int, str]]:
    return [place.tick(first + day * DAY) for day in range(days)]


def test_left_out_days_have_no_row(place: Place) -> None:
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    tick_daily(place, NOON, 5)
    assert fired(place, "work") == ["2026-12-23", "2026-12-24", "2026-12-27"]
    assert fired(place, "lunch") == ["2026-12-23", "2026-12-24"]


def test_the_ledger_keeps_the_days_of_each_source_once(place: Place) -> None:
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    rows = place.select("SELECT source, days FROM calendar_days ORDER BY source")
    assert [source for source, _ in rows] == ["country DE BE", f"ics {place.home}/school.ics"]
    assert "Erster Weihnachtstag" in rows[0][1]
    place.write(FILE.replace("only: school, ", ""), NOON)
    place.tick(NOON)
    assert place.select("SELECT source FROM calendar_days") == [("country DE BE",)]


def test_a_tick_with_something_due_loads_no_library(place: Place) -> None:
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    program = (
        f"import sys; from bub_cron.paths import find_paths; from bub_cron.trigger import tick\n"
        f"tick.run(find_paths({{'BUB_HOME': {str(place.home)!r}}}), {NOON})\n"
        "print([name for name in ('holidays', 'icalendar', 'dateutil', 'croniter', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert fired(place, "work") == ["2026-12-23"]


def test_a_changed_ics_counts_from_the_next_tick_and_is_no_edit(place: Place) -> None:
    """What is due by the old days stays due; the old days hold until then."""
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    place.tick(NOON)
    school(place, ("20261226", "20261228"))
    place.tick(NOON + 2 * DAY)
    assert fired(place, "lunch") == ["2026-12-23", "2026-12-24"]
    tick_daily(place, NOON + 3 * DAY, 3)
    assert fired(place, "lunch") == ["2026-12-23", "2026-12-24", "2026-12-26", "2026-12-27"]
    assert place.select("SELECT count(*) FROM firings WHERE edited") == [(0,)]


@pytest.mark.parametrize("contents", [None, "nonsense"])
def test_an_ics_that_can_t_be_read_keeps_its_days_and_is_told(place: Place, contents: str | None) -> None:
    """Each tick says it, and it is read again once it is there."""
    path = school(place, ("20261223", "20261226"))
    place.tick(NOON - 60)
    if contents is None:
        path.unlink()
    else:
        path.write_text(contents)
    for day in (0, 1):
        status, said = place.tick(NOON + day * DAY)
        assert status in (65, 69)
        assert f"{place.paths.file}:4:17: {path}" in said
        assert "the last good version stays in force" in said
    assert fired(place, "lunch") == ["2026-12-23", "2026-12-24"]
    school(place, ("20261223", "20261225"))
    later = [said for _, said in tick_daily(place, NOON + 2 * DAY, 2)]
    assert not any(str(path) in said for said in later)
    assert fired(place, "lunch") == ["2026-12-23", "2026-12-24", "2026-12-25"]  # the old days hold until the tick


def test_an_ics_that_was_missing_is_read_once_it_is_there(place: Place) -> None:
    assert place.tick(NOON - 120)[0] == 65
    assert place.tick(NOON - 60)[0] == 65
    school(place, ("20261223", "20261225"))
    assert place.tick(NOON - 30)[0] == 0
    place.tick(NOON)
    assert fired(place, "lunch") == ["2026-12-23"]


def test_another_version_of_the_library_moves_the_ground(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its days count from the tick that first sees it."""
    school(place, ("20261223", "20261225"))
    version = tmp_path / "version.py"
    version.write_text("1")
    monkeypatch.setattr(sources, "_library", lambda: str(version))
    place.tick(NOON - 60)
    version.write_text("22")
    real = sources._country_days  # what the new version has: one day less, and one more

    def fresh(rest: str, first: int, last: int) -> dict[int, str]:
        found = real(rest, first, last)
        del found[at("2026-12-25T00:00:00") // DAY]
        return {**found, at("2026-12-24T00:00:00") // DAY: "Heiligabend"}

    monkeypatch.setattr(sources, "_country_days", fresh)
    tick_daily(place, NOON, 3)
    assert fired(place, "work") == ["2026-12-23", "2026-12-25"]
    assert place.select("SELECT count(*) FROM firings WHERE edited") == [(0,)]


def test_a_definition_that_changes_is_an_edit(place: Place) -> None:
    """What is due by the old one ends."""
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    place.tick(NOON)
    place.write(FILE.replace("subdivision: BE", "subdivision: BY"), NOON + 30)
    place.tick(NOON + 60)
    assert place.select("SELECT reminder, state, reason FROM firings ORDER BY reminder") == [
        ("lunch", "due", None), ("work", "skipped", "edited"),
    ]  # fmt: skip


def test_years_of_downtime_know_the_holidays_in_between(place: Place) -> None:
    """A span that has run out is read on, and stored."""
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    status, _ = place.tick(NOON + 3650 * DAY)
    assert status in (65, 69, 0)
    (count,) = place.select("SELECT sum(count) FROM firings WHERE reminder = 'work'")
    assert 3650 - 10 * 11 <= count[0] <= 3651 - 10 * 9
    ((last,),) = place.select("SELECT last FROM calendar_days WHERE source = 'country DE BE'")
    assert last > (NOON + 3650 * DAY) // DAY


def test_days_that_no_tick_wrote_are_read_again(place: Place) -> None:
    """They are a copy of what the library has."""
    school(place, ("20261223", "20261225"))
    place.tick(NOON - 60)
    with closing(sqlite3.connect(place.paths.ledger)) as ledger, ledger:
        ledger.execute("UPDATE calendar_days SET days = 'x y'")
    tick_daily(place, NOON, 3)
    assert fired(place, "work") == ["2026-12-23", "2026-12-24"]
    assert place.select("SELECT count(*) FROM calendar_days WHERE days = 'x y'") == [(0,)]
