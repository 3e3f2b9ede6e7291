"""Zone data (RFC 9636) -> when its offset from UTC changes.

zoneinfo reads the same, but doesn't tell when an offset changes, and costs a tick a third of a bare interpreter.

Invariants:
- What isn't zone data is a ValueError, or one of IndexError and OverflowError.
- A change is one of the offset: changes of the abbreviation alone are left out.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = 86_400
_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01


class Changes:
    """The changes of a zone's offset: `first` holds before them all, then each of `offsets` from its instant on.

    `rule` goes on for ever after these; None if the last offset does.
    """

    __slots__ = ("first", "instants", "offsets", "rule")

    def __init__(self, data: bytes) -> None:
        start, size = 0, 4
        if data[4:5] >= b"2":  # behind a block for readers of 32 bits stands the one that counts
            start, size = _block_end(data, 0, 4), 8
        end = _block_end(data, start, size)
        times, types = _count(data, start, 3), _count(data, start, 4)
        at = start + 44
        chosen = data[at + times * size : at + times * (size + 1)]
        at += times * (size + 1)
        offsets = [_signed(data, at + 6 * number, 4) for number in range(types)]
        standard = [number for number in range(types) if not data[at + 6 * number + 4]]
        self.first = offsets[standard[0] if standard else 0]
        self.instants: list[int] = []
        self.offsets: list[int] = []
        for number in range(times):
            self._add(_signed(data, start + 44 + number * size, size), offsets[chosen[number]])
        footer = data[end:].strip(b"\n") if size == 8 else b""
        self.rule = _Rule(footer.decode("ascii")) if footer else None
        if self.rule is not None and not self.rule.changes:
            self._add(self.instants[-1] + 1 if self.instants else -(1 << 59), self.rule.standard)
            self.rule = None

    def _add(self, instant: int, offset: int) -> None:
        if offset != (self.offsets[-1] if self.offsets else self.first):
            self.instants.append(instant)
            self.offsets.append(offset)

    def of_year(self, year: int) -> "Iterator[tuple[int, int]]":
        """Yield the changes (instant, offset) that the rule has in a year, ascending."""
        if self.rule is not None:
            yield from self.rule.of_year(year)


def _count(data: bytes, start: int, number: int) -> int:
    at = start + 20 + 4 * number
    return int.from_bytes(data[at : at + 4])


def _block_end(data: bytes, start: int, size: int) -> int:
    if data[start : start + 4] != b"TZif" or len(data) < start + 44:
        raise ValueError("no zone data")
    utc, standard, leaps, times, types, characters = [_count(data, start, number) for number in range(6)]
    end = start + 44 + times * (size + 1) + types * 6 + characters + leaps * (size + 4) + standard + utc
    if end > len(data) or not types:
        raise ValueError("zone data that was cut off")
    return end


def _signed(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], signed=True)


class _Rule:
    """A rule as POSIX's TZ has it: `CET-1CEST,M3.5.0,M10.5.0/3`."""

    __slots__ = ("_begin", "_end", "changes", "standard", "summer")

    def __init__(self, text: str) -> None:
        zone, *dates = text.split(",")
        rest = _without_name(zone)
        self.standard, rest = _offset(rest)
        self.changes = bool(rest)
        self.summer = self.standard + 3600
        if rest:
            rest = _without_name(rest)
            if rest:
                self.summer, rest = _offset(rest)
            if rest or len(dates) != 2:
                raise ValueError("a rule that can't be read")
            self._begin, self._end = dates

    def of_year(self, year: int) -> "Iterator[tuple[int, int]]":
        begin = _moment(self._begin, year) - self.standard
        end = _moment(self._end, year) - self.summer
        return iter(sorted([(begin, self.summer), (end, self.standard)]))


def _without_name(text: str) -> str:
    if text[:1] == "<":
        return text[text.index(">") + 1 :]
    return text.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _offset(text: str) -> tuple[int, str]:
    """Read an offset, which is positive to the west; return it as one that is positive to the east, and what is left."""
    rest = text.lstrip("+-0123456789:")
    return -_seconds(text[: len(text) - len(rest)]), rest


def _seconds(text: str) -> int:
    sign = -1 if text[:1] == "-" else 1
    hours, minutes, seconds = [*map(int, text.lstrip("+-").split(":")), 0, 0][:3]
    return sign * (3600 * hours + 60 * minutes + seconds)


def _moment(text: str, year: int) -> int:
    """Return when a rule's date and time come in a year, as seconds of the wall clock."""
    from datetime import date

    day, _, time = text.partition("/")
    new_year = date(year, 1, 1).toordinal() - _EPOCH
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day[0] == "M":
        month, week, weekday = map(int, day[1:].split("."))
        first = date(year, month, 1).toordinal() - _EPOCH
        last = (date(year, 12, 31) if month == 12 else date(year, month + 1, 1)).toordinal() - _EPOCH - (month < 12)
        days = first + (weekday - (first + 4)) % 7 + 7 * (week - 1)  # 1970-01-01 was a Thursday
        days -= 7 * (days > last)
    elif day[0] == "J":
        days = new_year + int(day[1:]) - 1 + (is_leap and int(day[1:]) > 59)
    else:
        days = new_year + int(day)
    return days * _DAY + (_seconds(time) if time else 7200)
