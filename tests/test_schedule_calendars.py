"""Calendars: countries as the library has them, iCalendar files, and what a tick keeps of both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import holidays
import pytest
from examples_kit import up_to
from hypothesis import given, settings
from hypothesis import strategies as st

from bub_cron.errors import ScheduleError
from bub_cron.schedule import Calendar, country_source, require_readable, sources
from bub_cron.schedule.sources import Kept

HEAD = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x//x//EN\r\n"
FAIR = "DTSTART;VALUE=DATE:20260704\r\nRRULE:FREQ=YEARLY\r\nEXDATE;VALUE=DATE:20280704\r\nSUMMARY:Fair\r\n"


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    sources.remember([])
    yield
    sources.remember([])


def number(text: str) -> int:
    return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()


def ics(path: Path, *events: str) -> Calendar:
    """Write a file of these events."""
    body = "".join(
        f"BEGIN:VEVENT\r\nUID:{place}\r\nDTSTAMP:20260101T000000Z\r\n{event}END:VEVENT\r\n"
        for place, event in enumerate(events)
    )
    path.write_bytes(f"{HEAD}{body}END:VCALENDAR\r\n".encode())
    path.chmod(0o644)
    return Calendar("school", sources=(require_readable(f"ics {path}"),))


def days(calendar: Calendar, first: str, last: str) -> dict[str, str]:
    """The days of a calendar, each with its name."""
    found = {day: calendar.name_of(day) for day in range(number(first), number(last) + 1)}
    return {str(date(1970, 1, 1) + timedelta(day)): name for day, name in found.items() if name is not None}


# Countries

PLACES = [
    ("DE", "BE"),
    ("DE", None),
    ("US", "CA"),
    ("GB", "SCT"),
    ("JP", None),
    ("IN", None),
    ("NO", None),
    ("ES", "CT"),
]


@settings(max_examples=up_to(300), deadline=None)
@given(place=st.sampled_from(PLACES), day=st.dates(date(1995, 1, 1), date(2060, 12, 31)))
@pytest.mark.filterwarnings("ignore:Requested Holidays are available")
def test_a_country_has_the_librarys_days(place: tuple[str, str | None], day: date) -> None:
    """With their names, observed days included, whatever was known before."""
    calendar = Calendar("x", sources=(country_source(*place),))
    expected = holidays.country_holidays(place[0], subdiv=place[1], years=day.year).get(day)
    assert calendar.name_of(number(str(day))) == expected


@pytest.mark.parametrize(
    ("country", "place", "source"),
    [
        ("DE", "BE", "country DE BE"),
        ("DEU", "Berlin", "country DE BE"),
        ("Germany", None, "country DE"),
        ("United States", None, "country US"),
    ],
)
def test_a_country_is_known_by_each_of_its_names(country: str, place: str | None, source: str) -> None:
    """They are one source."""
    assert country_source(country, place) == source


@pytest.mark.parametrize(
    ("country", "place", "words"),
    [
        ("Germny", None, "is not a country of the library holidays; did you mean DE (Germany)"),
        ("de", None, "did you mean DE"),
        ("XX", None, "is not a country of the library"),
        ("registry", None, "is not a country of the library"),
        ("DE", "Berln", "did you mean BE (Berlin)"),
        ("DE", "X1", "is not a subdivision of DE; it has BB, BE, BW"),
        ("JP", "X1", "it has none"),
    ],
)
def test_what_the_library_has_not_is_a_fault_with_near_names(country: str, place: str | None, words: str) -> None:
    """The sentence goes on after the key."""
    with pytest.raises(ScheduleError) as caught:
        country_source(country, place)
    assert words in str(caught.value)


# iCalendar files


def test_all_day_events_are_days(tmp_path: Path) -> None:
    """Recurring ones, too, without the days that were taken out; not what has a time, nor what was cancelled."""
    calendar = ics(
        tmp_path / "school.ics",
        FAIR,
        "DTSTART;VALUE=DATE:20261224\r\nDTEND;VALUE=DATE:20261227\r\nSUMMARY:Holidays\\, at last\r\n",
        "DTSTART;VALUE=DATE:20270105\r\nDURATION:P2D\r\nSUMMARY:Trip\r\n",
        "DTSTART;VALUE=DATE:20270110\r\nSUMMARY:Off\r\nSTATUS:CANCELLED\r\n",
        "DTSTART:20270111T100000Z\r\nDTEND:20270111T110000Z\r\nSUMMARY:Timed\r\n",
    )
    assert days(calendar, "2026-12-01", "2028-12-31") == {
        "2026-12-24": "Holidays, at last",
        "2026-12-25": "Holidays, at last",
        "2026-12-26": "Holidays, at last",
        "2027-01-05": "Trip",
        "2027-01-06": "Trip",
        "2027-07-04": "Fair",
    }


def test_a_day_that_was_moved_is_where_it_was_moved_to(tmp_path: Path) -> None:
    """RECURRENCE-ID; the UID is that of the series."""
    path = tmp_path / "school.ics"
    ics(path, FAIR, "DTSTART;VALUE=DATE:20270710\r\nRECURRENCE-ID;VALUE=DATE:20270704\r\nSUMMARY:Fair, later\r\n")
    path.write_bytes(path.read_bytes().replace(b"UID:1", b"UID:0"))
    calendar = Calendar("school", sources=(f"ics {path}",))
    assert days(calendar, "2027-07-01", "2027-07-31") == {"2027-07-10": "Fair, later"}


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "doesn't begin with BEGIN:VCALENDAR"),
        (b"reminders:\n", "doesn't begin with BEGIN:VCALENDAR"),
        (HEAD.encode(), "is cut short"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nEND:VALARM\r\nEND:VCALENDAR\r\n", "can't be read as iCalendar"),
        (f"{HEAD}BEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20260704\r\nRRULE:FREQ=SECONDLY\r\nSUMMARY:S\r\nEND:VEVENT\r\n"
         "END:VCALENDAR\r\n".encode(), "repeats more often than daily: S"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_calendar_is_refused(tmp_path: Path, contents: bytes, words: str) -> None:
    """Whatever the libraries make of it."""
    path = tmp_path / "x.ics"
    path.write_bytes(contents)
    with pytest.raises(ScheduleError) as caught:
        require_readable(f"ics {path}")
    assert words in str(caught.value)


def test_what_is_no_file_of_ones_own_is_refused(tmp_path: Path) -> None:
    """Nobody else decides on which days a reminder is silent; and a FIFO isn't waited for."""
    path = tmp_path / "x.ics"
    ics(path, FAIR)
    path.chmod(0o666)
    os.mkfifo(tmp_path / "fifo")
    for name, words in {
        "x.ics": "may be written by others",
        "fifo": "not a regular file",
        "none": "No such file",
    }.items():
        with pytest.raises(ScheduleError, match=words):
            require_readable(f"ics {tmp_path / name}")


# What a tick keeps


def test_what_was_learned_needs_no_library(tmp_path: Path) -> None:
    """A tick that remembers the days loads none of the libraries."""
    source = country_source("DE", "BE")
    day = number("2026-12-25")
    name = sources.days_of(source).name_of(day)
    (kept,) = sources.learned()
    assert (kept.source, name) == (source, "Erster Weihnachtstag")
    program = (
        "import sys; from bub_cron.schedule import sources; kept = sources.Kept(*sys.argv[1:3], *map(int, sys.argv[3:5]),"
        f" sys.argv[5]); sources.remember([kept]); print(sources.days_of({source!r}).name_of({day}))\n"
        "print(sources.learned(), sources.is_stale(kept), 'holidays' in sys.modules)"
    )
    row = [kept.source, kept.ground, str(kept.first), str(kept.last), kept.days]
    found = subprocess.run([sys.executable, "-c", program, *row], capture_output=True, text=True)
    assert found.stdout == "Erster Weihnachtstag\n[] False False\n", found.stderr


def test_a_span_that_runs_out_is_read_on(tmp_path: Path) -> None:
    """And the caller stores the longer one."""
    calendar = ics(tmp_path / "x.ics", FAIR)
    assert calendar.name_of(number("2026-07-04")) == "Fair"
    (kept,) = sources.learned()
    span = kept.first, kept.last
    sources.remember([kept])
    assert calendar.name_of(number("2027-07-04")) == "Fair"
    assert sources.learned() == []
    assert calendar.name_of(number("2040-07-04")) == "Fair"
    (longer,) = sources.learned()
    assert longer.first == span[0]
    assert longer.last > span[1]
    assert calendar.name_of(number("2028-07-04")) is None


def test_a_file_that_changed_is_stale_and_read_again(tmp_path: Path) -> None:
    """Its days are then those of the new one."""
    path = tmp_path / "x.ics"
    calendar = ics(path, FAIR)
    day = number("2026-07-04")
    assert calendar.has(day)
    (kept,) = sources.learned()
    assert not sources.is_stale(kept)
    ics(path, FAIR.replace("0704", "0705"))
    assert sources.is_stale(kept)
    sources.remember([])
    assert not calendar.has(day)
    assert calendar.has(day + 1)
    assert not sources.is_stale(sources.learned()[0])


def test_a_file_that_is_gone_keeps_its_days_where_somebody_knows_them(tmp_path: Path) -> None:
    """Beyond those it has none; the error is the caller's to tell."""
    path = tmp_path / "x.ics"
    calendar = ics(path, FAIR)
    assert calendar.has(number("2026-07-04"))
    (kept,) = sources.learned()
    path.unlink()
    assert sources.is_stale(kept)
    assert calendar.has(number("2026-07-04"))
    assert not calendar.has(number("2050-07-04"))
    sources.remember([])
    with pytest.raises(ScheduleError, match="No such file"):
        calendar.has(number("2026-07-04"))
    assert sources.paths() == {str(path)}


def test_other_days_can_stand_for_a_while(tmp_path: Path) -> None:
    """Those that were in force until a tick saw new ones."""
    calendar = ics(tmp_path / "x.ics", FAIR)
    assert calendar.has(number("2026-07-04"))
    other = Kept(f"ics {tmp_path}/x.ics", "g", 0, 99_999, f"{number('2026-07-05')} Other")
    with sources.standing([other]):
        assert calendar.name_of(number("2026-07-05")) == "Other"
        assert not calendar.has(number("2026-07-04"))
    assert calendar.has(number("2026-07-04"))


def test_names_take_one_line_each() -> None:
    """Of whatever an event is called."""
    kept = Kept("ics x", "g", 0, 9, "1 A\n2 \n3 B  C")
    assert [kept.name_of(day) for day in (0, 1, 2, 3)] == [None, "A", "", "B  C"]
