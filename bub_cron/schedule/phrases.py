"""A schedule -> one English phrase.

Invariants: the phrase says what the rules make of a schedule, so "or" where either kind of day suffices and "that
are" where both are needed.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import lru_cache

from bub_cron.schedule.kinds import (
    ALL_DAYS,
    ALL_MONTHS,
    ALL_WEEKDAYS,
    EVERY_ONE,
    LAST_DAY,
    At,
    Cron,
    Every,
    Schedule,
)
from bub_cron.schedule.kinds import members as _members
from bub_cron.schedule.limits import Limited
from bub_cron.schedule.rules import Days, EveryFrom, Rule
from bub_cron.schedule.zones import DAY, HOUR, MINUTE, load_zone

members = lru_cache(_members)  # a list of many reminders has few different fields
_MAX_TIMES = 6  # more times than that aren't listed one by one
_MONTHS = "- January February March April May June July August September October November December".split()  # noqa: SIM905
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "last")


def describe(schedule: Schedule) -> str:
    """Say in one English phrase when a schedule fires."""
    match schedule:
        case Every():
            return f"{_every_phrase(schedule.seconds)}, counted from the Unix epoch in UTC"
        case EveryFrom():
            return f"{_every_phrase(schedule.seconds)}, from {_shown(schedule.start)}, {schedule.zone}"
        case Days():
            return f"{_days_phrase(schedule)}, {schedule.zone}"
        case Rule():
            return f"by {schedule.text}, from {_shown(schedule.start)}, {schedule.zone}"
        case Limited():
            return ", ".join([describe(schedule.base), *_limit_phrases(schedule)])
        case At():
            return f"{_at_phrase(schedule)} {schedule.zone}"
        case Cron():
            minutes, hours, months = members(schedule.minutes), members(schedule.hours), members(schedule.months)
            parts = [_time_phrase(minutes, hours), _day_phrase(schedule)]
            if not parts[1] and len(minutes) * len(hours) <= _MAX_TIMES:
                parts[1] = "every day"
            if schedule.months != ALL_MONTHS:
                parts.append(f"in {_runs(months, _MONTHS.__getitem__)}")
            return ", ".join(filter(None, [*parts, schedule.zone]))
    raise TypeError(f"{schedule!r} is of no known kind")


def _every_phrase(seconds: int) -> str:
    units = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"))
    size, unit = next((size, unit) for size, unit in units if seconds % size == 0)
    count = seconds // size
    return f"every {unit if count == 1 else f'{count} {unit}s'}"


def _days_phrase(schedule: Days) -> str:
    day, time = schedule.start.split("T")
    if schedule.days % 7:
        return f"{_every_phrase(schedule.days * DAY)} at {time}, from {day}"
    weeks, weekday = schedule.days // 7, _WEEKDAYS[date.fromisoformat(day).weekday()]
    return f"every {weekday if weeks == 1 else f'{weeks} weeks on {weekday}'} at {time}, from {day}"


def _limit_phrases(schedule: Limited) -> Iterator[str]:
    if schedule.days is not None and schedule.days.only:
        yield f"only on {_join([calendar.name for calendar in schedule.days.only], 'or')}"
    if schedule.days is not None and schedule.days.excepted:
        yield f"except on {_join([calendar.name for calendar in schedule.days.excepted], 'or')}"
    if schedule.start is not None and not hasattr(schedule.base, "start"):
        yield f"from {_shown(schedule.start)}"
    if schedule.until is not None:
        yield f"until {_shown(schedule.until)}"
    if schedule.times is not None:
        yield f"{schedule.times} time{'s' * (schedule.times > 1)} in all"


def _shown(stored: str) -> str:
    return stored.replace("T", " ")


def _at_phrase(schedule: At) -> str:
    local = load_zone(schedule.zone).local
    times = [str(local(instant).replace(tzinfo=None)).removesuffix(":00") for instant in schedule.instants]
    if len(times) == 1:
        return f"once, at {times[0]}"
    if len(times) <= _MAX_TIMES:
        return f"{len(times)} times, at {_join(times)}"
    return f"{len(times)} times, first at {times[0]} and last at {times[-1]}"


def _time_phrase(minutes: list[int], hours: list[int]) -> str:
    if len(minutes) * len(hours) <= _MAX_TIMES:
        return f"at {_join([f'{hour:02}:{minute:02}' for hour in hours for minute in minutes])}"
    steps = _step_phrase(minutes)
    lead = steps or f"at minute{'s' * (len(minutes) > 1)} {_runs(minutes)}"
    if len(hours) == 24:
        return lead if steps else f"{lead} of every hour"
    if steps and hours[-1] - hours[0] == len(hours) - 1:
        return f"{steps} from {hours[0]:02}:00 to {hours[-1]:02}:{minutes[-1]:02}"
    return f"{lead} of the hour{'s' * (len(hours) > 1)} {_runs(hours)}"


def _step_phrase(minutes: list[int]) -> str:
    """Say "every 5 minutes" where that is true across the hour, else nothing."""
    step = 60 // len(minutes)
    if minutes != list(range(0, 60, step)) or len(minutes) * step != 60 or step == 60:
        return ""
    return "every minute" if step == 1 else f"every {step} minutes"


def _day_phrase(cron: Cron) -> str:
    if cron.weekdays == ALL_WEEKDAYS:
        return "" if cron.days == ALL_DAYS else f"on {_date_phrase(cron.days, 'and')}"
    plain = all(cron.weekdays >> 6 * weekday & 63 in (0, EVERY_ONE) for weekday in range(7))
    names = _weekday_phrase(cron.weekdays) if plain else _counted_phrase(cron.weekdays)
    if cron.days == ALL_DAYS:
        return names if plain and names.count(" ") == 2 and " to " in names else f"on {names}"
    if cron.either:
        return f"on {_date_phrase(cron.days, 'and')} or on {names}"
    dates = _date_phrase(cron.days, "or")
    return f"on {_weekday_phrase(cron.weekdays, 's')} that are {dates}" if plain else f"on {names} if that is {dates}"


def _date_phrase(days: int, conjunction: str) -> str:
    numbers = members(days & ~LAST_DAY)
    plural = "s" if len(numbers) > 1 and conjunction == "and" else ""
    words = [f"day{plural} {_runs(numbers, str, conjunction)} of the month"] if numbers else []
    return _join(words + ["the last day of the month"] * (days & LAST_DAY), conjunction)


def _monday_first(weekdays: int) -> list[int]:
    return [weekdays >> 6 * (day % 7) & 63 for day in range(1, 8)]


def _weekday_phrase(weekdays: int, ending: str = "") -> str:
    days = [day for day, ones in enumerate(_monday_first(weekdays)) if ones]
    return _runs(days, lambda day: _WEEKDAYS[day] + ending)


def _counted_phrase(weekdays: int) -> str:
    words = []
    for name, ones in zip(_WEEKDAYS, _monday_first(weekdays), strict=True):
        words += [f"every {name}"] if ones == EVERY_ONE else [f"the {_ORDINALS[one]} {name}" for one in members(ones)]
    return f"{_join(words)} of the month"


def _runs(values: list[int], word: Callable[[int], str] = str, conjunction: str = "and") -> str:
    """List values, three or more in a row as "first to last"."""
    words: list[str] = []
    while values:
        size = next((n for n, value in enumerate(values) if value != values[0] + n), len(values))
        run, values = values[:size], values[size:]
        words += [f"{word(run[0])} to {word(run[-1])}"] if size > 2 else map(word, run)
    return _join(words, conjunction)


def _join(words: list[str], conjunction: str = "and") -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}" if len(words) > 1 else words[0]
