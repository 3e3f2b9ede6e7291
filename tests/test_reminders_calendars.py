"""The keys of calendars, limits and rules in a file: what they mean, and every fault at its place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_reminders import HEAD, faults, one

from bub_cron import reminders
from bub_cron.errors import FileFaultsError
from bub_cron.reminders import Reminder
from bub_cron.schedule import describe, fire_times, sources

NOW = int(datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp())
ICS = (
    "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTAMP:20260101T000000Z\nDTSTART;VALUE=DATE:20261201\n"
    "DTEND;VALUE=DATE:20261203\nSUMMARY:Term\nEND:VEVENT\nEND:VCALENDAR\n"
)


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    sources.remember([])


def reminder(lines: str, calendars: str = "") -> Reminder:
    return one(f"{calendars}{HEAD}  a:\n    text: hi\n    {lines}\n    timezone: Europe/Berlin\n")


def local(reminder: Reminder, count: int) -> list[str]:
    found = list(fire_times(reminder.schedule, NOW, NOW + 400 * 86400))[:count]
    return [f"{datetime.fromtimestamp(at, UTC):%a %m-%d %H:%M}" for at in found]


CALENDARS = """\
calendars:
  holidays: {country: DE, subdivision: BE}
  vacation: {dates: [2026-12-24..2027-01-02, 2027-05-14]}
  workdays: {weekdays: mon-fri, except: [holidays, vacation]}
"""


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        ('cron: "0 9 * * *"\n    only: workdays', ["Fri 11-27 08:00", "Mon 11-30 08:00"]),
        ('cron: "0 9 * * *"\n    only: [vacation, holidays]', ["Thu 12-24 08:00", "Fri 12-25 08:00"]),
        ('cron: "0 9 * * *"\n    except: workdays', ["Sat 11-28 08:00", "Sun 11-29 08:00"]),
        ("every: 2w\n    start: 2026-12-01 19:00", ["Tue 12-01 18:00", "Tue 12-15 18:00"]),
        ("every: 1w2d\n    start: 2026-12-01 19:00", ["Tue 12-01 18:00", "Thu 12-10 18:00"]),
        ("every: 90m\n    start: 2026-12-01 19:00", ["Tue 12-01 18:00", "Tue 12-01 19:30"]),
        ("every: 1d\n    start: 2026-12-01 19:00\n    times: 1", ["Tue 12-01 18:00"]),
        ("rrule: FREQ=MONTHLY;BYDAY=-1FR\n    start: 2026-12-01 16:00", ["Fri 12-25 15:00", "Fri 01-29 15:00"]),
        ('cron: "0 9 * * *"\n    start: 2026-12-01 10:00', ["Wed 12-02 08:00", "Thu 12-03 08:00"]),
        ('cron: "0 9 * * *"\n    until: 2026-11-27', ["Fri 11-27 08:00"]),
        ("at: [2026-12-24 09:00, 2026-12-28 09:00, 2027-01-04 09:00]\n    only: workdays", ["Mon 01-04 08:00"]),
    ],
)
def test_what_the_keys_mean(lines: str, first: list[str]) -> None:
    assert local(reminder(lines, CALENDARS), 2) == first


def test_an_ics_stands_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "school.ics").write_text(ICS)
    (tmp_path / "school.ics").chmod(0o644)
    file = tmp_path / "reminders.yaml"
    file.write_text(
        "calendars: {school: {ics: school.ics}}\n"
        + HEAD
        + '  a: {cron: "0 9 * * *", timezone: UTC, only: school, text: hi}\n'
    )
    file.chmod(0o644)
    (found,) = reminders.load(str(file))
    assert local(found, 9) == ["Tue 12-01 09:00", "Wed 12-02 09:00"]
    (tmp_path / "school.ics").unlink()
    sources.remember([])
    with pytest.raises(FileFaultsError) as caught:
        reminders.load(str(file))
    assert f"{file}:1:27: {tmp_path}/school.ics can't be read: No such file" in str(caught.value)


def test_limits_may_stand_under_defaults() -> None:
    text = CALENDARS + "defaults: {to: x:1, timezone: UTC, only: workdays, start: 2026-12-01 00:00}\nreminders:\n"
    found = one(text + '  a: {cron: "0 9 * * *", text: hi}\n')
    assert describe(found.schedule) == "at 09:00, every day, UTC, only on workdays, from 2026-12-01 00:00"
    assert faults(
        text.replace("2026-12-01 00:00", "x") + '  a: {cron: "0 9 * * *", text: hi}\n  b: {every: 1h, text: hi}\n'
    ) == ["5:59: start: 'x' is not a date and time; write it as 2026-12-01 08:30"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("rrule: FREQ=DAILY", "6:12: rrule counts from a start; write start: as well, its first date and time"),
        ("rrule: FREQ=HOURLY\n    start: 2026-12-01 16:00", "6:12: rrule: FREQ=HOURLY is not taken; write every: 2h or every: 30m"),
        ("every: 1d\n    times: 3", "7:12: times counts from a start; write start: as well"),
        ("every: 1d12h", "6:12: every mixes days, which count on the wall clock, with hours, which don't; write 36h or 2d"),
        ("every: 1d\n    start: 2026-12-01", "7:12: start: '2026-12-01' is a date without a time; add one, as in 2026-12-01 08:30"),
        ("every: 1d\n    start: 2026-12-01 09:00Z", "7:12: start: '2026-12-01 09:00Z' has an offset; write it as the clock in Europe/Berlin shows it, without one"),
        ("every: 1d\n    start: 2026-12-02 09:00\n    until: 2026-12-01", "8:12: it never fires: until is before start"),
        ("every: 1d\n    start: [2026-12-01 09:00]", "7:12: start must be a date and time such as 2026-12-01 08:30, not a list"),
        ("every: 1h\n    until: tomorrow", "7:12: until: 'tomorrow' is not a date and time; write it as 2026-12-01 08:30"),
        ("every: 1d\n    start: 2026-12-01 09:00\n    times: 0", "8:12: times must be a whole number from 1 to 10,000, without quotes"),
        ("every: 1h\n    only: workday", "7:11: a calendar 'workday' is not known here, did you mean 'workdays'?"),
        ("every: 1h\n    except: []", "7:13: except is empty"),
        ("every: 1h\n    from: 2026-12-01 09:00", "7:5: unknown key 'from'; write start"),
        ('cron: "0 9 * * sat"\n    only: workdays', "7:11: it never fires: only, except, start and until leave none of its fire times"),
    ],
)  # fmt: skip
def test_a_fault_of_the_limits(lines: str, expected: str) -> None:
    text = f"calendars: {{workdays: {{weekdays: mon-fri}}}}\n{HEAD}  a:\n    {lines}\n    text: hi\n    timezone: Europe/Berlin\n"
    assert faults(text.replace("  a:\n", "  a:\n", 1)) == [expected]


@pytest.mark.parametrize(
    ("calendars", "expected"),
    [
        ("{a: {}}", "1:13: the calendar 'a' names no day; give it dates, weekdays, a country or an ics"),
        ("{a: {except: b}, b: {weekdays: sat}}", "1:13: the calendar 'a' names no day; give it dates, weekdays, a country or an ics"),
        ("{a: mon-fri}", "1:13: the calendar 'a' must be a group of keys (dates, weekdays, country, subdivision, ics, except), not text"),
        ("{a b: {weekdays: mon}}", "1:13: 'a b' must be a name: letters, digits, - _ . only, at most 64"),
        ("{a: {days: mon}}", "1:17: unknown key 'days', did you mean 'weekdays'?"),
        ("{a: {weekdays: mon..fri}}", "1:27: weekdays must be as in a cron, such as mon-fri: cron, day of week: 'mon..fri' can't be read; write *, 5, 1-5, 1,3,5 or */2"),
        ("{a: {dates: 24.12.2026}}", "1:24: dates: '24.12.2026' is not a date; write it as 2026-12-24"),
        ("{a: {dates: [2026-12-24, 2026-02-30]}}", "1:37: dates: '2026-02-30' does not exist: day is out of range for month"),
        ("{a: {dates: 2027-01-02..2026-12-24}}", "1:24: dates '2027-01-02..2026-12-24' runs backwards; write the first day first"),
        ("{a: {dates: []}}", "1:24: dates is empty"),
        ("{a: {country: Germny}}", "1:26: 'Germny' is not a country of the library holidays; did you mean DE (Germany)"),
        ("{a: {country: NO}}", "1:26: country must be text, but YAML reads 'NO' as false; put it in quotes: \"NO\""),
        ("{a: {country: DE, subdivision: XX}}", "1:43: 'XX' is not a subdivision of DE"),
        ("{a: {weekdays: mon, subdivision: BE}}", "1:32: subdivision needs a country; write country: as well"),
        ("{a: {weekdays: mon, except: b}, b: {weekdays: mon, except: a}}", "1:71: a calendar 'a' is in its own except, by way of a and b"),
        ("{a: {weekdays: mon, except: c}}", "1:40: a calendar 'c' is not known here; known are a"),
        ("{a: {ics: none.ics}}", "1:22: /"),
        ("[a]", "1:12: calendars must be names, each with its keys, not a list"),
    ],
)  # fmt: skip
def test_a_fault_of_a_calendar(calendars: str, expected: str) -> None:
    (found,) = faults(f"calendars: {calendars}\n{HEAD}  a: {{every: 1h, text: hi}}\n")
    assert found.startswith(expected)


def test_a_calendar_of_another_file_is_not_known() -> None:
    assert faults(HEAD + "  a: {every: 1h, text: hi, only: workdays}\n") == [
        "4:34: a calendar 'workdays' is not known here; write it under calendars:"
    ]


# Warnings


def suspicions(lines: str, calendars: str = "") -> list[str]:
    return [f"{one.line}: {one.message}" for one in reminders.suspicions([reminder(lines, calendars)], NOW)]


def test_days_without_a_start_are_told() -> None:
    expected = "has no start, so it counts from 1970-01-01 00:00 UTC and next fires Thu 2026-12-03 01:00 Europe/Berlin"
    assert suspicions("every: 14d") == [f"6: a {expected}; write start: with its first date and time"]
    assert suspicions("every: 2w") == [f"6: a {expected}; write start: with its first date and time"]
    assert suspicions("every: 24h") == []
    assert suspicions("every: 14d\n    start: 2026-12-01 19:00") == []


def test_a_calendar_without_a_day_in_the_next_year_is_told_once() -> None:
    calendars = "calendars:\n  old: {dates: 2025-12-24}\n  work: {weekdays: mon-fri, except: old}\n"
    assert suspicions('cron: "0 9 * * *"\n    only: work\n    except: old', calendars) == [
        "10: the calendar old names no day in the next year"
    ]


def test_what_has_ended_is_told() -> None:
    assert suspicions('cron: "0 9 * * *"\n    until: 2026-11-01') == ["6: a has ended: no fire time is left"]


def test_a_change_of_the_clock_is_told_of_rules_and_days() -> None:
    expected = (
        "meets a change of clocks: in Europe/Berlin, 02:30 doesn't exist on 2027-03-28; it fires at 03:00 instead",
        "meets a change of clocks: in Europe/Berlin, 02:30 comes twice on 2027-10-31; it fires the first time",
    )
    assert suspicions("every: 1d\n    start: 2026-12-01 02:30") == [f"6: a {one}" for one in expected]
    assert suspicions("rrule: FREQ=DAILY\n    start: 2026-12-01 02:30") == [f"6: a {one}" for one in expected]
