"""A cron's text -> the schedule.

Invariants: texts that mean the same become the same schedule, and none that never fires gets through.
"""

import re

from bub_cron.errors import ScheduleError
from bub_cron.schedule.fields import expand
from bub_cron.schedule.kinds import (
    ALL_DAYS,
    ALL_WEEKDAYS,
    EVERY_ONE,
    LAST_DAY,
    LAST_ONE,
    Cron,
    members,
    month_lengths,
)
from bub_cron.schedule.zones import require_zone

_MAX_TEXT = 1_000  # characters
_ALIASES = {"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0"}
_ALIASES |= {"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *"}
# What others take in a cron's text and a key of its own takes here.
_EVERY = re.compile(r"@every +([0-9hms]+)", re.IGNORECASE)
_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+) +(.+)", re.IGNORECASE)
_CALL = re.compile(r"([a-z_]+) *\((.*)\)", re.IGNORECASE)
_YEAR = re.compile(r"[12][0-9]{3}([-,/].*)?")


def parse_cron(text: str, zone: str, name: str) -> Cron:
    """Read a cron of five fields, or `@daily` and its kin. `name` is the reminder's: `H` takes its values from it.

    Raises ScheduleError, which names the field, if it can't be read or never fires, or if the zone is unknown.
    """
    zone = require_zone(zone)
    if not isinstance(name, str):
        raise ScheduleError(f"a reminder's name is a text, not a value of type {type(name).__name__}")
    fields = _split(text)
    minutes, hours, days, months, weekdays = expand(fields, name)
    minute, hour, day, _, weekday = [field.startswith("*") for field in fields]
    days = _canonical_days(days, months)
    weekdays = sum([_canonical_ones(weekdays >> 6 * number & 63) << 6 * number for number in range(7)])
    either = not (day or weekday)
    if either and not days:
        either, days = False, ALL_DAYS  # no month has such a day: the weekday alone decides
    elif either and (days == ALL_DAYS or weekdays == ALL_WEEKDAYS):
        either, days, weekdays = False, ALL_DAYS, ALL_WEEKDAYS
    cron = Cron(minute or hour, either, (minutes, hours, days, months, weekdays), zone)
    months = sum([1 << month for month in members(months) if cron.comes_in(month)])
    if not months:
        raise ScheduleError("cron: it never fires: no month that it names has such a day; choose a day that exists")
    return Cron(minute or hour, either, (minutes, hours, days, months, weekdays), zone)


def _split(text: str) -> list[str]:
    """Cut a cron text into its five fields, in lower case."""
    if not isinstance(text, str):
        raise ScheduleError(f"cron: a text of five fields is needed, not a value of type {type(text).__name__}")
    if len(text) > _MAX_TEXT:
        raise ScheduleError(f"cron: the text is longer than {_MAX_TEXT} characters")
    for character in text:
        if not " " <= character <= "~" and character not in "\t\r\n":
            raise ScheduleError(f"cron: the character {character!r} (U+{ord(character):04X}) can't be part of it")
    _refuse_what_has_a_key(text.strip())
    fields = text.lower().split()
    if fields and fields[0].startswith("@"):
        alias = " ".join(fields)
        if alias == "@reboot":
            raise ScheduleError("cron: @reboot names no time; write when to fire, as in 0 9 * * *")
        if alias not in _ALIASES:
            raise ScheduleError(f"cron: {alias[:40]!r} is none of {', '.join(_ALIASES)}")
        fields = _ALIASES[alias].split()
    if len(fields) != 5:
        five = _five_of(fields)
        raise ScheduleError(
            f"cron: five fields are needed (minute, hour, day of month, month, day of week; no seconds, no year), not"
            f" {len(fields)}{f'; write {five}' if five else ''}"
        )
    return fields


def _refuse_what_has_a_key(text: str) -> None:
    if every := _EVERY.fullmatch(text):
        raise ScheduleError(f"cron: @every is not taken in a cron; write every: {every[1]} instead of it")
    if zone := _ZONE.fullmatch(text):
        raise ScheduleError(
            f'cron: the zone has a key of its own; write timezone: {zone[1][:40]} and cron: "{zone[2][:60]}"'
        )
    if (call := _CALL.fullmatch(text)) and call[1].lower() not in {"h", "r"}:
        inner = call[2].lower().split()
        five = " ".join(inner) if len(inner) == 5 else _five_of(inner)
        rate = re.fullmatch(r"([0-9]+) +(minute|hour|day)s?", call[2].strip())
        right = f"every: {rate[1]}{rate[2][0]}" if rate else f'cron: "{five}"' if five else "the five fields alone"
        raise ScheduleError(f"cron: {call[1]}(...) is another program's; write {right}")


def _five_of(fields: list[str]) -> str:
    """Return the five fields that six or seven of another program stand for; "" if that can't be told.

    Quartz and Spring begin with seconds; Quartz may end with a year, AWS does. Where one of them writes ?, 1 is Sunday.
    """
    if len(fields) not in {6, 7} or any(len(field) > 40 for field in fields):
        return ""
    asked = [number for number, field in enumerate(fields) if field == "?"]
    ends_in_year = len(fields) == 7 or bool(_YEAR.fullmatch(fields[-1])) or (asked in ([2], [4]) and fields[-1] == "*")
    begins_with_second = len(fields) == 7 or not ends_in_year
    if begins_with_second and fields[0] not in {"0", "00"}:
        return ""  # more than once a minute, or croniter's, which ends with the seconds
    five = fields[begins_with_second : len(fields) - ends_in_year]
    if len(five) != 5:
        return ""
    if asked:
        five = ["*" if field == "?" else field for field in five]
        five[4] = re.sub(r"(?<![#/0-9])[1-7](?![0-9])", lambda day: str(int(day[0]) - 1), five[4])
    try:
        expand(five, "")
    except ScheduleError:
        return ""
    return " ".join(five)


def _canonical_days(days: int, months: int) -> int:
    """Drop the days that none of the months has, and say "the last day" only where no number says it."""
    lasts = {last for month in members(months) for last in month_lengths(month)}
    longest = max(lasts)
    days &= (2 << longest) - 1
    if days & LAST_DAY:
        numbers = days & ~LAST_DAY | 1 << longest  # in a month of that length, this is the last day
        days = numbers if all(numbers >> last & 1 for last in lasts) else days & ~(1 << longest)
    return ALL_DAYS if days == (2 << longest) - 2 else days


def _canonical_ones(ones: int) -> int:
    """The last one of a weekday is the fifth or the fourth: with the four first ones and the last one, that's all."""
    if ones & LAST_ONE:
        ones &= ~0b10000
    return EVERY_ONE if ones == LAST_ONE | 0b1111 else ones
