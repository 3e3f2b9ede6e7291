"""The kinds of schedule: their fire times, and the line that a store holds of each.

`rules` has the kinds that count from a start, and `limits` what bounds any of them; they are loaded once one is decoded.

Invariants: a schedule never changes, and `decode` takes exactly the lines that `encode` writes. A line holds what was
written, local times and a zone's name, so that it means the same when the zone database changes. Wall-clock times obey the
rule of Debian's cron for changes of the clock and for day of month against day of week:

1. A cron *follows the clock* if its minute or its hour field starts with `*`; else it is *fixed*. So is what counts days.
2. Fixed, and the clock jumps forward by less than 3 h over one or more of its times: once, at the instant of the jump.
3. Fixed, and the clock goes back by at most 3 h: times in the repeated stretch fire the first time only.
4. Following the clock: whenever the wall clock shows a matching minute; twice if repeated, not at all if skipped.
5. Larger jumps: no correction.
6. Day of month and day of week must both match if either field starts with `*`; else either suffices.

croniter's walk is not used: it is wrong around changes of the clock.
"""

from __future__ import annotations

from bub_cron.errors import ScheduleError
from bub_cron.schedule.zones import DAY, FIRST, HOUR, LAST, MINUTE, REACH, load_zone, require_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bub_cron.schedule.zones import Zone

Sets = tuple[int, int, int, int, int]  # minutes, hours, days, months, weekdays, each as the bits of a number

LIMIT = 3 * HOUR  # a clock change that is larger is a new time, not a correction of the old one
_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01
_ABOVE = {"every": "rules", "days": "rules", "rrule": "rules", "limited": "limits"}  # modules that import this one
_MAX_ENCODED = 400_000  # characters: room for the longest list of instants

ALL_MINUTES = (1 << 60) - 1
ALL_HOURS = (1 << 24) - 1
LAST_DAY = 1  # bit 0 of a set of days; bits 1 to 31 are the days
ALL_DAYS = 0xFFFFFFFE
ALL_MONTHS = 0x1FFE  # bits 1 to 12
EVERY_ONE = 0b011111  # of a weekday's six bits: the first to the fifth one of the month; the sixth bit is the last one
LAST_ONE = 0b100000
ALL_WEEKDAYS = sum(EVERY_ONE << 6 * weekday for weekday in range(7))  # Sunday first
_MOST = (ALL_MINUTES, ALL_HOURS, ALL_DAYS | LAST_DAY, ALL_MONTHS, (1 << 42) - 1)
_WEEKLY = [sum([(ones >> nth & 1) << 7 * nth for nth in range(5)]) for ones in range(32)]  # to bits a week apart
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Schedule:
    """When a reminder fires. Immutable; equal to another one if both fire on the same, by their encoded forms.

    `kind` is "cron", "every", "at" or "rrule"; `zone` the IANA name of its zone ("UTC" for an "every" without a start).
    """

    __slots__ = ("encoded", "kind", "zone")

    encoded: str
    kind: str
    zone: str

    def __init__(self, encoded: str, zone: str, **parts: object) -> None:
        for name, value in {"encoded": encoded, "kind": encoded.split(" ", 1)[0], "zone": zone, **parts}.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object = None) -> None:
        raise AttributeError(f"a Schedule can't be changed ({name})")

    __delattr__ = __setattr__

    def __eq__(self, other: object) -> bool:
        return self.encoded == other.encoded if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __repr__(self) -> str:
        return f"decode({self.encoded!r})"

    def __reduce__(self) -> tuple[Callable[[str], Schedule], tuple[str]]:
        return decode, (self.encoded,)

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the fire times in (after, until], which is not empty and within FIRST and LAST."""
        raise NotImplementedError

    def count(self, after: int, until: int) -> int:
        """Count the fire times in (after, until], which is not empty and within FIRST and LAST.

        A kind that can fire more often than daily counts by arithmetic: decades of minutes are too many to walk through.
        """
        return sum(1 for _ in self.between(after, until))

    def shown(self, begin: int, end: int) -> Iterator[int]:
        """Yield what the wall clock should show in [begin, end) when it fires, as seconds since its own 1970-01-01 00:00.

        That is nothing for what counts elapsed time, or follows the clock: no change of clocks skips or repeats a time of it.
        """
        return iter(())


def count_fire_times(schedule: Schedule, after: int, until: int) -> int:
    """Count the fire times in (after, until]; for most kinds without walking through them."""
    after, until = max(after, FIRST), min(until, LAST)
    return schedule.count(after, until) if after < until else 0


def latest_fire_times(schedule: Schedule, after: int, until: int, most: int) -> list[int]:
    """Return the last fire times in (after, until], ascending, at most so many."""
    after, until = max(after, FIRST), min(until, LAST)
    span = HOUR
    begin = until
    while begin > after:
        begin = max(after, until - span)
        if begin == after or schedule.count(begin, until) >= most:
            break
        span *= 2
    return list(schedule.between(begin, until))[-most:] if begin < until else []


def fire_times(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    """Yield all fire times in (after, until], ascending and unique, as they are asked for.

    Beyond the years 1 to 9999 there are none.
    """
    # Comparisons, for min() and max() would be a fifth of what a reminder that isn't due costs.
    after = after if after > FIRST else FIRST
    until = until if until < LAST else LAST
    return schedule.between(after, until) if after < until else iter(())


def next_fire_time(schedule: Schedule, after: int) -> int | None:
    """Find the first fire time that is later than `after`; None if there is none any more."""
    return next(fire_times(schedule, after, LAST), None)


def encode(schedule: Schedule) -> str:
    """Write a schedule as one compact line. Two texts that mean the same have the same line."""
    return schedule.encoded


def decode(text: str) -> Schedule:
    """Make the schedule that `encode` wrote, without croniter. Raises ScheduleError for anything else."""
    if not isinstance(text, str):
        raise ScheduleError(f"an encoded schedule is a text, not a value of type {type(text).__name__}")
    try:
        schedule: Schedule | None = _decoded(text)
    except ValueError:
        schedule = None
    # int() takes more than encode() writes (blanks, underscores, capitals): only the one true form may pass.
    if schedule is None or schedule.encoded != text:
        raise ScheduleError(f"{text[:40]!r} is not an encoded schedule")
    return schedule


def _decoded(text: str) -> Schedule:
    """Make the schedule that an encoded text stands for. Raises ValueError if there is none."""
    if len(text) > _MAX_ENCODED or not text.isascii():
        raise ValueError("not of ours")
    kind, *words = text.split(" ")
    if kind == "every" and len(words) == 1:
        return parse_every(int(words[0]))
    if kind == "at":
        values, zone = words
        at = At(tuple(values.split(",")), require_zone(zone))
        numbers = [int(value) for value in at.values if value.isdigit()]
        if numbers != sorted(set(numbers)) or not FIRST < at.instants[0] <= at.instants[-1] <= LAST:
            raise ValueError("not ascending, or out of range")
        return at
    if kind == "cron":
        follows, either, minutes, hours, days, months, weekdays, zone = words
        sets = tuple(int(bits, 16) for bits in (minutes, hours, days, months, weekdays))
        if not all(0 < bits <= most and bits | most == most for bits, most in zip(sets, _MOST, strict=True)):
            raise ValueError("a set is empty or too large")
        cron = Cron(follows == "follows", either == "either", sets, require_zone(zone))  # type: ignore[arg-type]
        if not any(map(cron.comes_in, members(cron.months))):
            raise ValueError("it never fires")  # and a search for its next fire time would last for ages
        return cron
    if kind not in _ABOVE:
        raise ValueError("no such kind")
    from importlib import import_module

    schedule: Schedule = import_module(f"bub_cron.schedule.{_ABOVE[kind]}").decoded(kind, words)
    return schedule


def parse_every(seconds: int) -> Every:
    """Make a schedule that fires at the multiples of `seconds` since the Unix epoch, in UTC.

    Raises ScheduleError if that is not a number of whole minutes from one minute to 366 days.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise ScheduleError(f"every: a number of seconds is needed, not a value of type {type(seconds).__name__}")
    if seconds < MINUTE or seconds % MINUTE:
        raise ScheduleError("every: only whole minutes, and at least one, are possible: write 1m, 90m or 2h")
    if seconds > 366 * DAY:
        raise ScheduleError("every: more than 366 days is not possible; write a cron, or a list of dates with at")
    return Every(seconds)


class Every(Schedule):
    """The multiples of a period in seconds."""

    __slots__ = ("seconds",)

    seconds: int

    def __init__(self, seconds: int) -> None:
        super().__init__(f"every {seconds}", "UTC", seconds=seconds)

    def between(self, after: int, until: int) -> Iterator[int]:
        return iter(range((after // self.seconds + 1) * self.seconds, until + 1, self.seconds))

    def count(self, after: int, until: int) -> int:
        return until // self.seconds - after // self.seconds


class At(Schedule):
    """Instants, ascending, from date-times that are local to the zone, or end with Z (`2026-12-01T08:30`).

    What the first versions stored are numbers: seconds since the epoch.
    """

    __slots__ = ("instants", "values")

    instants: tuple[int, ...]
    values: tuple[str, ...]

    def __init__(self, values: tuple[str, ...], zone: str) -> None:
        instants = tuple(sorted({_instant(value, zone) for value in values}))
        super().__init__(f"at {','.join(values)} {zone}", zone, values=values, instants=instants)

    def between(self, after: int, until: int) -> Iterator[int]:
        return iter([instant for instant in self.instants if after < instant <= until])

    def shown(self, begin: int, end: int) -> Iterator[int]:
        local = [local_seconds(value) for value in self.values if not value.endswith("Z") and not value.isdigit()]
        return iter([time for time in sorted(local) if begin <= time < end])


def _instant(value: str, zone: str) -> int:
    if value.isdigit() and (value == "0" or value[0] != "0"):
        return int(value)
    if value.endswith("Z"):
        return local_seconds(value[:-1])
    return first_showing(load_zone(zone), local_seconds(value))


def local_seconds(text: str) -> int:
    """Read `2026-12-01T08:30` as what a wall clock shows: seconds since its own 1970-01-01 00:00. Raises ValueError."""
    from datetime import datetime

    shown = datetime.fromisoformat(text)
    if len(text) != 16 or text[10] != "T" or shown.tzinfo is not None:
        raise ValueError("not a date and time as they are stored")
    return (shown.toordinal() - _EPOCH) * DAY + shown.hour * HOUR + shown.minute * MINUTE


def first_showing(zone: Zone, local: int) -> int:
    """The first instant at which the wall clock shows `local`, or that of the jump over it."""
    for start, stop, offset, _ in zone.stretches(local - 2 * DAY, local + 2 * DAY):
        if local < stop + offset:
            return max(start, local - offset)
    raise ValueError("beyond the calendar")


def last_showing(zone: Zone, local: int) -> int:
    """The last instant at which the wall clock shows `local` or less, near it."""
    found = [
        min(stop - 1, local - offset)
        for start, stop, offset, _ in zone.stretches(local - 2 * DAY, local + 2 * DAY)
        if start + offset <= local
    ]
    return found[-1]


class Wall(Schedule):
    """Times of a wall clock, which obey rules 1 to 5."""

    __slots__ = ()

    follows: bool

    def between(self, after: int, until: int) -> Iterator[int]:
        return self._walk(load_zone(self.zone), after, until)

    def _walk(self, zone: Zone, after: int, until: int) -> Iterator[int]:
        """Yield the fire times in (after, until]: naive wall-clock time in each stretch, with rules 2 and 3."""
        new = after + 1  # where new times begin: after `after`, and after what the clock repeats
        for start, stop, offset, before in zone.stretches(after - REACH, until):
            shift = 0 if self.follows else offset - before
            if -LIMIT <= shift < 0:
                new = max(new, start - shift)
            elif 0 < shift < LIMIT and after < start and self._skips(start + before, start + offset):
                yield start
                new = max(new, start + 1)
            for local in self._matches(max(start, new) + offset, min(stop, until + 1) + offset):
                yield local - offset

    def count(self, after: int, until: int) -> int:
        """Count as `_walk` does."""
        new, found = after + 1, 0
        for start, stop, offset, before in load_zone(self.zone).stretches(after - REACH, until):
            shift = 0 if self.follows else offset - before
            if -LIMIT <= shift < 0:
                new = max(new, start - shift)
            elif 0 < shift < LIMIT and after < start and self._skips(start + before, start + offset):
                found += 1
                new = max(new, start + 1)
            found += self._count_matches(max(start, new) + offset, min(stop, until + 1) + offset)
        return found

    def shown(self, begin: int, end: int) -> Iterator[int]:
        return iter(()) if self.follows else self._matches(begin, end)

    def _skips(self, begin: int, end: int) -> bool:
        return next(self._matches(begin, end), None) is not None

    def _count_matches(self, begin: int, end: int) -> int:
        """Count what `_matches` yields."""
        return sum(1 for _ in self._matches(begin, end))

    def _matches(self, begin: int, end: int) -> Iterator[int]:
        """Yield the matching minutes of the wall clock in [begin, end), as seconds since its own 1970-01-01 00:00."""
        raise NotImplementedError


class Cron(Wall):
    """Sets of minutes, hours, days, months and weekdays, and how they go together.

    A weekday has six bits: the first to the fifth one of the month, and the last one.
    """

    __slots__ = ("days", "either", "follows", "hours", "minutes", "months", "weekdays")

    either: bool
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int

    def __init__(self, follows: bool, either: bool, sets: Sets, zone: str) -> None:
        words = ["cron", "follows" if follows else "fixed", "either" if either else "both", *map("{:x}".format, sets)]
        parts = dict(zip(("minutes", "hours", "days", "months", "weekdays"), sets, strict=True))
        super().__init__(f"{' '.join(words)} {zone}", zone, follows=follows, either=either, **parts)

    def between(self, after: int, until: int) -> Iterator[int]:
        zone = load_zone(self.zone)
        if until - after <= MINUTE:
            # What a tick may ask of every reminder every minute: mostly a "no", from the one minute that can begin.
            offset = zone.calm(after, until)
            if offset is not None:
                minute = (until + offset) // MINUTE
                if not self.minutes >> minute % 60 & self.hours >> minute // 60 % 24 & 1:
                    return iter(())
        return self._walk(zone, after, until)

    def _count_matches(self, begin: int, end: int) -> int:
        first, last = -(-begin // DAY), end // DAY  # the whole days, which are counted at once
        if first >= last:
            return super()._count_matches(begin, end)
        days = sum(1 for _ in self._matching_days(first, last - 1))
        found = days * self.minutes.bit_count() * self.hours.bit_count()
        for low, high in ((begin, first * DAY), (last * DAY, end)):
            found += super()._count_matches(low, high)
        return found

    def _matches(self, begin: int, end: int) -> Iterator[int]:
        if begin >= end:
            return
        hours, minutes = members(self.hours), members(self.minutes)
        for day in self._matching_days(begin // DAY, (end - 1) // DAY):
            for hour in hours:
                start = day * DAY + hour * HOUR
                if begin < start + HOUR and start < end:
                    for minute in minutes:
                        if begin <= start + minute * MINUTE < end:
                            yield start + minute * MINUTE

    def _matching_days(self, first: int, last: int) -> Iterator[int]:
        """Yield the matching days from `first` to `last`, both included, as days since 1970-01-01."""
        from datetime import date

        day = first
        while day <= last:
            today = date.fromordinal(day + _EPOCH)
            lengths = month_lengths(today.month)
            length = lengths[today.year % 4 == 0 and (today.year % 100 != 0 or today.year % 400 == 0)]
            start = day - today.day  # so that start + 1 is the first of the month
            if self.months >> today.month & 1:
                matching = self._days_of_month(length, (start + 5) % 7)  # 1970-01-01 was a Thursday
                for number in members(matching >> today.day << today.day):
                    if start + number > last:
                        return
                    yield start + number
            day = start + length + 1

    def _days_of_month(self, length: int, first_weekday: int) -> int:
        """The matching days, as bits, of a month of `length` days whose first is a `first_weekday` (0 is Sunday)."""
        month = (2 << length) - 2
        dated = self.days & month | bool(self.days & LAST_DAY) << length
        if self.weekdays == ALL_WEEKDAYS:
            return dated
        named = 0
        for weekday in range(7):
            ones = self.weekdays >> 6 * weekday & 63
            first = 1 + (weekday - first_weekday) % 7
            named |= _WEEKLY[ones & EVERY_ONE] << first
            if ones & LAST_ONE:
                named |= 1 << length - (length - first) % 7
        return (dated | named if self.either else dated & named) & month

    def matches_day(self, day: int) -> bool:
        """Whether a day, counted from 1970-01-01, matches."""
        return next(self._matching_days(day, day), None) is not None

    def comes_in(self, month: int) -> bool:
        """Whether any day of a month matches in any year."""
        return any(self._days_of_month(length, weekday) for length in month_lengths(month) for weekday in range(7))


def month_lengths(month: int) -> tuple[int, int]:
    """How many days a month has: in most years, in leap years."""
    return _LENGTHS[month], _LENGTHS[month] + (month == 2)


def members(bits: int) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
