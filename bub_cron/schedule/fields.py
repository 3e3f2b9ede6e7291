"""The five fields of a cron -> sets, with a fault that names the field for whatever this cron doesn't take.

Invariants: croniter, which is imported nowhere else and only once a text has passed, sees nothing that it reads in a
way of its own. It costs 100 ms.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bub_cron.errors import ScheduleError
from bub_cron.schedule.kinds import ALL_DAYS, ALL_HOURS, ALL_MINUTES, ALL_MONTHS, EVERY_ONE, LAST_DAY, LAST_ONE, Sets


class Field(NamedTuple):
    """One of the five fields: its name in messages, its range as written, and the names of its values."""

    label: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def fault(self, message: str) -> ScheduleError:
        return ScheduleError(f"cron, {self.label}: {message}")

    def number(self, word: str) -> int:
        """Read a number or a name, or raise ScheduleError."""
        if word in self.names:
            return self.names.index(word) + self.low
        if not word.isdigit():
            names = f" or a name from {self.names[0]} to {self.names[-1]}" if self.names else ""
            from bub_cron.schedule.hints import nearest_name

            near = nearest_name(word, self.names)
            raise self.fault(f"{word[:40]!r} is not a number from {self.low} to {self.high}{names}{near}")
        if not self.low <= int(word) <= self.high:
            raise self.fault(f"{word[:40]!r} is out of range, write {self.low} to {self.high}")
        return int(word)


_DAY = Field("day of month", 1, 31)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAY = Field("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
FIELDS = (Field("minute", 0, 59), Field("hour", 0, 23), _DAY, Field("month", 1, 12, _MONTHS), _WEEKDAY)

_HASHED = re.compile(r"h(?:\(([0-9]+)-([0-9]+)\))?(?:/[0-9]+)?")
_WORD = "([0-9]+|[a-z]+)"
_ELEMENT = re.compile(rf"\*(?:/[0-9]+)?|{_WORD}(?:-{_WORD})?(?:/([0-9]+)|#([0-9]+))?")

# What croniter, or another cron, takes and this one doesn't: (in this field alone, pattern, why not and what instead).
_REFUSED = (
    (None, r".*\?.*", "? is not part of cron, write *"),
    (None, r"r([(/].*)?", "R would be another time at every reading; write H, which keeps to the reminder's name"),
    (None, r"h|h[(/].*", "H stands alone in its field, as H, H/15 or H(0-29)"),
    (None, r".*~.*", "random ranges are not supported; write H(0-29)"),
    (_DAY, r"[0-9]+w|w[0-9]+|lw|wl", "the nearest weekday (15W, LW) is not supported; name days or weekdays"),
    (_DAY, r"l-.*", "days before the last one (L-3) are not supported; L alone is the last day of the month"),
    (_WEEKDAY, r"l", "write L5 for the last Friday of the month, or 6 for Saturday"),
    (_WEEKDAY, r"([0-9]|[a-z]{3})l|l[a-z]{3}", "for the last Friday of the month write L5"),
)


def expand(fields: list[str], name: str) -> Sets:
    """Read five fields in lower case; `H` takes its values from `name`. Raises ScheduleError."""
    plain = " ".join([_plain_field(field, written) for field, written in zip(FIELDS, fields, strict=True)])
    from croniter import croniter

    try:
        expanded, counted = croniter.expand(plain, hash_id=name.encode("utf-8", "surrogatepass"))
    except (ValueError, TypeError, LookupError, AttributeError) as fault:
        raise ScheduleError(f"cron: {plain[:40]!r} can't be read") from fault
    minutes, hours, days, months, weekdays = expanded
    return (
        _bits(minutes, ALL_MINUTES),
        _bits(hours, ALL_HOURS),
        _bits(days, ALL_DAYS),
        _bits(months, ALL_MONTHS),
        _weekday_bits(weekdays, counted),
    )


def _bits(values: Iterable[int | str], everything: int) -> int:
    return everything if "*" in values else sum({1 << v if isinstance(v, int) else LAST_DAY for v in values})


def _weekday_bits(weekdays: Iterable[int | str], counted: Mapping[int, Iterable[int | str]]) -> int:
    if not counted:
        plain = _bits(weekdays, 0b1111111)
        return sum([EVERY_ONE << 6 * weekday for weekday in range(7) if plain >> weekday & 1])
    ones = {(int(weekday), one) for weekday, found in counted.items() for one in found}
    return sum([(1 << one - 1 if isinstance(one, int) else LAST_ONE) << 6 * weekday for weekday, one in ones])


def _plain_field(field: Field, written: str) -> str:
    """Check one field and return it in numbers only."""
    if re.search(r"/0+(?![0-9])", written):
        raise field.fault("a step of 0 goes nowhere, write 1 or more after the /")
    if hashed := _HASHED.fullmatch(written):
        low, high = hashed.groups()
        if low and field.number(low) >= field.number(high):
            raise field.fault(
                f"{written.upper()[:40]!r} needs a smaller number first, as in H({field.low}-{field.high})"
            )
        # As in Jenkins: a day that every month has, or "once a month" would skip some.
        return "h(1-28)" if field is _DAY and written == "h" else written
    elements = written.split(",")
    if field is _WEEKDAY and len({bool(re.search(r"#|^l", element)) for element in elements}) > 1:
        # croniter drops the plain Friday of `5,5#2` in silence.
        raise field.fault("plain weekdays and counted ones (5#2, L5) can't be mixed; use one kind, or two reminders")
    return ",".join([_plain_element(field, element) for element in elements])


def _plain_element(field: Field, element: str) -> str:
    """Check one element of a field's list and return it in numbers."""
    if not element:
        raise field.fault("the list has an empty place, take the needless comma out")
    for only, pattern, reason in _REFUSED:
        if only in (None, field) and re.fullmatch(pattern, element):
            raise field.fault(f"{element.upper()[:40]!r} can't be read: {reason}")
    if (field is _DAY and element == "l") or (field is _WEEKDAY and re.fullmatch("l[0-7]", element)):
        return element
    match = _ELEMENT.fullmatch(element)
    if match is None:
        raise field.fault(f"{element[:40]!r} can't be read; write *, 5, 1-5, 1,3,5 or */2")
    return _plain_range(field, *match.groups()) if match[1] else element


def _plain_range(field: Field, low: str, high: str | None, step: str | None, nth: str | None) -> str:
    first = field.number(low)
    last = first if high is None else _DAY.high if field is _DAY and high == "l" else field.number(high)
    if step and high is None and field is _WEEKDAY:
        # Debian's cron refuses a step without a range in each field. Here nearly everybody means "every other Tuesday".
        values = ",".join([field.names[weekday % 7] for weekday in range(first, field.high, int(step))])
        raise field.fault(
            f"{low}/{step} is not every {_nth(int(step))} {field.names[first % 7]}; for every other week write every: 2w with"
            f" start:, and for more days of a week list them, as in {values if ',' in values else 'mon,wed,fri'}"
        )
    if first > last:
        raise field.fault(f"{low}-{high} runs backwards, write {_forwards(field, low, first, last, step)}")
    if nth is not None:
        if field is not _WEEKDAY or not 1 <= int(nth) <= 5:
            raise field.fault("# counts weekdays of a month, from 1 to 5: 5#2 is the second Friday, as day of week")
        return ",".join([f"{weekday}#{nth}" for weekday in range(first, last + 1)])
    if high is not None and first == last:
        return str(first)  # croniter reads 9-9 as the whole field
    return f"{first}{'' if high is None else f'-{last}'}{f'/{step}' if step else ''}"


def _nth(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _forwards(field: Field, written: str, first: int, last: int, step: str | None) -> str:
    """Write a range that goes round the end of its field in a way that cron takes."""
    top = 6 if field is _WEEKDAY else field.high
    if first > top:
        return f"{field.low}-{last}"  # 7-3 is from Sunday to Wednesday
    if step:
        values = [*range(first, top + 1), *range(field.low, last + 1)][:: int(step)]
        return ",".join(map(str, sorted(values)))
    word = (lambda value: field.names[value - field.low]) if written in field.names else str
    halves = ((first, top), (field.low, last))
    return ",".join([word(begin) if begin == end else f"{word(begin)}-{word(end)}" for begin, end in halves])
