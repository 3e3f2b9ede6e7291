"""A schedule and a zone -> fire times. Pure: no clock is read and nothing is stored.

Kept true here: a schedule's fire times are one fixed set of instants, whatever interval is asked for, so those in (a, c]
are those in (a, b] and (b, c]. Instants are whole seconds since the Unix epoch. Wall-clock schedules follow the rule of
Debian's cron for changes of the clock and for day of month against day of week:

1. A cron *follows the clock* if its minute or its hour field starts with `*`; else it is *fixed*.
2. Fixed, and the clock jumps forward by less than 3 h over one or more of its times: once, at the instant of the jump.
3. Fixed, and the clock goes back by at most 3 h: times in the repeated stretch fire the first time only.
4. Following the clock: whenever the wall clock shows a matching minute; twice if repeated, not at all if skipped.
5. Larger jumps: no correction.
6. Day of month and day of week must both match if either field starts with `*`; else either suffices.

croniter only expands the fields, and is imported only when a cron is parsed (it costs 100 ms). Its walk is not used: it
is wrong around changes of the clock. A tick decodes what it finds in its store and walks with what is here alone.
"""

from __future__ import annotations

import os

from bub_cron.errors import ScheduleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, tzinfo

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds
_LIMIT = 3 * _HOUR  # a clock change that is larger is a new time, not a correction of the old one
_REACH = 4 * _HOUR  # how far back a change still matters; a little more than the limit
_FIRST, _LAST = -62_135_510_400, 253_402_214_400  # year 1 and year 9999, a day inside what datetime can hold
_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01

_MAX_TEXT = 1_000  # characters of a cron text
_MAX_NAME = 64  # characters of a zone's name
_MAX_VALUES = 10_000  # values of one `at`
_MAX_ENCODED = 400_000  # characters: room for that many instants
_MAX_PERIOD = 366 * _DAY

_ALL_MINUTES = (1 << 60) - 1
_ALL_HOURS = (1 << 24) - 1
_LAST_DAY = 1  # bit 0 of a set of days; bits 1 to 31 are the days
_ALL_DAYS = 0xFFFFFFFE
_ALL_MONTHS = 0x1FFE  # bits 1 to 12
_EVERY_ONE = 0b011111  # of a weekday's six bits: the first to the fifth one of the month; the sixth bit is the last one
_LAST_ONE = 0b100000
_ALL_WEEKDAYS = sum(_EVERY_ONE << 6 * weekday for weekday in range(7))  # Sunday first
_WEEKLY = sum(1 << 7 * week for week in range(5))
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Schedule:
    """When a reminder fires. Immutable; equal to another one if both fire on the same, by their encoded forms.

    `kind` is "cron", "every" or "at"; `zone` the IANA name of its zone ("UTC" for "every").
    """

    __slots__ = ("_text", "kind", "zone")

    kind: str
    zone: str
    _text: str

    def __init__(self, kind: str, zone: str, text: str) -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "zone", zone)
        object.__setattr__(self, "_text", text)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Schedule can't be changed ({name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Schedule can't be changed ({name})")

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"decode({self._text!r})"

    def __reduce__(self) -> tuple[Callable[[str], Schedule], tuple[str]]:
        return decode, (self._text,)

    def _between(self, after: int, until: int) -> Iterator[int]:
        raise NotImplementedError

    def _phrase(self) -> str:
        raise NotImplementedError


# What callers use


def parse_cron(text: str, zone: str, name: str) -> Schedule:
    """Read a cron of five fields, or `@daily` and its kin. `name` is the reminder's: `H` takes its values from it.

    Raises ScheduleError, which names the field, if it can't be read or never fires, or if the zone is unknown.
    """
    zone = require_zone(zone)
    if not isinstance(name, str):
        raise ScheduleError(f"a reminder's name is a text, not {_type(name)}")
    fields = _split(text)
    plain = " ".join(_plain_field(field, written) for field, written in zip(_FIELDS, fields, strict=True))
    minutes, hours, days, months, weekdays = _expand(plain, name)
    follows = fields[0].startswith("*") or fields[1].startswith("*")
    either = not (fields[2].startswith("*") or fields[4].startswith("*"))
    return _canonical(follows, either, (minutes, hours, days, months, weekdays), zone)


def parse_every(seconds: int) -> Schedule:
    """Make a schedule that fires at the multiples of `seconds` since the Unix epoch, in UTC.

    Raises ScheduleError if that is not a number of whole minutes from one minute to 366 days.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise ScheduleError(f"every: a number of seconds is needed, not {_type(seconds)}")
    if seconds < _MINUTE or seconds % _MINUTE:
        raise ScheduleError("every: only whole minutes, and at least one, are possible: write 1m, 90m or 2h")
    if seconds > _MAX_PERIOD:
        raise ScheduleError("every: more than 366 days is not possible; write a cron, or a list of dates with at")
    return _Every(seconds)


def parse_at(values: Sequence[str], zone: str) -> Schedule:
    """Read one or more date-times, local to `zone` or with an offset of their own ("2026-12-01 08:30", "...T08:30Z").

    A local time that the clock skips stands for the instant of the jump if that is shorter than 3 h; one that the clock
    shows twice for the first of the two. Raises ScheduleError, which names the value.
    """
    zone = require_zone(zone)
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)):
        raise ScheduleError(f"at: a date-time or a list of them is needed, not {_type(values)}")
    if not values:
        raise ScheduleError("at: the list is empty; write at least one date and time, as in 2026-12-01 08:30")
    if len(values) > _MAX_VALUES:
        raise ScheduleError(f"at: at most {_MAX_VALUES} values are possible in one list")
    return _At(tuple(sorted({_instant(value, zone) for value in values})), zone)


def fire_times(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    """Yield all fire times in (after, until], ascending and unique, as they are asked for.

    Beyond the years 1 to 9999 there are none.
    """
    # Comparisons, for min() and max() would be a fifth of what a tick spends on a reminder that isn't due.
    after = after if after > _FIRST else _FIRST
    until = until if until < _LAST else _LAST
    return schedule._between(after, until) if after < until else iter(())


def next_fire_time(schedule: Schedule, after: int) -> int | None:
    """Find the first fire time that is later than `after`; None if there is none any more."""
    return next(fire_times(schedule, after, _LAST), None)


def encode(schedule: Schedule) -> str:
    """Write a schedule as one compact line. Two texts that mean the same have the same line."""
    return schedule._text


def decode(text: str) -> Schedule:
    """Make the schedule that `encode` wrote, without croniter. Raises ScheduleError for anything else."""
    if not isinstance(text, str):
        raise ScheduleError(f"an encoded schedule is a text, not {_type(text)}")
    try:
        schedule = _decoded(text)
    except ValueError as fault:
        raise ScheduleError(f"{_quote(text)} is not an encoded schedule") from fault
    # int() takes more than encode() writes (blanks, underscores, capitals): only the one true form may pass.
    if schedule._text != text:
        raise ScheduleError(f"{_quote(text)} is not an encoded schedule")
    return schedule


def require_zone(name: str) -> str:
    """Return `name` if it is the IANA name of a zone known here; else raise ScheduleError with the nearest ones."""
    _zone(name)
    return name


def machine_zone(environ: Mapping[str, str] = os.environ, root: str = "/") -> str:
    """Find the machine's own zone: `TZ`, else where /etc/localtime points to, else the line in /etc/timezone.

    An empty `TZ` counts as none. `root` is the directory that stands for `/`. Raises ScheduleError if nothing says
    which zone it is, or if what says it names no known zone: UTC is never assumed in silence.
    """
    if not hasattr(environ, "get"):
        raise ScheduleError(f"an environment is a mapping, not {_type(environ)}")
    said = str(environ.get("TZ") or "").strip().removeprefix(":")
    sources = (
        # Some set TZ to this path only to spare the C library a look at the file.
        ("TZ", "" if said == "/etc/localtime" else _below_zoneinfo(said) or said),
        ("/etc/localtime", _below_zoneinfo(_link(f"{root}/etc/localtime"))),
        ("/etc/timezone", _first_line(f"{root}/etc/timezone")),
    )
    for source, name in sources:
        if name:
            try:
                return require_zone(name)
            except ScheduleError as fault:
                raise ScheduleError(f"the machine's zone, as {source} says: {fault}; or set `timezone:`") from fault
    raise ScheduleError("the machine's time zone can't be found; set `timezone:` to a name such as Europe/Berlin")


def describe(schedule: Schedule) -> str:
    """Say in one English phrase when a schedule fires."""
    return schedule._phrase()


# Zones


class _Zone:
    """A zone's offsets from UTC, and the instants at which they change, which zoneinfo knows but doesn't tell.

    Changes are searched block by block and kept, so that all schedules of a zone share the work.
    """

    __slots__ = ("_at", "_blocks", "_steady", "_tz")

    BLOCK = 64 * _DAY
    # Samples are this far apart. An offset that goes and comes back between two of them would be overlooked; the
    # shortest-lived one in the zone database held for 4 days (Africa/Freetown, 1939), since 1970 for 7.
    STEP = _DAY

    def __init__(self, tz: tzinfo, at: Callable[[float, tzinfo], datetime]) -> None:
        self._tz = tz
        self._at = at
        self._blocks: dict[int, tuple[tuple[int, int, int], ...]] = {}
        self._steady = (0, 0, 0)

    def offset(self, instant: int) -> int:
        """Seconds to add to UTC at an instant."""
        offset = self._at(min(max(instant, _FIRST), _LAST), self._tz).utcoffset()
        return 0 if offset is None else offset.days * _DAY + offset.seconds

    def changes(self, block: int) -> tuple[tuple[int, int, int], ...]:
        """All (instant, offset before, offset from then on) in one block of time, ascending."""
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = tuple(self._search(block * self.BLOCK - 1, (block + 1) * self.BLOCK - 1))
        return found

    def _search(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the changes in (begin, end]."""
        old = self.offset(begin)
        for low in range(begin, end, self.STEP):
            high = min(low + self.STEP, end)
            while (new := self.offset(high)) != old:
                low = self._last_with(old, low, high)
                new = self.offset(low + 1)
                yield low + 1, old, new
                low, old = low + 1, new

    def _last_with(self, offset: int, low: int, high: int) -> int:
        """Halve [low, high] down to the last instant before a change away from `offset`, which holds at `low`."""
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == offset:
                low = middle
            else:
                high = middle
        return low

    def stretches(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut (begin, end] where the offset changes: yield (start, stop, offset, offset just before start), stop excluded.

        Also cut at the ends of blocks, with both offsets the same, so that a far end costs nothing until it is reached.
        """
        start, offset = begin + 1, self.offset(begin)
        before = offset
        for block in range(start // self.BLOCK, end // self.BLOCK + 1):
            for change, old, new in self.changes(block):
                if begin < change <= end:
                    yield start, change, offset, before
                    start, before, offset = change, old, new
            stop = min((block + 1) * self.BLOCK, end + 1)
            yield start, stop, offset, before
            start, before = stop, offset

    def steady(self, after: int, until: int) -> int | None:
        """The offset in (after, until] if no change in or shortly before that can matter, else None."""
        low, high, offset = self._steady
        if low <= after and until < high:
            return offset
        block = until // self.BLOCK
        low, high, offset = (block - 1) * self.BLOCK, (block + 1) * self.BLOCK, self.offset(until)
        for change, _, _ in self.changes(block - 1) + self.changes(block):
            if change <= until:
                low = change
            else:
                high = change
                break
        self._steady = (low + _REACH, high, offset)
        return offset if low + _REACH <= after else None


_ZONES: dict[str, _Zone] = {}  # read-only facts, kept for all schedules of a zone
_NAMES: dict[str, str] = {}  # all zones, by their names in lower case; filled when the first unknown name comes
_HINTS: dict[str, str] = {}  # for the same mistake in every reminder of a file: a hint takes milliseconds
_MAX_HINTS = 64
_ZONE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/")
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})  # files of the database that are no IANA zones


def _zone(name: str) -> _Zone:
    """Load a zone, or raise ScheduleError."""
    if not isinstance(name, str):
        raise ScheduleError(f"a time zone is a name such as Europe/Berlin, not {_type(name)}")
    zone = _ZONES.get(name)
    if zone is None:
        zone = _ZONES[name] = _load_zone(name)
    return zone


def _load_zone(name: str) -> _Zone:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    fits = 0 < len(name) <= _MAX_NAME and _ZONE_CHARACTERS.issuperset(name) and "" not in name.split("/")
    # right/ counts leap seconds, which the Unix epoch doesn't; posix/ is a second name for everything.
    if not fits or name in _NO_ZONES or name.startswith(("right/", "posix/")):
        raise _unknown_zone(name)
    try:
        return _Zone(ZoneInfo(name), datetime.fromtimestamp)
    except Exception as fault:  # not found, a directory, no permission, not a zone file: each raises a type of its own
        raise _unknown_zone(name) from fault


def _unknown_zone(name: str) -> ScheduleError:
    if name not in _HINTS:
        if len(_HINTS) >= _MAX_HINTS:
            _HINTS.clear()
        _HINTS[name] = _nearest_zones(name)
    hint = _HINTS[name] or "write an IANA name such as Europe/Berlin"
    return ScheduleError(f"{_quote(name)} is not a time zone known here; {hint}")


def _nearest_zones(name: str) -> str:
    """A question that offers the nearest names, or "" if none is near."""
    if len(name) > _MAX_NAME:
        return ""
    from difflib import get_close_matches
    from zoneinfo import available_timezones

    if not _NAMES:
        _NAMES.update((zone.lower(), zone) for zone in sorted(available_timezones() - _NO_ZONES))
    wanted = name.strip().lower().replace(" ", "_")
    same = [zone for zone in _NAMES if wanted in (zone, zone.rpartition("/")[2])]
    near = same or get_close_matches(wanted, _NAMES, n=3)
    return f"did you mean {_join([_NAMES[zone] for zone in near[:3]], 'or')}?" if near else ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except (OSError, ValueError):  # ValueError: NUL in the path
        return ""


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_TEXT).decode("utf-8", "replace").strip().partition("\n")[0]
    except (OSError, ValueError):
        return ""


def _below_zoneinfo(path: str) -> str:
    """The zone's name in a path below a zone database; "" if it is none."""
    return f"/{path}".rpartition("/zoneinfo/")[2].removeprefix("posix/") if "zoneinfo/" in path else ""


# Cron: the walk


class _Cron(Schedule):
    """Sets of minutes, hours, days, months and weekdays as bits of integers, and how they go together.

    A weekday has six bits: the first to the fifth one of the month, and the last one.
    """

    __slots__ = ("_days", "_either", "_follows", "_hours", "_minutes", "_months", "_weekdays")

    _follows: bool
    _either: bool
    _minutes: int
    _hours: int
    _days: int
    _months: int
    _weekdays: int

    def __init__(self, follows: bool, either: bool, sets: tuple[int, int, int, int, int], zone: str) -> None:
        clock = "follows" if follows else "fixed"
        days = "either" if either else "both"
        super().__init__("cron", zone, f"cron {clock} {days} {' '.join([f'{bits:x}' for bits in sets])} {zone}")
        names = ("_follows", "_either", "_minutes", "_hours", "_days", "_months", "_weekdays")
        for name, value in zip(names, (follows, either, *sets), strict=True):
            object.__setattr__(self, name, value)

    def _between(self, after: int, until: int) -> Iterator[int]:
        zone = _ZONES.get(self.zone) or _zone(self.zone)
        if until - after <= _MINUTE:
            # What a tick asks of every reminder every minute: mostly a "no" from two bits.
            offset = zone.steady(after, until)
            if offset is not None:
                return self._newest_minute(after + offset, until + offset, offset)
        return self._walk(zone, after, until)

    def _newest_minute(self, after: int, until: int, offset: int) -> Iterator[int]:
        """The one minute that can begin in (after, until], at most a minute of wall-clock time, if it matches."""
        minute = until // _MINUTE
        if minute * _MINUTE <= after or not self._minutes >> minute % 60 & self._hours >> minute // 60 % 24 & 1:
            return iter(())
        return iter([local - offset for local in self._matches(minute * _MINUTE, minute * _MINUTE + 1)])

    def _walk(self, zone: _Zone, after: int, until: int) -> Iterator[int]:
        """Yield the fire times in (after, until]: naive wall-clock time in each stretch, then rules 2 and 3."""
        muted = after + 1  # where new times begin: after `after`, and after a stretch that the clock repeats
        for start, stop, offset, before in zone.stretches(after - _REACH, until):
            shift = offset - before
            if not self._follows and shift:
                if 0 < shift < _LIMIT and self._skips(start + before, start + offset):
                    if after < start:
                        yield start
                    muted = max(muted, start + 1)
                elif -_LIMIT <= shift < 0:
                    muted = max(muted, start - shift)
            for local in self._matches(max(start, muted) + offset, stop + offset):
                yield local - offset

    def _skips(self, begin: int, end: int) -> bool:
        return next(self._matches(begin, end), None) is not None

    def _matches(self, begin: int, end: int) -> Iterator[int]:
        """Yield the matching minutes of the wall clock in [begin, end), as seconds since its own 1970-01-01 00:00."""
        if begin >= end:
            return
        hours, minutes = _members(self._hours), _members(self._minutes)
        for day in self._matching_days(begin // _DAY, (end - 1) // _DAY):
            for hour in hours:
                start = day * _DAY + hour * _HOUR
                if start + _HOUR <= begin or start >= end:
                    continue
                for minute in minutes:
                    if begin <= start + minute * _MINUTE < end:
                        yield start + minute * _MINUTE

    def _matching_days(self, first: int, last: int) -> Iterator[int]:
        """Yield the matching days from `first` to `last`, both included, as days since 1970-01-01."""
        from datetime import date

        day = first
        while day <= last:
            today = date.fromordinal(day + _EPOCH)
            length = 29 if today.month == 2 and _is_leap(today.year) else _LENGTHS[today.month]
            start = day - today.day  # so that start + 1 is the first of the month
            if self._months >> today.month & 1:
                matching = self._days_of_month(length, (start + 5) % 7)  # 1970-01-01 was a Thursday
                for number in _members(matching >> today.day << today.day):
                    if start + number > last:
                        return
                    yield start + number
            day = start + length + 1

    def _days_of_month(self, length: int, first_weekday: int) -> int:
        """The matching days, as bits, of a month of `length` days whose first is a `first_weekday` (0 is Sunday)."""
        month = (2 << length) - 2
        dated = self._days & month
        if self._days & _LAST_DAY:
            dated |= 1 << length
        if self._weekdays == _ALL_WEEKDAYS:
            return dated
        named = 0
        for weekday in range(7):
            ones = self._weekdays >> 6 * weekday & 63
            if ones:
                named |= _days_of_weekday(ones, 1 + (weekday - first_weekday) % 7, length)
        return (dated | named if self._either else dated & named) & month

    def _comes_in(self, month: int) -> bool:
        """Whether any day of a month matches in any year."""
        lengths = (29, 28) if month == 2 else (_LENGTHS[month],)
        return any(self._days_of_month(length, weekday) for length in lengths for weekday in range(7))

    def _months_that_come(self) -> list[int]:
        return [month for month in _members(self._months) if self._comes_in(month)]

    def _phrase(self) -> str:
        parts = [_time_phrase(_members(self._minutes), _members(self._hours)), self._day_phrase()]
        if self._months != _ALL_MONTHS:
            parts.append(f"in {_runs(_members(self._months), _MONTH_NAMES.__getitem__, 'and')}")
        return ", ".join([*filter(None, parts), self.zone])

    def _day_phrase(self) -> str:
        if self._days == _ALL_DAYS and self._weekdays == _ALL_WEEKDAYS:
            return "" if self._minutes.bit_count() * self._hours.bit_count() > _MAX_TIMES else "every day"
        if self._weekdays == _ALL_WEEKDAYS:
            return f"on {_date_phrase(self._days, 'and')}"
        if self._days == _ALL_DAYS:
            phrase = _weekday_phrase(self._weekdays)
            return phrase if phrase.count(" to ") and phrase.count(" ") == 2 else f"on {phrase}"
        if self._either:
            return f"on {_date_phrase(self._days, 'and')} or on {_weekday_phrase(self._weekdays)}"
        dates = _date_phrase(self._days, "or")
        if _is_plain(self._weekdays):
            return f"on {_weekday_phrase(self._weekdays, 's')} that are {dates}"
        return f"on {_weekday_phrase(self._weekdays)} if that is {dates}"


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _members(bits: int) -> list[int]:
    """The numbers of the bits that are set, ascending."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def _days_of_weekday(ones: int, first: int, length: int) -> int:
    """The days, as bits, of the `ones` (first to fifth, last) of a weekday that comes first on day `first`."""
    if ones == _EVERY_ONE:
        return _WEEKLY << first & (2 << length) - 2
    days = sum([1 << first + 7 * nth for nth in range(5) if ones >> nth & 1]) & (2 << length) - 2
    return days | 1 << length - (length - first) % 7 if ones & _LAST_ONE else days


def _canonical(follows: bool, either: bool, sets: tuple[int, int, int, int, int], zone: str) -> _Cron:
    """Bring what is meant into one form: without days that never come, and with "both" where the two rules agree.

    Raises ScheduleError if it never fires.
    """
    minutes, hours, days, months, weekdays = sets
    days = _canonical_days(days, months)
    weekdays = sum(_canonical_ones(weekdays >> 6 * weekday & 63) << 6 * weekday for weekday in range(7))
    if either and not days:
        either, days = False, _ALL_DAYS  # the weekday alone decides
    elif either and (days == _ALL_DAYS or weekdays == _ALL_WEEKDAYS):
        days, weekdays = _ALL_DAYS, _ALL_WEEKDAYS
    either = either and days != _ALL_DAYS
    months = sum(
        1 << month for month in _Cron(follows, either, (*sets[:2], days, months, weekdays), zone)._months_that_come()
    )
    if not months:
        raise ScheduleError("cron: it never fires: no month that it names has such a day; choose a day that exists")
    return _Cron(follows, either, (minutes, hours, days, months, weekdays), zone)


def _canonical_days(days: int, months: int) -> int:
    """Drop the days that none of the months has, and say "the last day" only where no number says it."""
    lasts = {last for month in _members(months) for last in ((28, 29) if month == 2 else (_LENGTHS[month],))}
    longest = max(lasts)
    days &= (2 << longest) - 1
    if days & _LAST_DAY:
        numbers = days & ~_LAST_DAY | 1 << longest  # in a month of that length, this is the last day
        if all(numbers >> last & 1 for last in lasts):
            days = numbers
        else:
            days &= ~(1 << longest)
    return _ALL_DAYS if days == (2 << longest) - 2 else days


def _canonical_ones(ones: int) -> int:
    """The last one of a weekday is the fifth or the fourth: with the four first ones and the last one, that's all."""
    if ones & _LAST_ONE:
        ones &= ~0b10000
    return _EVERY_ONE if ones == _LAST_ONE | 0b1111 else ones


# Cron: reading it


class _Field:
    """One of the five fields: its name in messages, its range as written, and the names of its values."""

    __slots__ = ("high", "label", "low", "names")

    def __init__(self, label: str, low: int, high: int, names: tuple[str, ...] = ()) -> None:
        self.label = label
        self.low = low
        self.high = high
        self.names = names

    def fault(self, message: str) -> ScheduleError:
        return ScheduleError(f"cron, {self.label}: {message}")

    def number(self, word: str) -> int:
        """Read a number or a name, or raise ScheduleError."""
        if word in self.names:
            return self.names.index(word) + self.low
        if not word.isdigit():
            raise self.fault(f"{_quote(word)} is not {self.choices()}")
        number = int(word)
        if not self.low <= number <= self.high:
            raise self.fault(f"{_quote(word)} is out of range, write {self.low} to {self.high}")
        return number

    def choices(self) -> str:
        numbers = f"a number from {self.low} to {self.high}"
        return f"{numbers} or a name from {self.names[0]} to {self.names[-1]}" if self.names else numbers


_DAY_FIELD = _Field("day of month", 1, 31)
_WEEKDAY_FIELD = _Field("day of week", 0, 7, _WEEKDAYS)
_FIELDS = (_Field("minute", 0, 59), _Field("hour", 0, 23), _DAY_FIELD, _Field("month", 1, 12, _MONTHS), _WEEKDAY_FIELD)


def _split(text: str) -> list[str]:
    """Cut a cron text into its five fields, in lower case."""
    if not isinstance(text, str):
        raise ScheduleError(f"cron: a text of five fields is needed, not {_type(text)}")
    if len(text) > _MAX_TEXT:
        raise ScheduleError(f"cron: the text is longer than {_MAX_TEXT} characters")
    for character in text:
        if not " " <= character <= "~" and character not in "\t\r\n":
            raise ScheduleError(f"cron: the character {character!r} (U+{ord(character):04X}) can't be part of it")
    fields = text.lower().split()
    if fields and fields[0].startswith("@"):
        return _split_alias(" ".join(fields))
    if len(fields) != len(_FIELDS):
        raise ScheduleError(
            f"cron: five fields are needed (minute, hour, day of month, month, day of week; no seconds, no year), not"
            f" {len(fields)}"
        )
    return fields


def _split_alias(alias: str) -> list[str]:
    if alias == "@reboot":
        raise ScheduleError("cron: @reboot names no time; write when to fire, as in 0 9 * * *")
    if alias not in _ALIASES:
        raise ScheduleError(f"cron: {_quote(alias)} is none of {_join(list(_ALIASES), 'and')}")
    return _ALIASES[alias].split()


def _plain_field(field: _Field, written: str) -> str:
    """Check one field and return it in numbers only, without anything that croniter reads in a way of its own."""
    import re

    hashed = re.fullmatch(r"h(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?", written)
    if hashed:
        return _plain_hash(field, written, *hashed.groups())
    elements = written.split(",")
    if field is _WEEKDAY_FIELD:
        counted = [bool(re.search(r"#|^l", element)) for element in elements]
        if any(counted) and not all(counted):
            # croniter drops the plain Friday of `5,5#2` in silence.
            raise field.fault(
                "plain weekdays and counted ones (5#2, L5) can't be mixed; use one kind, or two reminders"
            )
    return ",".join([_plain_element(field, element) for element in elements])


def _plain_hash(field: _Field, written: str, low: str | None, high: str | None, step: str | None) -> str:
    if low is not None and high is not None and field.number(low) >= field.number(high):
        raise field.fault(f"{_quote(written.upper())} needs a smaller number first, as in H({field.low}-{field.high})")
    if step is not None and int(step) == 0:
        raise field.fault(_ZERO_STEP)
    # As in Jenkins: a day that every month has, or "once a month" would skip some.
    return "h(1-28)" if field is _DAY_FIELD and written == "h" else written


_ZERO_STEP = "a step of 0 goes nowhere, write 1 or more after the /"

# What croniter, or another cron, takes and this one doesn't: (in this field alone, pattern, why not and what instead).
_REFUSED = (
    (None, r".*\?.*", "? is not part of cron, write *"),
    (
        None,
        r"r(\(.*\))?(/.*)?",
        "R would be another time at every reading; write H, which keeps to the reminder's name",
    ),
    (None, r"h|h[(/].*", "H stands alone in its field, as H, H/15 or H(0-29)"),
    (None, r".*~.*", "random ranges are not supported; write H(0-29)"),
    (_DAY_FIELD, r"[0-9]+w|w[0-9]+|lw|wl", "the nearest weekday (15W, LW) is not supported; name days or weekdays"),
    (_DAY_FIELD, r"l-.*", "days before the last one (L-3) are not supported; L alone is the last day of the month"),
    (_WEEKDAY_FIELD, r"l", "write L5 for the last Friday of the month, or 6 for Saturday"),
    (_WEEKDAY_FIELD, r"([0-9]|[a-z]{3})l|l[a-z]{3}", "for the last Friday of the month write L5"),
)


def _plain_element(field: _Field, element: str) -> str:
    """Check one element of a field's list and return it in numbers."""
    import re

    if not element:
        raise field.fault("the list has an empty place, take the needless comma out")
    for only, pattern, reason in _REFUSED:
        if only in (None, field) and re.fullmatch(pattern, element):
            raise field.fault(f"{_quote(element.upper())} can't be read: {reason}")
    if (field is _DAY_FIELD and element == "l") or (field is _WEEKDAY_FIELD and re.fullmatch("l[0-7]", element)):
        return element
    match = re.fullmatch(r"(\*|[0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?(?:/([0-9]+))?(?:#([0-9]+))?", element)
    if match is None or (match[1] == "*" and (match[2] or match[4])) or (match[4] and match[3]):
        raise field.fault(f"{_quote(element)} can't be read; write *, 5, 1-5, 1,3,5 or */2")
    low, high, step, nth = match.groups()
    if step is not None and int(step) == 0:
        raise field.fault(_ZERO_STEP)
    if low == "*":
        return element
    return _plain_range(field, low, high, step, nth)


def _plain_range(field: _Field, low: str, high: str | None, step: str | None, nth: str | None) -> str:
    """Check `low-high/step` or `low-high#nth`, of which `low` alone must be there, and return it in numbers."""
    first = field.number(low)
    last = first if high is None else _DAY_FIELD.high if (field, high) == (_DAY_FIELD, "l") else field.number(high)
    if first > last:
        raise field.fault(f"{low}-{high} runs backwards, write {_forwards(field, low, first, last, step)}")
    if nth is not None:
        if field is not _WEEKDAY_FIELD or not 1 <= int(nth) <= 5:
            raise field.fault("# counts weekdays of a month, from 1 to 5: 5#2 is the second Friday, as day of week")
        return ",".join([f"{weekday}#{nth}" for weekday in range(first, last + 1)])
    steps = f"/{step}" if step else ""
    # croniter reads 9-9 as the whole field. It is the one value.
    return f"{first}{steps}" if high is None else f"{first}-{last}{steps}" if first < last else str(first)


def _forwards(field: _Field, written: str, first: int, last: int, step: str | None) -> str:
    """Write a range that goes round the end of its field in a way that cron takes."""
    top = 6 if field is _WEEKDAY_FIELD else field.high
    if first > top:
        return f"{field.low}-{last}"  # 7-3 is from Sunday to Wednesday
    halves = [list(range(first, top + 1)), list(range(field.low, last + 1))]
    if step is not None:
        return ",".join(map(str, sorted((halves[0] + halves[1])[:: int(step)])))
    word = (lambda value: field.names[value - field.low]) if written in field.names else str
    return ",".join([word(half[0]) if len(half) == 1 else f"{word(half[0])}-{word(half[-1])}" for half in halves])


def _expand(plain: str, name: str) -> tuple[int, int, int, int, int]:
    """Let croniter expand five checked fields, and return them as bits."""
    from croniter import croniter

    try:
        expanded, counted = croniter.expand(plain, hash_id=name.encode("utf-8", "surrogatepass"))
    except (ValueError, TypeError, LookupError, AttributeError) as fault:
        raise ScheduleError(f"cron: {_quote(plain)} can't be read") from fault
    minutes, hours, days, months, weekdays = expanded
    ordinals: dict[int, set[int | str]] = {int(weekday): {*ones} for weekday, ones in counted.items()}
    return (
        _bits(minutes, _ALL_MINUTES),
        _bits(hours, _ALL_HOURS),
        _bits(days, _ALL_DAYS),
        _bits(months, _ALL_MONTHS),
        _weekday_bits(weekdays, ordinals),
    )


def _bits(values: Sequence[int | str], everything: int) -> int:
    if "*" in values:
        return everything
    return sum({1 << value if isinstance(value, int) else _LAST_DAY for value in values})


def _weekday_bits(weekdays: Sequence[int | str], counted: Mapping[int, set[int | str]]) -> int:
    if not counted:
        return sum([_EVERY_ONE << 6 * weekday for weekday in _members(_bits(weekdays, 0b1111111))])
    bits = 0
    for weekday, ones in counted.items():
        for one in ones:
            bits |= (1 << one - 1 if isinstance(one, int) else _LAST_ONE) << 6 * weekday
    return bits


# Every, at, and the encoded form


class _Every(Schedule):
    """The multiples of a period in seconds."""

    __slots__ = ("_seconds",)

    _seconds: int

    def __init__(self, seconds: int) -> None:
        super().__init__("every", "UTC", f"every {seconds}")
        object.__setattr__(self, "_seconds", seconds)

    def _between(self, after: int, until: int) -> Iterator[int]:
        return iter(range((after // self._seconds + 1) * self._seconds, until + 1, self._seconds))

    def _phrase(self) -> str:
        units = ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"))
        size, unit = next((size, unit) for size, unit in units if self._seconds % size == 0)
        count = self._seconds // size
        return f"every {unit if count == 1 else f'{count} {unit}s'}, counted from the Unix epoch in UTC"


class _At(Schedule):
    """Instants, ascending. The zone is what they are shown in."""

    __slots__ = ("_instants",)

    _instants: tuple[int, ...]

    def __init__(self, instants: tuple[int, ...], zone: str) -> None:
        super().__init__("at", zone, f"at {','.join(map(str, instants))} {zone}")
        object.__setattr__(self, "_instants", instants)

    def _between(self, after: int, until: int) -> Iterator[int]:
        return iter([instant for instant in self._instants if after < instant <= until])

    def _phrase(self) -> str:
        times = [_local_text(instant, self.zone) for instant in self._instants]
        if len(times) == 1:
            return f"once, at {times[0]} {self.zone}"
        if len(times) <= _MAX_TIMES:
            return f"{len(times)} times, at {_join(times, 'and')} {self.zone}"
        return f"{len(times)} times, first at {times[0]} and last at {times[-1]} {self.zone}"


def _decoded(text: str) -> Schedule:
    """Make the schedule that an encoded text stands for. Raises ValueError if there is none."""
    if len(text) > _MAX_ENCODED:
        raise ValueError("too long")
    kind, *words = text.split(" ")
    if kind == "cron":
        return _decoded_cron(words)
    if kind == "every":
        (seconds,) = words
        return parse_every(int(seconds))
    if kind == "at":
        values, zone = words
        instants = tuple(map(int, values.split(",")))
        if instants != tuple(sorted(set(instants))) or not _FIRST < instants[0] <= instants[-1] <= _LAST:
            raise ValueError("not ascending, or out of range")
        return _At(instants, require_zone(zone))
    raise ValueError("no such kind")


def _decoded_cron(words: list[str]) -> Schedule:
    follows, either, *sets, zone = words
    minutes, hours, days, months, weekdays = (int(bits, 16) for bits in sets)
    pairs = (
        (minutes, _ALL_MINUTES),
        (hours, _ALL_HOURS),
        (days, _ALL_DAYS | _LAST_DAY),
        (months, _ALL_MONTHS),
        (weekdays, (1 << 42) - 1),
    )
    if not all(0 < bits <= most and not bits & ~most for bits, most in pairs):
        raise ValueError("a set is empty or too large")
    cron = _Cron(follows == "follows", either == "either", (minutes, hours, days, months, weekdays), require_zone(zone))
    if not any(cron._comes_in(month) for month in _members(months)):
        raise ValueError("it never fires")  # and a search for its next fire time would last for ages
    return cron


def _instant(value: str, zone: str) -> int:
    """Read one value of `at` as an instant."""
    import re
    from datetime import datetime

    if not isinstance(value, str):
        raise ScheduleError(f"at: a date and time in quotes is needed, as in '2026-12-01 08:30', not {_type(value)}")
    number = "([0-9]{2})"
    date = f"([0-9]{{4}})-{number}-{number}"
    text = value[:_MAX_NAME].strip(" ")
    match = re.fullmatch(f"{date}[T ]{number}:{number}(?::{number})? ?(Z|[+-][0-9]{{2}}:[0-9]{{2}})?", text)
    if match is None or len(value) > _MAX_NAME:
        if re.fullmatch(date, text):
            raise ScheduleError(f"at: {_quote(value)} is a date without a time; add one, as in {text} 08:30")
        raise ScheduleError(f"at: {_quote(value)} is not a date and time; write it as 2026-12-01 08:30")
    try:
        local = datetime(*(int(part or "0") for part in match.groups()[:6]))  # type: ignore[arg-type]
        ahead = _offset(match[7])
    except ValueError as fault:
        raise ScheduleError(f"at: {_quote(value)} does not exist: {fault}") from fault
    if local.second:
        raise ScheduleError(f"at: {_quote(value)} can't be met: reminders fire on whole minutes, leave the seconds out")
    if not 1970 <= local.year <= 9998:
        raise ScheduleError(f"at: {_quote(value)} is out of range; write a year from 1970 to 9998")
    seconds = (local.toordinal() - _EPOCH) * _DAY + local.hour * _HOUR + local.minute * _MINUTE
    if ahead is not None:
        return seconds - ahead
    instant = _first_showing(_zone(zone), seconds)
    if instant is None:
        raise ScheduleError(
            f"at: {_quote(value)} does not exist in {zone}: the clock jumps over it; write another time"
        )
    return instant


def _offset(written: str | None) -> int | None:
    """Read "Z" or "+01:00" as seconds; None if nothing is written. Raises ValueError."""
    if written is None or written == "Z":
        return None if written is None else 0
    hours, minutes = int(written[1:3]), int(written[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("an offset is at most 23:59")
    seconds = hours * _HOUR + minutes * _MINUTE
    return -seconds if written[0] == "-" else seconds


def _first_showing(zone: _Zone, local: int) -> int | None:
    """The first instant at which the wall clock shows `local`, or that of a jump over it by less than 3 h, or None."""
    for start, stop, offset, before in zone.stretches(local - 2 * _DAY, local + 2 * _DAY):
        if start + before <= local < start + offset:
            return start if offset - before < _LIMIT else None
        if start + offset <= local < stop + offset:
            return local - offset
    return None


# Phrases

_MAX_TIMES = 6  # more times than that aren't listed one by one
_MONTH_NAMES = (
    "", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WEEKDAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "last")


def _type(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _join(words: list[str], conjunction: str) -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}" if len(words) > 1 else words[0]


def _runs(values: list[int], word: Callable[[int], str], conjunction: str) -> str:
    """List values, three or more in a row as "first to last"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    words: list[str] = []
    for run in runs:
        words += [f"{word(run[0])} to {word(run[-1])}"] if len(run) > 2 else map(word, run)
    return _join(words, conjunction)


def _time_phrase(minutes: list[int], hours: list[int]) -> str:
    if len(minutes) * len(hours) <= _MAX_TIMES:
        return f"at {_join([f'{hour:02}:{minute:02}' for hour in hours for minute in minutes], 'and')}"
    steps = _step_phrase(minutes)
    lead = steps or f"at minute{'s' * (len(minutes) > 1)} {_runs(minutes, str, 'and')}"
    if len(hours) == 24:
        return lead if steps else f"{lead} of every hour"
    if steps and hours[-1] - hours[0] == len(hours) - 1:
        return f"{steps} from {hours[0]:02}:00 to {hours[-1]:02}:{minutes[-1]:02}"
    return f"{lead} of the hour{'s' * (len(hours) > 1)} {_runs(hours, str, 'and')}"


def _step_phrase(minutes: list[int]) -> str:
    """Say "every 5 minutes" where that is true across the hour, else nothing."""
    if len(minutes) == 60:
        return "every minute"
    if len(minutes) > 1 and 60 % minutes[1] == 0 and minutes == list(range(0, 60, minutes[1])):
        return f"every {minutes[1]} minutes"
    return ""


def _date_phrase(days: int, conjunction: str) -> str:
    numbers = _members(days & ~_LAST_DAY)
    words = []
    if numbers:
        plural = "s" if len(numbers) > 1 and conjunction == "and" else ""
        words.append(f"day{plural} {_runs(numbers, str, conjunction)} of the month")
    if days & _LAST_DAY:
        words.append("the last day of the month")
    return _join(words, conjunction)


def _is_plain(weekdays: int) -> bool:
    return all(weekdays >> 6 * weekday & 63 in (0, _EVERY_ONE) for weekday in range(7))


def _weekday_phrase(weekdays: int, ending: str = "") -> str:
    """List weekdays from Monday on, each with `ending`; counted ones as "the second Friday of the month"."""
    monday_first = [weekdays >> 6 * ((day + 1) % 7) & 63 for day in range(7)]
    if _is_plain(weekdays):
        plain = [day for day, ones in enumerate(monday_first) if ones]
        return _runs(plain, lambda day: _WEEKDAY_NAMES[day] + ending, "and")
    words = []
    for name, ones in zip(_WEEKDAY_NAMES, monday_first, strict=True):
        if ones == _EVERY_ONE:
            words.append(f"every {name}")
        else:
            words += [f"the {_ORDINALS[one]} {name}" for one in _members(ones)]
    return f"{_join(words, 'and')} of the month"


def _local_text(instant: int, zone: str) -> str:
    from datetime import date

    days, seconds = divmod(instant + _zone(zone).offset(instant), _DAY)
    clock = f"{seconds // _HOUR:02}:{seconds // _MINUTE % 60:02}"
    # Only an instant with an offset of its own, in a zone that counts in seconds, isn't at a whole minute there.
    odd = f":{seconds % _MINUTE:02}" if seconds % _MINUTE else ""
    return f"{date.fromordinal(days + _EPOCH)} {clock}{odd}"
