"""Schedules that count from a start: `every` of days and weeks, and `rrule`.

What a rule yields on the wall clock is compared with dateutil; what the clock's changes make of that with an oracle that
goes through UTC minute by minute.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from examples_kit import up_to
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedule import CHANGES, DAY, instant, offset_at, times

from bub_cron.errors import ScheduleError
from bub_cron.schedule import (
    Schedule,
    decode,
    describe,
    encode,
    fire_times,
    next_fire_time,
    parse_at,
    parse_every,
    parse_every_from,
    parse_rrule,
    parse_start,
    parse_until,
)

BERLIN = "Europe/Berlin"
EPOCH = datetime(1970, 1, 1)


def every(seconds: int, start: str, zone: str = BERLIN, *, in_days: bool = True) -> Schedule:
    return parse_every_from(parse_every(seconds), in_days, parse_start(start, zone), zone)


def rule(text: str, start: str = "2026-12-01 16:00", zone: str = BERLIN) -> Schedule:
    return parse_rrule(text, parse_start(start, zone), zone)


def fault(text: str, start: str = "2026-12-01 16:00") -> str:
    with pytest.raises(ScheduleError) as caught:
        rule(text, start)
    return str(caught.value)


def local(schedule: Schedule, count: int, after: str = "2026-11-26T12:00Z") -> list[str]:
    found = itertools.islice(fire_times(schedule, instant(after), instant("2200-01-01T00:00Z")), count)
    return [f"{datetime.fromtimestamp(at, ZoneInfo(schedule.zone)):%a %Y-%m-%d %H:%M}" for at in found]


# The oracle


def oracle(wall: set[int], zone: ZoneInfo, after: int, until: int) -> list[int]:
    """Rules 2 to 5 for fixed times of the wall clock, minute by minute over UTC."""
    first = (after - 4 * 3600) // 60 * 60
    offsets = {at: offset_at(zone, at) for at in range(first - 60, until + 1, 60)}
    fired: set[int] = set()
    repeated: set[int] = set()
    for at in range(first, until + 1, 60):
        shift = offsets[at] - offsets[at - 60]
        if 0 < shift < 3 * 3600 and wall.intersection(range(at + offsets[at - 60], at + offsets[at], 60)):
            fired.add(at)
        if -3 * 3600 <= shift < 0:
            repeated.update(range(at, at - shift, 60))
        if at not in repeated and at + offsets[at] in wall:
            fired.add(at)
    return sorted(at for at in fired if after < at <= until)


PLACES = st.sampled_from(CHANGES)


@settings(max_examples=up_to(600), deadline=None)
@given(
    place=PLACES, days=st.integers(1, 9), back=st.integers(0, 30), minutes=st.integers(-20 * 60, 20 * 60),
    begin=st.integers(-10 * 3600, 8 * 3600), length=st.integers(1, 72_000),
)  # fmt: skip
def test_days_around_changes(
    place: tuple[str, str], days: int, back: int, minutes: int, begin: int, length: int
) -> None:
    """Whole days from a start fire when a fixed cron at that time of day would, on each of those days."""
    zone = ZoneInfo(place[0])
    near = datetime.fromtimestamp(instant(place[1]), zone).replace(tzinfo=None, second=0) + timedelta(minutes=minutes)
    start = near - timedelta(days=back * days)
    try:
        schedule = every(days * DAY, f"{start:%Y-%m-%d %H:%M}", place[0])
    except ScheduleError as error:
        assert "jumps over it" in str(error)
        return
    seconds = int((start - EPOCH).total_seconds())
    wall = set(range(seconds, seconds + (back + 20) * days * DAY, days * DAY))
    after = instant(place[1]) + begin
    assert list(fire_times(schedule, after, after + length)) == oracle(wall, zone, after, after + length)
    assert decode(encode(schedule)) == schedule


WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@st.composite
def rules(draw: Any) -> str:
    """A rule of RFC 5545 that reminders may have."""
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={frequency}"]

    def maybe(name: str, values: Any, most: int = 3) -> bool:
        if draw(st.integers(0, 2)):
            return False
        found = draw(st.lists(values, min_size=1, max_size=most, unique=True))
        parts.append(f"{name}={','.join(map(str, found))}")
        return True

    signed = st.integers(1, 31).flatmap(lambda day: st.sampled_from([day, -day]))
    days = st.sampled_from(WEEKDAYS)
    if frequency in {"MONTHLY", "YEARLY"}:
        days = st.tuples(st.sampled_from(["", "1", "2", "-1", "5"]), days).map("".join)
    chosen = [maybe("BYDAY", days), maybe("BYHOUR", st.integers(0, 23)), maybe("BYMINUTE", st.integers(0, 59))]
    if frequency != "WEEKLY":
        chosen.append(maybe("BYMONTHDAY", signed))
    if frequency in {"MONTHLY", "YEARLY"}:
        chosen.append(maybe("BYMONTH", st.integers(1, 12), 12))
    if any(chosen):
        maybe("BYSETPOS", st.sampled_from([1, 2, -1]), 2)
    if draw(st.booleans()):
        parts.append(f"INTERVAL={draw(st.integers(1, 4))}")
    if draw(st.booleans()):
        parts.append(f"WKST={draw(st.sampled_from(WEEKDAYS))}")
    end = draw(st.sampled_from(["", "", "COUNT=7", "UNTIL"]))
    if end == "UNTIL":
        end += f"={draw(st.datetimes(datetime(2007, 1, 1), datetime(2027, 1, 1))):%Y%m%dT%H%M00}"
    return ";".join([*parts, *filter(None, [end])])


@settings(max_examples=up_to(800), deadline=None)
@given(
    text=rules(), place=PLACES, back=st.integers(0, 60 * DAY), begin=st.integers(-3 * DAY, 8 * 3600),
    length=st.integers(1, 4 * DAY),
)  # fmt: skip
def test_rules_around_changes(text: str, place: tuple[str, str], back: int, begin: int, length: int) -> None:
    """A rule fires when dateutil says on the wall clock, under the rules for changes of the clock."""
    zone = ZoneInfo(place[0])
    start = datetime.fromtimestamp(instant(place[1]) - back, zone).replace(tzinfo=None, second=0)
    after = instant(place[1]) + begin
    end = datetime.fromtimestamp(after + length, UTC).replace(tzinfo=None) + timedelta(days=1)
    try:
        schedule = rule(text, f"{start:%Y-%m-%d %H:%M}", place[0])
    except ScheduleError as error:
        assert "never fires" in str(error) or "jumps over" in str(error)
        return
    found = rrulestr(text, dtstart=start).between(start - timedelta(1), end, inc=True)
    wall = {int((one - EPOCH).total_seconds()) for one in found}
    assert list(fire_times(schedule, after, after + length)) == oracle(wall, zone, after, after + length)
    assert decode(encode(schedule)) == schedule


@settings(max_examples=up_to(200), deadline=None)
@given(text=rules(), start=st.datetimes(datetime(1970, 1, 1), datetime(2150, 1, 1)), years=st.integers(0, 30))
def test_rules_on_the_wall_clock(text: str, start: datetime, years: int) -> None:
    """Without changes of the clock a rule is dateutil's own, wherever one begins to ask."""
    start = start.replace(second=0, microsecond=0)
    try:
        schedule = rule(text, f"{start:%Y-%m-%d %H:%M}", "UTC")
    except ScheduleError as error:
        assert "never fires" in str(error)
        return
    after = start + timedelta(days=365 * years)
    until = min(after + timedelta(days=800), datetime(2199, 12, 31))
    found = [EPOCH + timedelta(seconds=at) for at in fire_times(schedule, seconds_of(after), seconds_of(until))]
    assert found == [one for one in rrulestr(text, dtstart=start).between(after, until, inc=True) if one > after]


def seconds_of(moment: datetime) -> int:
    return int((moment - EPOCH).total_seconds())


@settings(max_examples=up_to(200), deadline=None)
@given(text=rules(), place=PLACES, cuts=st.lists(st.integers(-20 * DAY, 20 * DAY), min_size=3, max_size=6))
def test_cutting_an_interval_changes_nothing(text: str, place: tuple[str, str], cuts: list[int]) -> None:
    """(a, c] is (a, b] and (b, c]."""
    start = datetime.fromtimestamp(instant(place[1]) - 40 * DAY, ZoneInfo(place[0]))
    try:
        schedule = rule(text, f"{start:%Y-%m-%d %H:%M}", place[0])
    except ScheduleError:
        return
    bounds = [instant(place[1]) + cut for cut in sorted(cuts)]
    whole = list(fire_times(schedule, bounds[0], bounds[-1]))
    assert whole == [at for a, b in itertools.pairwise(bounds) for at in fire_times(decode(encode(schedule)), a, b)]


# By example


def test_every_other_tuesday() -> None:
    """Weeks count on the wall clock: 19:00 stays 19:00 when the clock changes."""
    bins = every(14 * DAY, "2026-12-01 19:00")
    found = local(bins, 12)
    assert found[:2] == ["Tue 2026-12-01 19:00", "Tue 2026-12-15 19:00"]
    assert found[-1] == "Tue 2027-05-04 19:00"
    assert {one[:3] + one[-5:] for one in found} == {"Tue19:00"}
    assert bins.kind == "every"
    assert describe(bins) == "every 2 weeks on Tuesday at 19:00, from 2026-12-01, Europe/Berlin"


def test_minutes_and_hours_are_elapsed_time_from_the_start() -> None:
    """Across a change of the clock the wall shows another time."""
    schedule = every(36 * 3600, "2027-03-27 18:00", in_days=False)
    assert local(schedule, 3) == ["Sat 2027-03-27 18:00", "Mon 2027-03-29 07:00", "Tue 2027-03-30 19:00"]
    assert describe(schedule) == "every 36 hours, from 2027-03-27 18:00, Europe/Berlin"
    assert decode(encode(schedule)) == schedule
    assert list(fire_times(schedule, instant("2027-03-27T17:00Z") - 1, instant("2027-03-27T17:00Z"))) != []


def test_the_last_weekday_of_the_month() -> None:
    """BYSETPOS chooses it."""
    schedule = rule("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1")
    assert local(schedule, 3) == ["Thu 2026-12-31 16:00", "Fri 2027-01-29 16:00", "Fri 2027-02-26 16:00"]
    assert schedule.kind == "rrule"


def test_the_start_counts_only_if_it_matches() -> None:
    """2026-12-01 is a Tuesday; COUNT counts what the rule yields."""
    assert local(rule("FREQ=WEEKLY;BYDAY=MO;COUNT=2"), 9) == ["Mon 2026-12-07 16:00", "Mon 2026-12-14 16:00"]
    assert local(rule("FREQ=WEEKLY;COUNT=2"), 9) == ["Tue 2026-12-01 16:00", "Tue 2026-12-08 16:00"]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20261203", "Thu 2026-12-03 16:00"),  # that day included
        ("20261203T160000", "Thu 2026-12-03 16:00"),
        ("20261203T155959", "Wed 2026-12-02 16:00"),
        ("20261203T150000Z", "Thu 2026-12-03 16:00"),
        ("20261203T145959Z", "Wed 2026-12-02 16:00"),
    ],
)
def test_until(until: str, last: str) -> None:
    """An instant with Z, else local."""
    assert local(rule(f"FREQ=DAILY;UNTIL={until}"), 9)[-1] == last


def test_a_rule_is_read_as_others_write_it() -> None:
    """Small letters, blanks, the property's name, a semicolon at the end."""
    assert rule("rrule: freq=weekly; byday=mo;") == rule("FREQ=WEEKLY;BYDAY=MO")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write it as FREQ=MONTHLY;BYDAY=MO"),
        ("FREQ", "write it as"),
        ("BYDAY=MO", "FREQ is missing"),
        ("FREQ=DAILY;FREQ=DAILY", "twice"),
        ("FREQ=HOURLY", "FREQ=HOURLY is not taken; write every: 2h"),
        ("FREQ=MINUTELY;INTERVAL=5", "write every"),
        ("FREQ=SECONDLY", "write every"),
        ("FREQ=NEVER", "none of DAILY, WEEKLY, MONTHLY, YEARLY"),
        ("DTSTART:20261201T160000\nRRULE:FREQ=DAILY", "goes under start: and timezone:"),
        ("DTSTART;TZID=Europe/Berlin:20261201T160000 RRULE:FREQ=DAILY", "goes under start: and timezone:"),
        ("FREQ=DAILY;TZID=Europe/Berlin", "write timezone:"),
        ("FREQ=DAILY;DTSTART=20261201", "start:"),
        ("FREQ=DAILY;EXDATE=20261201", "except:"),
        ("FREQ=DAILY;BYEASTER=0", "BYEASTER can't be part of it"),
        ("FREQ=DAILY;BYSECOND=30", "whole minutes"),
        ("FREQ=DAILY;X-FOO=1", "none of its parts"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20271201", "can't stand together"),
        ("FREQ=DAILY;COUNT=0", "COUNT=0 is not a number from 1 to"),
        ("FREQ=DAILY;INTERVAL=x", "INTERVAL=X is not a number"),
        ("FREQ=DAILY;UNTIL=2026-12-24", "write it as 20261231"),
        ("FREQ=DAILY;UNTIL=20261301", "does not exist"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "from 1 to 31, or -31 to -1"),
        ("FREQ=MONTHLY;BYMONTH=-1", "from 1 to 12"),
        ("FREQ=MONTHLY;BYDAY=XX", "not a weekday"),
        ("FREQ=MONTHLY;BYDAY=60MO", "not a weekday"),
        ("FREQ=WEEKLY;BYDAY=2MO", "only with FREQ=MONTHLY or YEARLY"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY goes only with"),
        ("FREQ=MONTHLY;BYWEEKNO=1", "BYWEEKNO goes only with FREQ=YEARLY"),
        ("FREQ=DAILY;WKST=1", "WKST=1"),
        ("FREQ=MONTHLY;BYSETPOS=1", "BYSETPOS chooses among others"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "never fires"),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=MO", "never fires"),
        ("FREQ=DAILY;UNTIL=20200101", "never fires"),
        pytest.param("FREQ=DAILY;BYMONTH=" + "1," * 1000 + "1", "longer than", id="long"),
    ],
)
def test_a_rule_is_refused(text: str, words: str) -> None:
    """With what would be right."""
    assert words in fault(text)


def test_a_rule_that_never_fires_is_found_out_soon() -> None:
    """dateutil alone would go on for ten seconds and more, to the year 9999."""
    program = (
        "import time; from bub_cron.schedule import parse_rrule; began = time.process_time()\n"
        "try: parse_rrule('FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30', '2026-12-01T16:00', 'UTC')\n"
        "except Exception as error: print('never' in str(error), time.process_time() - began < 4)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "True True\n"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-12-01", "start: '2026-12-01' is a date without a time; add one"),
        ("2026-12-01T16:00Z", "has an offset; write it as the clock in Europe/Berlin shows it"),
        ("noon", "start: 'noon' is not a date and time"),
        ("2026-02-30 12:00", "does not exist"),
    ],
)
def test_a_start_is_refused(value: str, words: str) -> None:
    """It is local to the reminder's zone."""
    with pytest.raises(ScheduleError) as caught:
        parse_start(value, BERLIN)
    assert words in str(caught.value)


def test_an_until_is_a_date_or_a_date_and_time() -> None:
    """Stored alike, however it is written."""
    assert parse_until(" 2026-12-31", BERLIN) == "2026-12-31"
    assert parse_until("2026-12-31 8:30", BERLIN) == "2026-12-31T08:30"
    with pytest.raises(ScheduleError, match="until"):
        parse_until("2026-13-31", BERLIN)


@pytest.mark.parametrize(
    "text",
    [
        "days 14 2026-12-01T19:00 Nowhere/Else", "days 0 2026-12-01T19:00 UTC", "days 014 2026-12-01T19:00 UTC",
        "days 14 2026-12-01 UTC", "days 14 2026-12-01T19:00:00 UTC", "every 90 2026-12-01T19:00 UTC", "days 14",
        "rrule FREQ=DAILY 2026-12-01T19:00", "rrule X 2026-12-01T19:00 UTC", "rrule FREQ=DAILY;UNTIL=1 2026-12-01T19:00 UTC",
        "at 2026-12-01 UTC", "at x UTC",
    ],
)  # fmt: skip
def test_only_what_encode_writes_is_decoded(text: str) -> None:
    """Anything else is a damaged store's."""
    with pytest.raises(ScheduleError):
        next_fire_time(decode(text), 0)


def test_the_encoded_forms_are_stable() -> None:
    """Stores hold these lines, with the local times as written, so that they mean the same under other zone data."""
    assert encode(every(14 * DAY, "2026-12-01 19:00")) == "days 14 2026-12-01T19:00 Europe/Berlin"
    assert encode(every(1800, "2026-12-01 19:00", in_days=False)) == "every 1800 2026-12-01T19:00 Europe/Berlin"
    assert encode(rule("FREQ=DAILY;COUNT=2")) == "rrule FREQ=DAILY;COUNT=2 2026-12-01T16:00 Europe/Berlin"


def test_a_tick_loads_dateutil_for_rules_alone() -> None:
    """Days and weeks are arithmetic."""
    program = (
        "import sys; from bub_cron.schedule import decode, next_fire_time\n"
        "next_fire_time(decode('days 14 2026-12-01T19:00 Europe/Berlin'), 0)\n"
        "next_fire_time(decode('at 2026-12-01T19:00 Europe/Berlin'), 0)\n"
        "print([name for name in ('dateutil', 'croniter', 'holidays', 'icalendar', 'json', 're') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_at_keeps_what_was_written() -> None:
    """A local time and an instant, ascending by what was written."""
    schedule = parse_at(["2026-12-02 08:30", "2026-12-01T08:30Z"], BERLIN)
    assert encode(schedule) == "at 2026-12-01T08:30Z,2026-12-02T08:30 Europe/Berlin"
    assert times(schedule, "2026-01-01T00:00Z", "2027-01-01T00:00Z") == ["2026-12-01T08:30:00Z", "2026-12-02T07:30:00Z"]
