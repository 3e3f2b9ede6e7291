"""A cron's text -> the schedule.

Kept true here: texts that mean the same become the same schedule, and none that never fires gets through.
"""

from bub_cron.errors import ScheduleError
from bub_cron.schedule.fields import expand
from bub_cron.schedule.kinds import (
    ALL_DAYS,
    ALL_WEEKDAYS,
    EVERY_ONE,
    LAST_DAY,
    LAST_ONE,
    Cron,
    Schedule,
    members,
    month_lengths,
)
from bub_cron.schedule.zones import require_zone

_MAX_TEXT = 1_000  # characters
_ALIASES = {"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0"}
_ALIASES |= {"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *"}


def parse_cron(text: str, zone: str, name: str) -> Schedule:
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
    fields = text.lower().split()
    if fields and fields[0].startswith("@"):
        alias = " ".join(fields)
        if alias == "@reboot":
            raise ScheduleError("cron: @reboot names no time; write when to fire, as in 0 9 * * *")
        if alias not in _ALIASES:
            raise ScheduleError(f"cron: {alias[:40]!r} is none of {', '.join(_ALIASES)}")
        fields = _ALIASES[alias].split()
    if len(fields) != 5:
        raise ScheduleError(
            f"cron: five fields are needed (minute, hour, day of month, month, day of week; no seconds, no year), not"
            f" {len(fields)}"
        )
    return fields


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
