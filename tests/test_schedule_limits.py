"""What bounds a schedule: start, until, times, and the days that calendars leave; compared with a filter minute by minute."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from examples_kit import up_to
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedule import CHANGES, DAY, cron, instant

from bub_cron.errors import ScheduleError
from bub_cron.schedule import (
    Calendar,
    Schedule,
    decode,
    describe,
    encode,
    fire_times,
    left_out,
    limit,
    next_fire_time,
    parse_cron,
    parse_every,
)

BERLIN = "Europe/Berlin"
END = instant("2200-01-01T00:00Z")
MON_FRI = parse_cron("0 0 * * mon-fri", "UTC", "").weekdays


def limited(base: Schedule, zone: str = BERLIN, **given: Any) -> Schedule:
    none: dict[str, Any] = {"start": None, "until": None, "times": None, "only": (), "excepted": ()}
    return limit(base, zone, **{**none, **given})


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()


def dates(name: str, *ranges: str, **given: Any) -> Calendar:
    pairs = [one.split("..") for one in ranges]
    return Calendar(name, ranges=tuple((day(pair[0]), day(pair[-1])) for pair in pairs), **given)


def local(schedule: Schedule, count: int, after: str = "2026-11-26T12:00Z", zone: str = BERLIN) -> list[str]:
    found = itertools.islice(fire_times(schedule, instant(after), END), count)
    return [f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%a %Y-%m-%d %H:%M}" for at in found]


VACATION = dates("vacation", "2026-12-24..2027-01-02", "2027-05-14")
WORKDAYS = Calendar("workdays", weekdays=MON_FRI, excepted=(VACATION,))


# The oracle


@settings(max_examples=up_to(300), deadline=None)
@given(
    place=st.sampled_from(CHANGES),
    text=st.sampled_from(["*/7 * * * *", "13 */2 * * *", "0 0 * * *", "30 2 * * *", "59 23,0 * * *", "every"]),
    only=st.one_of(st.none(), st.sets(st.integers(-3, 3))),
    excepted=st.one_of(st.none(), st.sets(st.integers(-3, 3))),
    weekdays=st.booleans(),
    start=st.one_of(st.none(), st.integers(-3 * 1440, 2 * 1440)),
    until=st.one_of(st.none(), st.integers(-1440, 3 * 1440)),
    times=st.integers(1, 40),
    begin=st.integers(-2 * DAY, DAY),
    length=st.integers(1, 3 * DAY),
)
def test_limits_are_a_filter(
    place: tuple[str, str], text: str, only: set[int] | None, excepted: set[int] | None, weekdays: bool, start: int | None,
    until: int | None, times: int, begin: int, length: int,
) -> None:  # fmt: skip
    """Of a schedule's own fire times those are left that lie within the limits, by the wall clock at each."""
    name, change = place
    zone = ZoneInfo(name)
    base = parse_every(5400) if text == "every" else cron(text, name)
    near = datetime.fromtimestamp(instant(change), zone).date()

    def around(label: str, numbers: set[int]) -> Calendar:
        return dates(label, *(str(near + timedelta(number)) for number in numbers), weekdays=MON_FRI * weekdays)

    def stored(minutes: int | None) -> str | None:
        if minutes is None:
            return None
        at = datetime.fromtimestamp(instant(change) // 60 * 60 + minutes * 60, zone)
        return f"{at:%Y-%m-%dT%H:%M}"

    calendars: dict[str, Any] = {"only": () if only is None else (around("a", only),)}
    calendars["excepted"] = () if excepted is None else (around("b", excepted),)
    given: dict[str, Any] = {"start": stored(start), "until": stored(until), **calendars}
    try:
        schedule = limited(base, name, times=times if start is not None else None, **given)
    except ScheduleError as error:
        assert "never fires" in str(error)
        return

    def allowed(at: int) -> bool:
        shown = datetime.fromtimestamp(at, zone)
        number, in_week = (shown.date() - near).days, shown.isoweekday() < 6 and weekdays
        left = (only is None or number in only or in_week) and (excepted is None or not (number in excepted or in_week))
        return left and all([
            start is None or at >= first(given["start"]),
            until is None or at <= last(given["until"]),
        ])

    def first(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())

    def last(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=1).timestamp()) + 59

    after = instant(change) + begin
    expected = [at for at in fire_times(base, instant(change) - 6 * DAY, after + length) if allowed(at)]
    if start is not None:
        expected = expected[:times]
    found = list(fire_times(schedule, after, after + length))
    assert found == [at for at in expected if at > after]
    cut = after + length // 3
    assert found == [*fire_times(schedule, after, cut), *fire_times(schedule, cut, after + length)]
    assert decode(encode(schedule)) == schedule


# By example


def test_work_days_without_vacation() -> None:
    """A calendar minus another one."""
    schedule = limited(cron("0 9 * * *", BERLIN), only=(WORKDAYS,))
    found = local(schedule, 3, "2026-12-22T12:00Z")
    assert found == ["Wed 2026-12-23 09:00", "Mon 2027-01-04 09:00", "Tue 2027-01-05 09:00"]
    assert describe(schedule) == "at 09:00, every day, Europe/Berlin, only on workdays"


def test_left_out_days_say_why() -> None:
    """With the calendar's name, also that of one in its except."""
    schedule = limited(cron("0 9 * * *", BERLIN), only=(WORKDAYS,), excepted=(dates("trip", "2026-12-23"),))
    found = left_out(schedule, instant("2026-12-22T12:00Z"), instant("2026-12-26T12:00Z"))
    assert [(out.instant, out.why) for out in found] == [
        (instant("2026-12-23T08:00Z"), "trip"),
        (instant("2026-12-24T08:00Z"), "vacation"),
        (instant("2026-12-25T08:00Z"), "vacation"),
        (instant("2026-12-26T08:00Z"), "not in workdays"),
    ]
    assert list(left_out(cron("0 9 * * *"), 0, END)) == []


def test_a_day_that_the_clock_repeats_at_midnight_is_known_by_the_clock() -> None:
    """At St. John's the clock went from 00:01 back to 23:01: the day before came once more."""
    sunday = dates("sunday", "2010-11-07")
    schedule = limited(cron("*/20 * * * *", "America/St_Johns"), "America/St_Johns", excepted=(sunday,))
    found = local(schedule, 9, "2010-11-07T01:45Z", "America/St_Johns")
    assert [one[4:] for one in found[:8]] == [
        "2010-11-06 23:20", "2010-11-06 23:40", "2010-11-06 23:20", "2010-11-06 23:40", "2010-11-08 00:00",
        "2010-11-08 00:20", "2010-11-08 00:40", "2010-11-08 01:00",
    ]  # fmt: skip


def test_times_counts_from_the_start_after_the_calendars() -> None:
    """Whenever one asks."""
    schedule = limited(cron("0 9 * * *", BERLIN), start="2026-12-22T00:00", times=3, only=(WORKDAYS,))
    expected = ["Tue 2026-12-22 09:00", "Wed 2026-12-23 09:00", "Mon 2027-01-04 09:00"]
    assert local(schedule, 9) == expected
    assert local(schedule, 9, "2026-12-23T08:00Z") == expected[2:]
    assert next_fire_time(schedule, instant("2027-01-04T08:00Z")) is None
    assert describe(schedule).endswith("only on workdays, from 2026-12-22 00:00, 3 times in all")


def test_an_until_that_is_a_date_includes_that_day() -> None:
    """One with a time includes that minute."""
    assert local(limited(cron("0 9,23 * * *", BERLIN), until="2026-11-27"), 9)[-1] == "Fri 2026-11-27 23:00"
    assert local(limited(cron("0 9,23 * * *", BERLIN), until="2026-11-27T09:00"), 9)[-1] == "Fri 2026-11-27 09:00"


def test_an_every_in_utc_has_the_days_of_the_reminders_zone() -> None:
    """It is Saturday in Auckland when it is Friday noon in UTC."""
    schedule = limited(parse_every(6 * 3600), "Pacific/Auckland", only=(dates("saturday", "2026-11-28"),))
    assert list(fire_times(schedule, 0, END)) == [instant(f"2026-11-27T{hour}Z") for hour in ("12:00", "18:00")] + [
        instant("2026-11-28T00:00Z"), instant("2026-11-28T06:00Z"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"times": 3}, "times counts from a start"),
        ({"start": "2027-01-01T00:00", "until": "2026-12-31"}, "it never fires: until is before start"),
        ({"start": "2027-01-01T10:00", "until": "2027-01-01"}, "start and until leave none"),
        ({"only": (Calendar("weekend", weekdays=parse_cron("0 0 * * sat", "UTC", "").weekdays),)}, "only, except"),
        ({"only": (dates("off", "2027-01-03"),)}, "only, except"),  # a Sunday
        ({"excepted": (Calendar("week", weekdays=MON_FRI),)}, "only, except"),
    ],
)
def test_what_never_fires_is_refused(given: dict[str, Any], words: str) -> None:
    """With what is in the way."""
    with pytest.raises(ScheduleError) as caught:
        limited(cron("0 9 * * mon-fri", BERLIN), **given)
    assert words in str(caught.value)


def test_what_has_ended_is_not_refused() -> None:
    """It fired once."""
    schedule = limited(cron("0 9 * * *", BERLIN), until="2020-12-31")
    assert next_fire_time(schedule, instant("2026-11-26T12:00Z")) is None


def test_no_limits_change_nothing() -> None:
    """So that the ledger's lines stay as they are."""
    schedule = cron("0 9 * * *", BERLIN)
    assert limited(schedule) is schedule


def test_the_encoded_form_is_stable() -> None:
    """Stores hold these lines."""
    schedule = limited(
        cron("0 9 * * *", BERLIN), start="2026-12-22T00:00", until="2027-12-31", times=3, only=(WORKDAYS,),
        excepted=(Calendar("école", sources=("ics /a b/c.ics",)),),
    )  # fmt: skip
    assert encode(schedule) == (
        'limited Europe/Berlin 2026-12-22T00:00 2027-12-31 3 [{"name":"workdays","weekdays":"7df7df7c0","except":[{"name":'
        '"vacation","dates":[[20811,20820],[20952,20952]]}]}] [{"name":"\\u00e9cole","sources":["ics\\u0020/a\\u0020b/c.ics"'
        "]}] cron fixed both 1 200 fffffffe 1ffe 1f7df7df7df Europe/Berlin"
    )
    assert decode(encode(schedule)) == schedule


@pytest.mark.parametrize(
    "text",
    [
        "limited UTC - - - - - limited UTC - - - - - every 60",
        "limited UTC - - 0 - - every 60",
        "limited UTC - - x - - every 60",
        "limited UTC x - - - - every 60",
        "limited UTC - - - [{}] - every 60",
        "limited UTC - - - {} - every 60",
        'limited UTC - - - [{"name":"a","dates":[1]}] - every 60',
        'limited UTC - - - [{"name":"a", "dates":[[1,2]]}] - every 60',
        "limited UTC - - - - -",
        "limited UTC",
    ],
)
def test_only_what_encode_writes_is_decoded(text: str) -> None:
    """Anything else is a damaged store's."""
    with pytest.raises(ScheduleError):
        next_fire_time(decode(text), 0)
