"""What is legal in a cron, or in a zone's name, and rarely meant.

Invariants: a doubt says what the text means here, and what to write for what was probably meant.
"""

import re
from collections.abc import Iterator

from bub_cron.schedule.crons import parse_cron
from bub_cron.schedule.fields import FIELDS
from bub_cron.schedule.kinds import ALL_WEEKDAYS, Cron, Schedule, members, month_lengths

_STARTS_OVER = (("hour", "m"), ("day", "h"), ("month", "d"))  # of minute, hour and day of month: when, and the unit
_SHOWN = 4  # values that are listed before "..."
_MONTHS = "- January February March April May June July August September October November December".split()  # noqa: SIM905
_FIXED = {"EST": "America/New_York", "MST": "America/Denver"}


def cron_doubts(text: str, schedule: Schedule) -> Iterator[str]:
    """Yield sentences without a subject about a cron and its text."""
    fields = text.lower().split()
    if not isinstance(schedule, Cron) or len(fields) != 5:
        return
    for number, written in enumerate(fields):
        for element in written.split(","):
            yield from _step_doubts(number, element)
    yield from _short_months(schedule, fields[2], fields[3])


def _step_doubts(number: int, element: str) -> Iterator[str]:
    match = re.fullmatch(r"(\*|[0-9]+|[a-z]{3})/([0-9]+)", element)
    if match is None or match[1] == "h" or number >= 4:
        return
    field, step = FIELDS[number], int(match[2])
    size = field.high - field.low + 1
    if match[1] != "*":
        first = field.number(match[1])
        values = ", ".join(map(str, range(first, field.high + 1, step)[:_SHOWN]))
        more = ", ..." if len(range(first, field.high + 1, step)) > _SHOWN else ""
        yield f"has {element} as {field.label}, which means {first}-{field.high}/{step}: {values}{more}"
    elif number < len(_STARTS_OVER) and step > 1 and (number == 2 or size % step):
        whole, unit = _STARTS_OVER[number]
        start = " with start:" if unit == "d" else ""
        if step >= size:
            what = f"so it means {field.low} alone"
        else:
            what = f"so the last one and the next {field.low} are not {step} apart"
        yield f"has {element} as {field.label}: it starts over each {whole}, {what}; for an even distance write every: {step}{unit}{start}"


def _short_months(cron: Cron, written: str, months: str) -> Iterator[str]:
    """Tell of months without a fire time, for want of a day 29, 30 or 31."""
    if cron.weekdays != ALL_WEEKDAYS:
        return
    # A schedule has none of the months that never match.
    named = cron if "h" in months else parse_cron(f"0 0 1 {months} *", "UTC", "")
    short = [
        month for month in members(named.months) if not cron.days & (2 << month_lengths(month)[0]) - 2 | cron.days & 1
    ]
    if short:
        where = "except in leap years, " if short == [2] and cron.days & 1 << 29 else ""
        names = ", ".join(_MONTHS[month] for month in short)
        yield f"has {written} as day of month, so {where}it doesn't fire in {names}; the last day of a month is L"


def zone_doubt(name: str) -> str:
    """Say what a zone's name means where many think otherwise; "" for any other."""
    if name in _FIXED:
        return f"{name} has no summer time; for the clocks of a place write its zone, such as {_FIXED[name]}"
    if offset := re.fullmatch(r"Etc/GMT([+-])([1-9][0-9]?)", name):
        side = "behind" if offset[1] == "+" else "ahead of"
        return f"{name} is {offset[2]} hour{'s' * (offset[2] != '1')} {side} UTC: the signs of these names are inverted"
    return ""
