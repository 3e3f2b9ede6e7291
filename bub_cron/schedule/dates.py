"""Written dates and times -> instants.

Invariants: one value is one instant on a whole minute of its own clock, or a fault that names the value.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from bub_cron.errors import ScheduleError
from bub_cron.schedule.kinds import LIMIT, At, Schedule
from bub_cron.schedule.zones import DAY, Zone, load_zone

_MAX_VALUES = 10_000
_TWO = "([0-9]{2})"
_DATE = f"([0-9]{{4}})-{_TWO}-{_TWO}"
_DATE_TIME = re.compile(
    f"{_DATE}[T ]([0-9]{{1,2}}):{_TWO}(?::{_TWO}(?:[.]0+)?)? ?(?:(Z)|([+-][0-9]{{2}}):?([0-5][0-9]))?"
)
_TIME = re.compile(f"([0-9]{{1,2}}):{_TWO}(?::{_TWO})?")


def parse_at(values: Sequence[str], zone: str) -> Schedule:
    """Read one or more date-times, local to `zone` or with an offset of their own ("2026-12-01 08:30", "...T08:30Z").

    A local time that the clock skips stands for the instant of the jump if that is shorter than 3 h; one that the clock
    shows twice for the first of the two. Raises ScheduleError, which names the value.
    """
    found = load_zone(zone)
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)):
        wrong = "nothing" if values is None else f"a value of type {type(values).__name__}"
        raise ScheduleError(f"at: a date-time or a list of them is needed, not {wrong}")
    if not values:
        raise ScheduleError("at: the list is empty; write at least one date and time, as in 2026-12-01 08:30")
    if len(values) > _MAX_VALUES:
        raise ScheduleError(f"at: at most {_MAX_VALUES} values are possible in one list")
    return At(tuple(sorted({_instant(value, zone, found) for value in values})), zone)


def _instant(value: str, name: str, zone: Zone) -> int:
    if not isinstance(value, str):
        raise ScheduleError("at: a date and time in quotes is needed, as in '2026-12-01 08:30'")
    shown = repr(value[:40])
    text = value.strip(" ") if len(value) <= 64 else ""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        if re.fullmatch(_DATE, text):
            raise ScheduleError(f"at: {shown} is a date without a time; add one, as in {text} 08:30")
        if time := _TIME.fullmatch(text):
            raise ScheduleError(
                f"at: {shown} is a time without a date; for each day write cron:"
                f' "{int(time[2])} {int(time[1])} * * *", for one day as 2026-12-01 {text[:5]}'
            )
        raise ScheduleError(f"at: {shown} is not a date and time; write it as 2026-12-01 08:30")
    *parts, utc, hours, minutes = match.groups()
    offset = "Z" if utc else f"{hours}:{minutes}" if hours else None
    year, month, day, hour, minute, second = [int(part or 0) for part in parts]
    try:
        written = datetime.fromisoformat(f"1970-01-01T00:00{offset or 'Z'}").tzinfo
        at = datetime(year, month, day, hour, minute, second, tzinfo=written)
    except ValueError as fault:
        raise ScheduleError(f"at: {shown} does not exist: {fault}") from fault
    if second:
        raise ScheduleError(f"at: {shown} can't be met: reminders fire on whole minutes, leave the seconds out")
    if not 1970 <= year <= 9998:
        raise ScheduleError(f"at: {shown} is out of range; write a year from 1970 to 9998")
    instant = int(at.timestamp()) if offset else _first_showing(zone, int(at.timestamp()))
    if instant is None:
        raise ScheduleError(f"at: {shown} does not exist in {name}: the clock jumps over it; write another time")
    return instant


def _first_showing(zone: Zone, local: int) -> int | None:
    """The first instant at which the wall clock shows `local`, or that of a jump over it by less than 3 h, or None."""
    for start, stop, offset, before in zone.stretches(local - 2 * DAY, local + 2 * DAY):
        if start + before <= local < start + offset:
            return start if offset - before < LIMIT else None
        if start + offset <= local < stop + offset:
            return local - offset
    return None
