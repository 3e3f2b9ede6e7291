"""Fire times, the traps of cron texts, and the encoded form.

`schedule-cases.jsonl` was measured against Debian cron 3.0pl1-162's own code, driven by a fake clock. Everything around
changes of the clock is also compared with an oracle written here, which goes through UTC minute by minute.
"""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import subprocess
import sys
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from examples_kit import up_to
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import bub_cron.schedule
from bub_cron.errors import ScheduleError
from bub_cron.schedule import (
    Schedule,
    decode,
    describe,
    encode,
    fire_times,
    machine_zone,
    next_fire_time,
    parse_at,
    parse_cron,
    parse_every,
    require_zone,
)

HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "schedule-cases.jsonl").read_text().splitlines()]
DAY = 86_400
NEW_YEAR = 1_767_225_600  # 2026-01-01T00:00Z
END_OF_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z


def instant(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp())


def cron(text: str, zone: str = "UTC", name: str = "reminder") -> Schedule:
    return parse_cron(text, zone, name)


def times(schedule: Schedule, after: str, until: str) -> list[str]:
    found = fire_times(schedule, instant(after), instant(until))
    return [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in found]


def fault(text: str, name: str = "reminder") -> str:
    with pytest.raises(ScheduleError) as caught:
        parse_cron(text, "UTC", name)
    return str(caught.value)


# The measured cases


def test_there_are_59_cases() -> None:
    """The file is whole."""
    assert len(CASES) == 59


@pytest.mark.parametrize("case", CASES, ids=[f"{case['cron']} {case['tz']} {case['why'][:40]}" for case in CASES])
def test_debian(case: dict[str, Any]) -> None:
    """Fires when Debian's cron does."""
    schedule = cron(case["cron"], case["tz"])
    found = list(fire_times(schedule, instant(case["since"]), instant(case["until"])))
    assert found == [instant(expected) for expected in case["expect"]]


# The oracle


class Spelled(NamedTuple):
    """One field: how it is written, the values that it means, and whether it starts with a star."""

    text: str
    values: frozenset[int]
    star: bool


class Fields(NamedTuple):
    minute: Spelled
    hour: Spelled
    day: Spelled
    month: Spelled
    weekday: Spelled  # 0 is Sunday

    def text(self) -> str:
        return " ".join(field.text for field in self)

    def fixed(self) -> bool:
        return not (self.minute.star or self.hour.star)

    def match_day(self, day: date) -> bool:
        dated = day.day in self.day.values
        named = day.isoweekday() % 7 in self.weekday.values
        both = self.day.star or self.weekday.star
        return day.month in self.month.values and (dated and named if both else dated or named)

    def match(self, local: datetime) -> bool:
        return local.minute in self.minute.values and local.hour in self.hour.values and self.match_day(local.date())


def spelled(low: int, high: int, *, mostly_star: bool = False) -> st.SearchStrategy[Spelled]:
    """A field as `*`, `*/n`, a list, or ranges with steps, with its meaning worked out apart from croniter."""
    everything = range(low, high + 1)
    star = st.just(Spelled("*", frozenset(everything), True))
    star_step = st.integers(1, high).map(lambda n: Spelled(f"*/{n}", frozenset(everything[::n]), True))
    listed = st.lists(st.sampled_from(everything), min_size=1, max_size=6).map(
        lambda values: Spelled(",".join(map(str, values)), frozenset(values), False)
    )
    ranged = st.tuples(st.sampled_from(everything), st.sampled_from(everything), st.integers(1, 12)).map(
        lambda drawn: Spelled(
            f"{min(drawn[:2])}-{max(drawn[:2])}/{drawn[2]}",
            frozenset(range(min(drawn[:2]), max(drawn[:2]) + 1, drawn[2])),
            False,
        )
    )
    return st.one_of([star, star, star, star_step, listed] if mostly_star else [star, star_step, listed, ranged])


FIELDS = st.builds(
    Fields,
    spelled(0, 59),
    spelled(0, 23),
    spelled(1, 31, mostly_star=True),
    spelled(1, 12, mostly_star=True),
    spelled(0, 6, mostly_star=True),
)

# Real changes of the clock: half-hour and two-hour shifts, at midnight, over a whole day, three hours, for good.
CHANGES = [
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("Antarctica/Troll", "2026-03-29T01:00Z"),
    ("Antarctica/Troll", "2026-10-25T01:00Z"),
    ("Africa/Casablanca", "2024-03-10T02:00Z"),
    ("Africa/Casablanca", "2024-04-14T02:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("Antarctica/Casey", "2009-10-17T18:00Z"),
    ("Antarctica/Casey", "2010-03-04T15:00Z"),
    ("Asia/Pyongyang", "2015-08-14T15:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z"),
    ("America/Havana", "2026-03-08T05:00Z"),
    ("America/Havana", "2026-11-01T05:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("Europe/Berlin", "2150-03-29T01:00Z"),
    ("Asia/Tehran", "2022-03-21T20:30Z"),
    ("Asia/Tehran", "2022-09-21T19:30Z"),
    ("America/Caracas", "2007-12-09T07:00Z"),
    ("America/Caracas", "2016-05-01T07:00Z"),
]


def offset_at(zone: ZoneInfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_the_changes_used_here_are_real(zone: str, change: str) -> None:
    """The offset differs from one second to the next."""
    at = instant(change)
    assert offset_at(ZoneInfo(zone), at) != offset_at(ZoneInfo(zone), at - 1)


def oracle(fields: Fields, zone: ZoneInfo, after: int, until: int) -> list[int]:
    """Rules 1 to 6, minute by minute over UTC, for zones whose offsets are whole minutes."""
    first = (after - 4 * 3600) // 60 * 60
    offsets = {at: offset_at(zone, at) for at in range(first - 60, until + 1, 60)}
    fired = set()
    repeated: set[int] = set()
    for at in range(first, until + 1, 60):
        shift = offsets[at] - offsets[at - 60]
        if fields.fixed() and 0 < shift < 3 * 3600:
            skipped = range(at + offsets[at - 60], at + offsets[at], 60)
            if any(fields.match(datetime.fromtimestamp(local, UTC)) for local in skipped):
                fired.add(at)
        if fields.fixed() and -3 * 3600 <= shift < 0:
            repeated.update(range(at, at - shift, 60))
        if at not in repeated and fields.match(datetime.fromtimestamp(at, zone)):
            fired.add(at)
    return sorted(at for at in fired if after < at <= until)


def parse_or_skip(fields: Fields, zone: str) -> Schedule:
    try:
        return cron(fields.text(), zone)
    except ScheduleError as error:
        assume("never fires" not in str(error))
        raise


@settings(max_examples=up_to(1200), deadline=None)
@given(
    fields=FIELDS,
    place=st.sampled_from(CHANGES),
    start=st.integers(-10 * 3600, 8 * 3600),
    length=st.integers(1, 36_000),
)
def test_oracle_around_changes(fields: Fields, place: tuple[str, str], start: int, length: int) -> None:
    """Around real changes of the clock, the fire times are those that the rules say, minute by minute."""
    zone, change = place
    after = instant(change) + start
    schedule = parse_or_skip(fields, zone)
    found = list(fire_times(schedule, after, after + length))
    assert found == oracle(fields, ZoneInfo(zone), after, after + length)


@settings(max_examples=up_to(400), deadline=None)
@given(fields=FIELDS, place=st.sampled_from(CHANGES), start=st.integers(-6 * 3600, 6 * 3600))
def test_oracle_for_single_minutes(fields: Fields, place: tuple[str, str], start: int) -> None:
    """What a tick asks, an hour of one-minute windows, adds up to what the rules say."""
    zone, change = place
    after = instant(change) + start
    schedule = parse_or_skip(fields, zone)
    ticks = itertools.pairwise(range(after, after + 3601, 60))
    found = [at for begin, end in ticks for at in fire_times(schedule, begin, end)]
    assert found == oracle(fields, ZoneInfo(zone), after, after + 3600)


@settings(max_examples=up_to(400), deadline=None)
@given(
    fields=FIELDS,
    zone=st.sampled_from([zone for zone, _ in CHANGES]),
    after=st.integers(0, 7_258_118_400),  # 1970 to 2200
    cuts=st.lists(st.integers(0, 200 * DAY), min_size=2, max_size=6),
)
def test_cutting_an_interval_changes_nothing(fields: Fields, zone: str, after: int, cuts: list[int]) -> None:
    """(a, c] is (a, b] and (b, c]; times are unique, ascending and inside."""
    schedule = parse_or_skip(fields._replace(minute=Spelled("7", frozenset({7}), False)), zone)
    bounds = [after + cut for cut in sorted(cuts)]
    whole = list(fire_times(schedule, bounds[0], bounds[-1]))
    assert whole == [at for begin, end in itertools.pairwise(bounds) for at in fire_times(schedule, begin, end)]
    assert all(earlier < later for earlier, later in itertools.pairwise([bounds[0], *whole]))
    assert not whole or whole[-1] <= bounds[-1]


@settings(max_examples=up_to(600), deadline=None)
@given(
    fields=FIELDS,
    place=st.sampled_from(CHANGES),
    cuts=st.lists(st.integers(-20 * 3600, 20 * 3600), min_size=3, max_size=8),
)
def test_cutting_an_interval_near_a_change_changes_nothing(
    fields: Fields, place: tuple[str, str], cuts: list[int]
) -> None:
    """The same, cut to the second within hours of a change."""
    schedule = parse_or_skip(fields, place[0])
    bounds = [instant(place[1]) + cut for cut in sorted(cuts)]
    whole = list(fire_times(schedule, bounds[0], bounds[-1]))
    assert whole == [at for begin, end in itertools.pairwise(bounds) for at in fire_times(schedule, begin, end)]
    assert all(earlier < later for earlier, later in itertools.pairwise([bounds[0], *whole]))


@settings(max_examples=up_to(200), deadline=None)
@given(fields=FIELDS, year=st.integers(1970, 2200))
def test_oracle_for_days(fields: Fields, year: int) -> None:
    """Over three years, the days are those that the day, month and weekday fields say."""
    midnight = Spelled("0", frozenset({0}), False)
    schedule = parse_or_skip(fields._replace(minute=midnight, hour=midnight), "UTC")
    begin = date(year, 1, 1)
    days = [begin + timedelta(number) for number in range(3 * 365)]
    first = instant(f"{year}-01-01T00:00Z")
    found = [
        date.fromtimestamp(0) + timedelta(at // DAY)
        for at in fire_times(schedule, first - 1, first + len(days) * DAY - 1)
    ]
    assert found == [day for day in days if fields.match_day(day)]


@settings(max_examples=up_to(200), deadline=None)
@given(weekday=st.integers(0, 7), nth=st.sampled_from([1, 2, 3, 4, 5, "L"]), year=st.integers(1970, 2200))
def test_oracle_for_counted_weekdays(weekday: int, nth: int | str, year: int) -> None:
    """`5#2` is the second Friday and `L5` the last one, in each month of a year."""
    schedule = cron(f"0 0 * * L{weekday}" if nth == "L" else f"0 0 * * {weekday}#{nth}")
    expected = []
    for month in range(1, 13):
        length = monthrange(year, month)[1]
        days = [day for n in range(length) if (day := date(year, month, n + 1)).isoweekday() % 7 == weekday % 7]
        expected += [days[-1]] if isinstance(nth, str) else days[nth - 1 : nth]
    first = instant(f"{year}-01-01T00:00Z")
    found = fire_times(schedule, first - 1, instant(f"{year}-12-31T12:00Z"))
    assert [datetime.fromtimestamp(at, UTC).date() for at in found] == expected


# Fire times, by example


def test_after_is_excluded_and_until_included() -> None:
    """The interval is (after, until]."""
    assert list(fire_times(cron("* * * * *"), 60, 180)) == [120, 180]
    assert list(fire_times(cron("* * * * *"), 60, 119)) == []
    assert list(fire_times(cron("* * * * *"), 180, 180)) == []
    assert list(fire_times(cron("* * * * *"), 180, 60)) == []


def test_a_year_of_minutes_has_them_all() -> None:
    """Every minute of a year with two changes of the clock, once each."""
    found = list(fire_times(cron("* * * * *", "Europe/Berlin"), NEW_YEAR, NEW_YEAR + 365 * DAY))
    assert found == list(range(NEW_YEAR + 60, NEW_YEAR + 365 * DAY + 1, 60))


def test_fire_times_are_lazy() -> None:
    """The first of 8,000 years of minutes comes at once."""
    found = fire_times(cron("* * * * *", "Asia/Tokyo"), 0, END_OF_TIME)
    assert list(itertools.islice(found, 3)) == [60, 120, 180]


def test_the_next_leap_day_that_is_a_weekend() -> None:
    """A search over years ends at the right day; 1900 and 2100 have no leap day."""
    weekends = times(cron("0 0 */28 2 */6"), "2026-02-01T00:00Z", "2032-12-31T00:00Z")  # the 1st or 29th, if Sat or Sun
    assert weekends == ["2031-02-01T00:00:00Z", "2032-02-01T00:00:00Z", "2032-02-29T00:00:00Z"]
    assert next_fire_time(cron("0 0 29 2 *"), instant("2096-02-29T00:00Z")) == instant("2104-02-29T00:00Z")


def test_the_second_friday_or_the_fifteenth() -> None:
    """Rule 6 holds for counted weekdays: either suffices without a star, both are needed with one."""
    either = times(cron("0 9 15 * 5#2"), "2026-05-01T00:00Z", "2026-06-30T00:00Z")
    assert either == ["2026-05-08T09:00:00Z", "2026-05-15T09:00:00Z", "2026-06-12T09:00:00Z", "2026-06-15T09:00:00Z"]
    both = times(cron("0 9 */2 * 5#2"), "2026-01-01T00:00Z", "2026-06-30T00:00Z")
    assert both == ["2026-01-09T09:00:00Z", "2026-02-13T09:00:00Z", "2026-03-13T09:00:00Z"]


def test_the_last_day_of_the_month() -> None:
    """`L` is the 28th to 31st as the month goes, and can stand in a list."""
    last = times(cron("0 9 L * *"), "2028-01-31T12:00Z", "2028-04-30T12:00Z")
    assert last == ["2028-02-29T09:00:00Z", "2028-03-31T09:00:00Z", "2028-04-30T09:00:00Z"]
    listed = times(cron("0 9 15,L 2 *"), "2026-01-01T00:00Z", "2027-01-01T00:00Z")
    assert listed == ["2026-02-15T09:00:00Z", "2026-02-28T09:00:00Z"]


def test_an_offset_with_seconds() -> None:
    """Liberia was 44:30 behind UTC, and jumped over 44 minutes and a half: a skipped time fires at the jump."""
    assert times(cron("0 12 6 1 *", "Africa/Monrovia"), "1972-01-01T00:00Z", "1972-02-01T00:00Z") == [
        "1972-01-06T12:44:30Z"
    ]
    assert times(cron("15 0 7 1 *", "Africa/Monrovia"), "1972-01-01T00:00Z", "1972-02-01T00:00Z") == [
        "1972-01-07T00:44:30Z"
    ]


def test_fixed_or_following_is_in_the_text_alone() -> None:
    """`0 0-23` is fixed although it fires every hour, so it skips the second pass that `0 *` fires in."""
    window = ("2026-10-24T23:30Z", "2026-10-25T02:30Z")
    assert len(times(cron("0 * * * *", "Europe/Berlin"), *window)) == 3
    assert times(cron("0 0-23 * * *", "Europe/Berlin"), *window) == ["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_ends_of_time_are_quiet(zone: str) -> None:
    """Near the years 1 and 9999 the walk stops without an error, also for bounds far beyond."""
    schedule = cron("0 * * * *", zone)
    last = list(fire_times(schedule, END_OF_TIME - 3 * DAY, 10**30))
    assert 47 <= len(last) <= 72
    assert next_fire_time(schedule, last[-1]) is None
    assert next_fire_time(schedule, 10**30) is None
    assert next(fire_times(schedule, -(10**30), 0)) < -62_000_000_000
    assert next_fire_time(cron("0 0 29 2 *", zone), END_OF_TIME - 300 * DAY) is None


def test_every_counts_from_the_epoch() -> None:
    """Multiples of the period, before 1970 too."""
    assert list(fire_times(parse_every(1800), 1800, 5400)) == [3600, 5400]
    assert list(fire_times(parse_every(1800), 1799, 1801)) == [1800]
    assert list(fire_times(parse_every(3600), -3601, 0)) == [-3600, 0]
    assert next_fire_time(parse_every(5400), NEW_YEAR) == (NEW_YEAR // 5400 + 1) * 5400
    assert parse_every(60).zone == "UTC"


@pytest.mark.parametrize(
    "seconds",
    [
        0,
        -60,
        59,
        61,
        90,
        367 * DAY,
        pytest.param(10**6000, id="huge"),
        pytest.param(-(10**6000), id="low"),
        True,
        60.0,
        "60",
        None,
        [],
    ],
)
def test_every_refuses(seconds: Any) -> None:
    """Not a number of whole minutes from one minute to 366 days."""
    with pytest.raises(ScheduleError, match="every"):
        parse_every(seconds)


# The traps of cron texts


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("9-9 9-9 9-9 9-9 5-5", "9 9 9 9 5"),
        ("5-5/10 9 * * *", "5 9 * * *"),
        ("0 9 31-L * *", "0 9 31 * *"),
        ("0 9 25-L * *", "0 9 25-31 * *"),
        ("0 9 * jan-jan fri-fri", "0 9 * 1 5"),
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * 7-7", "0 9 * * sun"),
        ("0 9 * * 5-7", "0 9 * * 0,5,6"),
        ("0 9 * * 0-7", "0 9 * * *"),
        ("0 9 * * 1-7/2", "0 9 * * 0,1,3,5"),
        ("0 9 * * 2-7/2", "0 9 * * 2,4,6"),
        ("0 9 * * MON-Fri", "0 9 * * 1-5"),
        ("0 9 * * 1,2,3,4,5", "0 9 * * 1-5"),
        ("0 9 * JAN,jul *", "0 9 * 1,7 *"),
        ("00 09 01 * *", "0 9 1 * *"),
        (" 0\t9  * * *\n", "0 9 * * *"),
        ("59/15 9 * * *", "59 9 * * *"),
        ("10/20 9 * * *", "10,30,50 9 * * *"),
        ("0 9 */1 * *", "0 9 * * *"),
        ("0 9 1-31 * *", "0 9 * * *"),
        ("0 9 1-31 * 1", "0 9 * * *"),
        ("0 9 13 * 0-6", "0 9 * * *"),
        ("0 9 * 1-12 *", "0 9 * * *"),
        ("0 9 31 2 1", "0 9 * 2 1"),
        ("0 9 30,31 2,3 *", "0 9 30-31 3 *"),
        ("0 9 L 1 *", "0 9 31 1 *"),
        ("0 9 L 2 *", "0 9 L,29 2 *"),
        ("0 9 28,L 2 *", "0 9 28,29 2 *"),
        ("0 9 28-31,L * *", "0 9 28-31 * *"),
        ("0 9 * * 5#1,5#2,5#3,5#4,5#5", "0 9 * * 5"),
        ("0 9 * * 5#1,5#2,5#3,5#4,L5", "0 9 * * 5"),
        ("0 9 * * 5#5,L5", "0 9 * * L5"),
        ("0 9 * * fri#2", "0 9 * * 5#2"),
        ("0 9 * * 1-2#2", "0 9 * * mon#2,tue#2"),
        ("0 9 * * l7", "0 9 * * L0"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("  @DAILY \n", "0 0 * * *"),
    ],
)
def test_same_meaning(text: str, same: str) -> None:
    """Two texts that mean the same are one schedule, with one encoding."""
    assert cron(text) == cron(same)
    assert encode(cron(text)) == encode(cron(same))
    assert hash(cron(text)) == hash(cron(same))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("0 * * * *", "0 0-23 * * *"),
        ("* 9 * * *", "0-59 9 * * *"),
        ("0 9 */2 * 1", "0 9 1-31/2 * 1"),
        ("0 9 15 * 5#2", "0 9 15 * 5"),
        ("0 9 L * *", "0 9 31 * *"),
        ("0 9 L 2 *", "0 9 28 2 *"),
        ("0 9 * * L5", "0 9 * * 5#4"),
        ("0 9 * * 5#1,5#2,5#3,L5", "0 9 * * 5"),
    ],
)
def test_other_meaning(text: str, other: str) -> None:
    """What differs at some change of the clock or on some day is another schedule."""
    assert cron(text) != cron(other)
    assert encode(cron(text)) != encode(cron(other))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("22-2 * * * *", "minute: 22-2 runs backwards, write 22-59,0-2"),
        ("0 22-2 * * *", "hour: 22-2 runs backwards, write 22-23,0-2"),
        ("0 22-2/2 * * *", "hour: 22-2 runs backwards, write 0,2,22"),
        ("0 9 28-3 * *", "day of month: 28-3 runs backwards, write 28-31,1-3"),
        ("0 9 * nov-feb *", "month: nov-feb runs backwards, write nov-dec,jan-feb"),
        ("0 9 * * FRI-MON", "day of week: fri-mon runs backwards, write fri-sat,sun-mon"),
        ("0 9 * * sat-sun", "day of week: sat-sun runs backwards, write sat,sun"),
        ("0 9 * * 7-3", "day of week: 7-3 runs backwards, write 0-3"),
        ("0 9 * * 5-1#2", "day of week: 5-1 runs backwards"),
        ("0 0 9 * * *", "five fields are needed"),
        ("0 0 9 * * * 2026", "five fields are needed"),
        ("0 9 * *", "five fields are needed"),
        ("", "five fields are needed"),
        ("   ", "five fields are needed"),
        ("R * * * *", "minute: 'R' can't be read: R would be another time"),
        ("R(0-9)/2 * * * *", "write H"),
        ("0 9 ? * *", "day of month: '?' can't be read: ? is not part of cron, write *"),
        ("0 9 * * ?", "day of week: '?'"),
        ("0 9 15W * *", "day of month: '15W' can't be read: the nearest weekday"),
        ("0 9 W15 * *", "nearest weekday"),
        ("0 9 LW * *", "nearest weekday"),
        ("0 9 L-3 * *", "L alone is the last day"),
        ("0 9 * * 5L", "write L5"),
        ("0 9 * * friL", "write L5"),
        ("0 9 * * L", "write L5"),
        ("0 9 * * L8", "day of week"),
        ("0 9 * L *", "month: 'l' is not a number from 1 to 12 or a name from jan to dec"),
        ("0 9 * * 5,5#2", "day of week: plain weekdays and counted ones"),
        ("0 9 * * 1,L5", "day of week: plain weekdays and counted ones"),
        ("0 9 * * 5#0", "from 1 to 5"),
        ("0 9 * * 5#6", "from 1 to 5"),
        ("0 9 5#2 * *", "day of month: # counts weekdays"),
        ("0 9 * * 1-5/2#2", "day of week: '1-5/2#2' can't be read"),
        ("@reboot", "@reboot names no time"),
        ("@fortnightly", "none of @yearly"),
        ("@daily 5", "none of @yearly"),
        ("*/0 * * * *", "minute: a step of 0"),
        ("0 1-5/0 * * *", "hour: a step of 0"),
        ("0 H/0 * * *", "hour: a step of 0"),
        ("H(9-3) * * * *", "minute: 'H(9-3)' needs a smaller number first"),
        ("H(0-60) * * * *", "minute: '60' is out of range"),
        ("H,5 * * * *", "minute: 'H' can't be read: H stands alone"),
        ("5~10 * * * *", "random ranges"),
        ("60 * * * *", "minute: '60' is out of range, write 0 to 59"),
        ("0 24 * * *", "hour: '24' is out of range, write 0 to 23"),
        ("0 9 0 * *", "day of month: '0' is out of range, write 1 to 31"),
        ("0 9 32 * *", "day of month: '32' is out of range"),
        ("0 9 * 13 *", "month: '13' is out of range"),
        ("0 9 * 0 *", "month: '0' is out of range"),
        ("0 9 * * 8", "day of week: '8' is out of range"),
        (
            "0 9 * * monday",
            "day of week: 'monday' is not a number from 0 to 7 or a name from sun to sat; did you mean mon?",
        ),
        ("0 9 * * mno", "day of week: 'mno' is not a number from 0 to 7 or a name from sun to sat; did you mean mon?"),
        ("0 9 * * jan", "day of week: 'jan' is not"),
        ("mon * * * *", "minute: 'mon' is not a number from 0 to 59"),
        ("1,,2 * * * *", "minute: the list has an empty place"),
        (", * * * *", "minute: the list has an empty place"),
        ("-5 * * * *", "minute: '-5' can't be read"),
        ("*-5 * * * *", "minute: '*-5' can't be read"),
        ("*/-5 * * * *", "minute: '*/-5' can't be read"),
        ("1.5 * * * *", "minute: '1.5' can't be read"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 31 feb-feb *", "never fires"),
        ("0 0 */30 2 5#2", "never fires"),
        ("0 0 */31 2 1#2", "never fires"),
        ("0 9 \u0665 * *", "U+0665"),
        ("0\u00a09 * * *", "U+00A0"),
        ("0\x009 * * *", "U+0000"),
        ("\ud800 9 * * *", "U+D800"),
        pytest.param("0 9 * * *" + " " * 1000, "longer than 1000 characters", id="blanks"),
        pytest.param("0," * 100_000, "longer than 1000 characters", id="long"),
        pytest.param("9" * 5000 + " * * * *", "longer than 1000 characters", id="digits"),
        pytest.param("9" * 980 + " * * * *", "minute: '999", id="fewer-digits"),
    ],
)
def test_a_fault_names_the_field_and_the_remedy(text: str, words: str) -> None:
    """Every trap is a ScheduleError in plain words."""
    assert words in fault(text)


def test_a_huge_step_is_only_the_start() -> None:
    """As in Debian's cron, a step beyond the field leaves its first value."""
    assert cron(f"*/{'9' * 900} 9 * * *") == cron("*/60 9 * * *")


@pytest.mark.parametrize("wrong", [None, 5, 5.0, ["0 9 * * *"], b"0 9 * * *", object()])
def test_a_wrong_type_is_a_schedule_error(wrong: Any) -> None:
    """None, numbers, lists and bytes passed by mistake."""
    mistakes: list[Callable[[], object]] = [
        lambda: parse_cron(wrong, "UTC", "x"),
        lambda: parse_cron("0 9 * * *", wrong, "x"),
        lambda: parse_cron("0 9 * * *", "UTC", wrong),
        lambda: parse_at([wrong], "UTC"),
        lambda: decode(wrong),
        lambda: require_zone(wrong),
        lambda: machine_zone({"TZ": wrong}, "/nowhere"),
        lambda: machine_zone(wrong, "/nowhere"),
        lambda: machine_zone({}, wrong),
    ]
    for mistake in mistakes:
        with pytest.raises(ScheduleError):
            mistake()


def test_h_is_stable_spread_by_name_and_in_range() -> None:
    """`H` depends on the reminder's name alone; in day of month it is a day that every month has."""
    names = [f"reminder-{number}" for number in range(200)]
    found = {name: encode(cron("H H H H H", name=name)) for name in names}
    assert found == {name: encode(cron("H H H H H", name=name)) for name in names}
    assert len(set(found.values())) > 150
    for name in names:
        assert len(list(fire_times(cron("H H H * *", name=name), NEW_YEAR, NEW_YEAR + 365 * DAY))) == 12
        minutes = [at // 60 % 60 for at in fire_times(cron("H(10-19) 9 * * *", name=name), NEW_YEAR, NEW_YEAR + DAY)]
        assert len(minutes) == 1
        assert 10 <= minutes[0] <= 19
        quarters = [at // 60 % 60 for at in fire_times(cron("H/15 9 * * *", name=name), NEW_YEAR, NEW_YEAR + DAY)]
        assert [later - earlier for earlier, later in itertools.pairwise(quarters)] == [15, 15, 15]


def test_h_is_croniters_hash() -> None:
    """The value is the one that croniter takes from the name by CRC-32, so it won't move with a release of ours."""
    assert encode(cron("H H * * *", name="nightly")) == encode(cron("6 21 * * *"))


def test_aliases_are_never_hashed() -> None:
    """`@daily` is 00:00 for whatever name, though croniter would hash it."""
    assert {encode(cron("@daily", name=name)) for name in ("a", "b", "c", "")} == {encode(cron("0 0 * * *"))}


ALPHABET = st.text("0123456789*/-,#@?~%()LlWwHhRr \t\x00monfrijandaily\u0665\u00a0\ud800", max_size=40)


@settings(max_examples=up_to(1500), deadline=None)
@given(
    text=st.one_of(
        ALPHABET, st.text(), st.lists(ALPHABET.map(lambda s: s.replace(" ", "")), min_size=5, max_size=5).map(" ".join)
    )
)
def test_arbitrary_text_is_a_schedule_or_a_schedule_error(text: str) -> None:
    """Whatever is written, it is read and fires, or it is a ScheduleError."""
    readers: list[Callable[[], Schedule]] = [
        lambda: cron(text),
        lambda: cron("H 9 * * *", name=text),
        lambda: cron("0 9 * * *", text),
        lambda: parse_at([text], "Europe/Berlin"),
        lambda: decode(text),
        lambda: parse_every(len(text)),
    ]
    for read in readers:
        try:
            schedule = read()
        except ScheduleError as error:
            assert str(error)
        else:
            assert decode(encode(schedule)) == schedule
            assert next_fire_time(schedule, -1) is not None
            assert describe(schedule)


ELEMENT = st.from_regex(
    r"\A([*0-9HLlr]|[0-9]{1,2}|mon|fri|jan)(-([0-9]{1,2}|sun|dec|L))?(/[0-9]{1,2})?(#[0-9])?[LW]?\Z"
)


@settings(max_examples=up_to(600), deadline=None)
@given(fields=st.tuples(*[st.lists(ELEMENT, min_size=1, max_size=2).map(",".join)] * 5))
def test_near_misses_are_a_schedule_or_a_schedule_error(fields: tuple[str, ...]) -> None:
    """The same for texts that nearly are crons."""
    try:
        schedule = cron(" ".join(fields))
    except ScheduleError as error:
        assert str(error).startswith("cron")
    else:
        assert decode(encode(schedule)) == schedule
        assert next_fire_time(schedule, NEW_YEAR) is not None


# at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01 08:30", "2026-12-01T07:30Z"),
        ("2026-12-01T08:30", "2026-12-01T07:30Z"),
        (" 2026-12-01 08:30:00 ", "2026-12-01T07:30Z"),
        ("2026-07-01 08:30", "2026-07-01T06:30Z"),
        ("2026-12-01T08:30+05:45", "2026-12-01T02:45Z"),
        ("2026-12-01 08:30:00 -03:30", "2026-12-01T12:00Z"),
        ("2026-12-01T08:30Z", "2026-12-01T08:30Z"),
        ("2026-03-29 02:00", "2026-03-29T01:00Z"),
        ("2026-03-29 02:30", "2026-03-29T01:00Z"),
        ("2026-03-29 03:00", "2026-03-29T01:00Z"),
        ("2026-10-25 02:30", "2026-10-25T00:30Z"),
        ("2026-10-25 03:00", "2026-10-25T02:00Z"),
        ("2150-07-01 08:30", "2150-07-01T06:30Z"),
    ],
)
def test_at(text: str, expected: str) -> None:
    """Local, with an offset, in a gap (the jump) and in a fold (the first pass)."""
    schedule = parse_at([text], "Europe/Berlin")
    assert list(fire_times(schedule, 0, END_OF_TIME)) == [instant(expected)]
    assert schedule.kind == "at"
    assert schedule.zone == "Europe/Berlin"


def test_at_takes_a_list_and_drops_duplicates() -> None:
    """Sorted, unique by instant: both times that the clock skips stand for the same jump."""
    values = ["2026-12-01 08:30", "2026-03-29 02:30", "2026-12-01T07:30Z", "2026-03-29 02:10"]
    schedule = parse_at(values, "Europe/Berlin")
    both = [instant("2026-03-29T01:00Z"), instant("2026-12-01T07:30Z")]
    assert list(fire_times(schedule, 0, END_OF_TIME)) == both
    assert next_fire_time(schedule, both[0]) == both[1]
    assert next_fire_time(schedule, both[1]) is None
    assert parse_at("2026-12-01 08:30", "Europe/Berlin") == parse_at(("2026-12-01T08:30",), "Europe/Berlin")


@pytest.mark.parametrize(
    ("zone", "text"),
    [("Pacific/Apia", "2011-12-30 12:00"), ("Antarctica/Casey", "2009-10-18 03:30")],
)
def test_at_in_a_large_jump_is_refused(zone: str, text: str) -> None:
    """A jump of 3 h and more is a new time: what it skips does not exist."""
    with pytest.raises(ScheduleError, match=f"does not exist in {zone}"):
        parse_at([text], zone)


@settings(max_examples=up_to(300), deadline=None)
@given(place=st.sampled_from(CHANGES), minutes=st.integers(-30 * 60, 30 * 60))
def test_at_agrees_with_zoneinfo(place: tuple[str, str], minutes: int) -> None:
    """A local time that exists is the instant that zoneinfo gives for its first pass; others are refused or the jump."""
    zone = ZoneInfo(place[0])
    near = datetime.fromtimestamp(instant(place[1]), zone).replace(tzinfo=None) + timedelta(minutes=minutes)
    found = int(near.replace(tzinfo=zone).timestamp())
    exists = datetime.fromtimestamp(found, zone).replace(tzinfo=None) == near
    before = offset_at(zone, instant(place[1]) - 1)
    jump = offset_at(zone, instant(place[1])) - before
    if not exists and jump >= 3 * 3600:
        with pytest.raises(ScheduleError, match="does not exist"):
            parse_at([near.isoformat()], place[0])
    else:
        assert next_fire_time(parse_at([near.isoformat()], place[0]), 0) == (found if exists else instant(place[1]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["2026-12-01"], "is a date without a time"),
        (["2026-12-01 08:30:15"], "whole minutes"),
        (["2026-02-30 08:30"], "does not exist"),
        (["2026-12-01 24:00"], "does not exist"),
        (["2026-12-01 08:30+24:00"], "does not exist"),
        (["01.12.2026 08:30"], "write it as 2026-12-01 08:30"),
        (["tomorrow"], "write it as 2026-12-01 08:30"),
        (["2026-12-01 08:30" + " " * 100], "write it as 2026-12-01 08:30"),
        (["2026-12-01 08:30\x00"], "write it as 2026-12-01 08:30"),
        (["2026-12-01 08:30\n"], "write it as 2026-12-01 08:30"),
        (["\u0662026-12-01 08:30"], "write it as 2026-12-01 08:30"),
        pytest.param(["9" * 5000], "write it as 2026-12-01 08:30", id="digits"),
        (["1969-12-31 08:30"], "out of range"),
        (["9999-12-31 23:59"], "out of range"),
        (["2026-12-01 08:30", "x"], "'x'"),
        ([date(2026, 12, 1)], "in quotes"),
        ([], "empty"),
        (None, "not nothing"),
        (5, "type int"),
        (["2026-12-01 08:30"] * 10_001, "at most 10000"),
    ],
)
def test_at_refuses(values: Any, words: str) -> None:
    """Every fault names the value, and what would be right."""
    with pytest.raises(ScheduleError) as caught:
        parse_at(values, "Europe/Berlin")
    assert str(caught.value).startswith("at: ")
    assert words in str(caught.value)


# Encoding

SCHEDULES = [
    *[cron(case["cron"], case["tz"]) for case in CASES],
    cron("*/7 9-17 L,15 3,4 fri#2,L5", "Asia/Tehran"),
    parse_every(5400),
    parse_at(["2026-12-01 08:30", "2027-01-01 00:00"], "Europe/Berlin"),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=encode)
def test_decode_gives_an_equal_schedule(schedule: Schedule) -> None:
    """Equal, with the same hash, kind, zone, phrase and fire times; also through pickle and copy."""
    for twin in (decode(encode(schedule)), pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):  # noqa: S301
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert (twin.kind, twin.zone, describe(twin)) == (schedule.kind, schedule.zone, describe(schedule))
        window = (NEW_YEAR, NEW_YEAR + 100 * DAY)
        assert list(fire_times(twin, *window)) == list(fire_times(schedule, *window))


def test_the_encoded_form_is_stable() -> None:
    """Stores hold these lines: a release that writes others would reschedule every reminder."""
    assert encode(cron("0 9 15 * 5#2", "Europe/Berlin")) == "cron fixed either 1 200 8000 1ffe 80000000 Europe/Berlin"
    assert encode(cron("* * * * *")) == "cron follows both fffffffffffffff ffffff fffffffe 1ffe 1f7df7df7df UTC"
    assert encode(parse_every(1800)) == "every 1800"
    assert encode(parse_at(["2026-12-01 08:30"], "Europe/Berlin")) == "at 2026-12-01T08:30 Europe/Berlin"
    assert encode(parse_at(["2026-12-01T08:30+01:00"], "Europe/Berlin")) == "at 2026-12-01T07:30Z Europe/Berlin"


def test_what_earlier_versions_stored_is_decoded() -> None:
    """They wrote the instants of an `at`, not what the user had written."""
    old = decode("at 1796110200,1796113800 Europe/Berlin")
    assert encode(old) == "at 1796110200,1796113800 Europe/Berlin"
    assert times(old, "2026-01-01T00:00Z", "2027-01-01T00:00Z") == ["2026-12-01T07:30:00Z", "2026-12-01T08:30:00Z"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cron",
        "cron fixed both 1 200 fffffffe 1ffe 1f7df7df7df",
        "cron fixed both 1 200 fffffffe 1ffe 1f7df7df7df UTC ",
        "cron fixed maybe 1 200 fffffffe 1ffe 1f7df7df7df UTC",
        "cron fixed both 01 200 fffffffe 1ffe 1f7df7df7df UTC",
        "cron fixed both 1 200 FFFFFFFE 1ffe 1f7df7df7df UTC",
        "cron fixed both 0 200 fffffffe 1ffe 1f7df7df7df UTC",
        "cron fixed both 1 0 fffffffe 1ffe 1f7df7df7df UTC",
        "cron fixed both 1 2000000 fffffffe 1ffe 1f7df7df7df UTC",
        "cron fixed both 1 200 fffffffe 1fff 1f7df7df7df UTC",
        "cron fixed both 1 200 fffffffe 1ffe 0 UTC",
        "cron fixed both 1 200 -2 1ffe 1f7df7df7df UTC",
        "cron fixed both 1 200 80000000 4 1f7df7df7df UTC",
        "cron fixed both 1 200 fffffffe 1ffe 1f7df7df7df Mars/Olympus",
        "every",
        "every 0",
        "every 61",
        "every 1_800",
        "every +1800",
        pytest.param("every " + "9" * 5000, id="digits"),
        "at 5,5 UTC",
        "at 7,5 UTC",
        "at  UTC",
        "at 99999999999999999 UTC",
        "at 1796110200",
        pytest.param("x" * 1_000_000, id="long"),
        "\x00",
    ],
)
def test_decode_refuses_what_encode_does_not_write(text: str) -> None:
    """Only the one true form is taken, and never one that would search for ever."""
    with pytest.raises(ScheduleError):
        decode(text)


@settings(max_examples=up_to(800), deadline=None)
@given(
    schedule=st.sampled_from(SCHEDULES),
    place=st.integers(0, 60),
    character=st.sampled_from("0123456789abcdefF -_,x+\x00"),
    keep=st.booleans(),
)
def test_damaged_encodings(schedule: Schedule, place: int, character: str, keep: bool) -> None:
    """One character added or replaced: another schedule that fires, or a ScheduleError."""
    text = encode(schedule)
    damaged = text[:place] + character + text[place + (not keep) :]
    try:
        found = decode(damaged)
    except ScheduleError as error:
        assert str(error)
    else:
        assert encode(found) == damaged
        assert next_fire_time(found, -(10**9)) is not None


def test_a_schedule_is_immutable() -> None:
    """No attribute can be set or deleted, and none added."""
    schedule = cron("0 9 * * *")
    for name in ("kind", "zone", "other"):
        with pytest.raises(AttributeError):
            setattr(schedule, name, "x")
    with pytest.raises(AttributeError):
        del schedule.kind
    assert not hasattr(schedule, "__dict__")
    assert repr(schedule) == "decode('cron fixed both 1 200 fffffffe 1ffe 1f7df7df7df UTC')"


def test_schedules_of_other_zones_and_kinds_differ() -> None:
    """The zone is part of what is compared; a schedule is no text."""
    assert cron("0 9 * * *", "Europe/Berlin") != cron("0 9 * * *", "Europe/Paris")
    assert len({cron("0 * * * *"), parse_every(3600), cron("@hourly")}) == 2
    assert cron("0 9 * * *") != encode(cron("0 9 * * *"))


def run_python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    return ran.stdout


def test_a_tick_decodes_and_walks_without_croniter() -> None:
    """croniter costs 100 ms: only reading a cron text may load it."""
    code = f"""
import sys
from bub_cron.schedule import decode, describe, fire_times, next_fire_time
schedule = decode({encode(cron("0 9 * * 1-5", "Europe/Berlin"))!r})
print(len(list(fire_times(schedule, {NEW_YEAR}, {NEW_YEAR + 7 * DAY}))), next_fire_time(schedule, 0), describe(schedule))
print([name for name in sys.modules if name.startswith(("croniter", "dateutil"))])
"""
    assert run_python(code).splitlines() == ["5 28800 at 09:00, Monday to Friday, Europe/Berlin", "[]"]


def test_importing_the_package_loads_three_modules_of_it() -> None:
    """An idle tick pays for every module it loads."""
    code = """
import sys
before = set(sys.modules)
import bub_cron.schedule
print(*sorted(set(sys.modules) - before - {"__future__"}))
"""
    ours = ["bub_cron", "bub_cron.errors", "bub_cron.schedule", "bub_cron.schedule.kinds", "bub_cron.schedule.zones"]
    assert run_python(code).split() == ours


def test_a_walk_loads_nothing_heavy() -> None:
    """Nor does decoding and walking load more of the package, or what takes long to import."""
    code = f"""
import sys
from bub_cron.schedule import decode, fire_times, next_fire_time
for line in {[encode(schedule) for schedule in SCHEDULES[-3:]]!r}:
    next_fire_time(decode(line), {NEW_YEAR})
heavy = ("croniter", "dateutil", "re", "dataclasses", "typing", "json")
print(*sorted(name for name in sys.modules if name.startswith("bub_cron.schedule.") or name in heavy))
"""
    assert run_python(code).split() == [
        "bub_cron.schedule.kinds", "bub_cron.schedule.tzif", "bub_cron.schedule.zones",
    ]  # fmt: skip


def test_every_public_name_is_there() -> None:
    """What is loaded late can be had like the rest, and another name is the usual error."""
    assert all(getattr(bub_cron.schedule, name) is not None for name in bub_cron.schedule.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(bub_cron.schedule, "no_such_name")  # noqa: B009
