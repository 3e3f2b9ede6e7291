"""Written dates and times -> instants.

Invariants: one value is one instant on a whole minute of its own clock, or a fault that names the value.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from bub_cron.errors import ScheduleError
from bub_cron.schedule.kinds import LIMIT, At, Schedule, first_showing, local_seconds
from bub_cron.schedule.zones import Zone, load_zone

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
    load_zone(zone)
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)):
        wrong = "nothing" if values is None else f"a value of type {type(values).__name__}"
        raise ScheduleError(f"at: a date-time or a list of them is needed, not {wrong}")
    if not values:
        raise ScheduleError("at: the list is empty; write at least one date and time, as in 2026-12-01 08:30")
    if len(values) > _MAX_VALUES:
        raise ScheduleError(f"at: at most {_MAX_VALUES} values are possible in one list")
    return At(tuple(sorted({_stored("at", value, zone) for value in values})), zone)


def parse_start(value: str, zone: str) -> str:
    """Read a `start`, a date and time local to `zone`, and return it as it is stored. Raises ScheduleError."""
    return _local("start", value, zone)


def parse_until(value: str, zone: str) -> str:
    """Read an `until`, a local date (that day included) or a date and time, and return it as it is stored.

    Raises ScheduleError.
    """
    return parse_day("until", value) if re.fullmatch(_DATE, value.strip(" ")) else _local("until", value, zone)


def parse_pause_until(value: str, zone: str) -> int:
    """Read a `pause_until`, a local date (until that day begins) or a date and time, and return its instant.

    Raises ScheduleError.
    """
    is_day = re.fullmatch(_DATE, value.strip(" "))
    stored = f"{parse_day('pause_until', value)}T00:00" if is_day else _local("pause_until", value, zone)
    return first_showing(load_zone(zone), local_seconds(stored))


def parse_day(key: str, value: str) -> str:
    """Read a date such as 2026-12-24. Raises ScheduleError, which begins with `key`."""
    text = value.strip(" ") if len(value) <= 64 else ""
    if not re.fullmatch(_DATE, text):
        raise ScheduleError(f"{key}: {value[:40]!r} is not a date; write it as 2026-12-24")
    try:
        day = datetime.fromisoformat(text)
    except ValueError as fault:
        raise ScheduleError(f"{key}: {text!r} does not exist: {fault}") from fault
    if not 1970 <= day.year <= 9998:
        raise ScheduleError(f"{key}: {text!r} is out of range; write a year from 1970 to 9998")
    return text


def _local(key: str, value: str, zone: str) -> str:
    stored = _stored(key, value, zone)
    if stored.endswith("Z"):
        raise ScheduleError(
            f"{key}: {value[:40]!r} has an offset; write it as the clock in {zone} shows it, without one"
        )
    return stored


def _stored(key: str, value: str, zone: str) -> str:
    """Return a date-time as `2026-12-01T08:30`, in UTC and with a Z if it has an offset of its own."""
    if not isinstance(value, str):
        raise ScheduleError(f"{key}: a date and time in quotes is needed, as in '2026-12-01 08:30'")
    shown = repr(value[:40])
    text = value.strip(" ") if len(value) <= 64 else ""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ScheduleError(f"{key}: {shown} {_why_not(text)}")
    *parts, utc, hours, minutes = match.groups()
    offset = "Z" if utc else f"{hours}:{minutes}" if hours else None
    year, month, day, hour, minute, second = [int(part or 0) for part in parts]
    try:
        written = datetime.fromisoformat(f"1970-01-01T00:00{offset or 'Z'}").tzinfo
        at = datetime(year, month, day, hour, minute, second, tzinfo=written)
    except ValueError as fault:
        raise ScheduleError(f"{key}: {shown} does not exist: {fault}") from fault
    if second:
        raise ScheduleError(f"{key}: {shown} can't be met: reminders fire on whole minutes, leave the seconds out")
    if not 1970 <= year <= 9998:
        raise ScheduleError(f"{key}: {shown} is out of range; write a year from 1970 to 9998")
    if offset:
        return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M}Z"
    stored = f"{at:%Y-%m-%dT%H:%M}"
    if not _exists(load_zone(zone), local_seconds(stored)):
        raise ScheduleError(f"{key}: {shown} does not exist in {zone}: the clock jumps over it; write another time")
    return stored


def _why_not(text: str) -> str:
    if re.fullmatch(_DATE, text):
        return f"is a date without a time; add one, as in {text} 08:30"
    if time := _TIME.fullmatch(text):
        cron = f'"{int(time[2])} {int(time[1])} * * *"'
        return f"is a time without a date; for each day write cron: {cron}, for one day 2026-12-01 {text[:5]}"
    return "is not a date and time; write it as 2026-12-01 08:30"


def _exists(zone: Zone, local: int) -> bool:
    """Whether the wall clock shows `local`, or jumps over it by less than 3 h."""
    instant = first_showing(zone, local)
    ((_, _, offset, before),) = zone.stretches(instant, instant)
    return instant + offset == local or offset - before < LIMIT
