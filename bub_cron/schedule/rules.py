"""The kinds of schedule that count from a start: `every` with one, and `rrule`. The only module that imports dateutil.

Invariants:
- Days, weeks and rules count on the wall clock: each of their times is one of a fixed cron, under the same rules.
- A rule is followed for 250 years at least, and for 650 at most, so one that never fires is found out in a second.
"""

from __future__ import annotations

from bub_cron.schedule.kinds import Schedule, Wall, first_showing, local_seconds, parse_every
from bub_cron.schedule.zones import DAY, MINUTE, load_zone, require_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bub_cron.schedule.kinds import Every

HORIZON = 7_258_118_400  # 2200-01-01T00:00Z: what needs a search is searched up to here
_LAST_YEAR = 9999
_REACH_YEARS = 250
_CYCLE_YEARS = 400  # after which weekdays and leap years repeat
_CYCLE = 146_097 * DAY


def decoded(kind: str, words: Sequence[str]) -> Schedule:
    """Make the schedule of an encoded line's words. Raises ValueError, or ScheduleError for its zone."""
    what, start, zone = words
    if kind == "every":
        return EveryFrom(parse_every(int(what)), start, require_zone(zone))
    if kind == "days":
        return Days(int(what), start, require_zone(zone))
    return Rule(what, start, require_zone(zone))


def parse_every_from(every: Every, in_days: bool, start: str, zone: str) -> Schedule:
    """Make a schedule that counts an `every` from a start, as `parse_start` returns it; days count on the wall clock."""
    return Days(every.seconds // DAY, start, zone) if in_days else EveryFrom(every, start, zone)


class EveryFrom(Schedule):
    """A period of minutes or hours, counted from a local date and time on."""

    __slots__ = ("first", "seconds", "start")

    first: int  # an instant
    seconds: int
    start: str

    def __init__(self, every: Every, start: str, zone: str) -> None:
        first = first_showing(load_zone(zone), local_seconds(start))
        super().__init__(f"{every.encoded} {start} {zone}", zone, first=first, seconds=every.seconds, start=start)

    def between(self, after: int, until: int) -> Iterator[int]:
        passed = max(0, (after - self.first) // self.seconds + 1)
        return iter(range(self.first + passed * self.seconds, until + 1, self.seconds))

    def count(self, after: int, until: int) -> int:
        passed = max(0, (after - self.first) // self.seconds + 1)
        return len(range(self.first + passed * self.seconds, until + 1, self.seconds))


class Days(Wall):
    """Each so many days, counted from a local date and time on."""

    __slots__ = ("days", "local", "start")

    follows = False
    days: int
    local: int  # the start, as seconds of the wall clock
    start: str

    def __init__(self, days: int, start: str, zone: str) -> None:
        if not 1 <= days <= 366:
            raise ValueError("out of range")
        super().__init__(
            f"days {days} {start} {zone}", zone, kind="every", days=days, local=local_seconds(start), start=start
        )

    def _matches(self, begin: int, end: int) -> Iterator[int]:
        period = self.days * DAY
        passed = max(0, -((self.local - begin) // period))
        return iter(range(self.local + passed * period, end, period))


class Rule(Wall):
    """A rule of RFC 5545, from a local date and time on, which counts only if it matches."""

    __slots__ = ("ends", "last", "local", "start", "text", "times")

    follows = False
    ends: int  # the last instant that an UNTIL with Z allows
    last: int  # the last second of the wall clock that an UNTIL without Z allows
    local: int
    start: str
    text: str
    times: _Times

    def __init__(self, text: str, start: str, zone: str) -> None:
        parts = dict(part.split("=", 1) for part in text.split(";"))
        until, local = parts.pop("UNTIL", ""), local_seconds(start)
        limit = _until(until) if until else HORIZON
        super().__init__(
            f"rrule {text} {start} {zone}", zone, text=text, start=start, local=local, times=_Times(parts, local),
            ends=min(limit, HORIZON) if until.endswith("Z") else HORIZON, last=HORIZON if until.endswith("Z") else limit,
        )  # fmt: skip

    def between(self, after: int, until: int) -> Iterator[int]:
        return super().between(after, min(until, self.ends)) if after < self.ends else iter(())

    def count(self, after: int, until: int) -> int:
        return sum(1 for _ in self.between(after, until))

    def shown(self, begin: int, end: int) -> Iterator[int]:
        return super().shown(begin, min(end, self.ends + 1))  # as near as an instant comes to what a clock shows

    def _matches(self, begin: int, end: int) -> Iterator[int]:
        return iter(self.times.between(begin, min(end, self.last + 1)))


def _until(text: str) -> int:
    """Read an UNTIL as seconds, of the wall clock or since the epoch; a date alone includes its day."""
    day = f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    if len(text) == 8:
        return local_seconds(f"{day}T23:59") + MINUTE - 1
    return local_seconds(f"{day}T{text[9:11]}:{text[11:13]}") + int(text[13:15])


class _Times:
    """The times of a rule on the wall clock, in its seconds; those that were asked for are kept.

    dateutil looks for a next time up to the year 9999. So that this is near, the rule is laid whole cycles of the calendar
    later (BYEASTER, which has a cycle of its own, is not taken). And it counts from the start on: where it repeats by days
    or weeks without COUNT, a later start in step with the first one gives the same times.
    """

    __slots__ = ("_begin", "_found", "_local", "_more", "_parts")

    def __init__(self, parts: dict[str, str], local: int) -> None:
        self._parts = parts
        self._local = local
        self._begin: int | None = None
        self._found: list[int] = []
        self._more: Iterator[int] = iter(())

    def between(self, begin: int, end: int) -> list[int]:
        """Return the times in [begin, end)."""
        from bisect import bisect_left

        if self._begin is None or begin < self._begin:
            self._begin, self._found, self._more = begin, [], self._from(begin)
        while not self._found or self._found[-1] < end:
            local = next(self._more, None)
            if local is None:
                break
            self._found.append(local)
        return self._found[bisect_left(self._found, begin) : bisect_left(self._found, end)]

    def _from(self, begin: int) -> Iterator[int]:
        from datetime import datetime, timedelta

        from dateutil.rrule import rrulestr

        period = {"DAILY": DAY, "WEEKLY": 7 * DAY}.get(self._parts["FREQ"], 0) * int(self._parts.get("INTERVAL", "1"))
        steps = max(0, (begin - self._local) // period - 1) if period and "COUNT" not in self._parts else 0
        epoch = datetime(1970, 1, 1)
        start = epoch + timedelta(seconds=self._local + steps * period)
        cycles = (_LAST_YEAR - _REACH_YEARS - start.year) // _CYCLE_YEARS
        later = start.replace(year=start.year + cycles * _CYCLE_YEARS)
        rule = rrulestr(";".join(f"{name}={value}" for name, value in self._parts.items()), dtstart=later)
        return (int((found - epoch).total_seconds()) - cycles * _CYCLE for found in rule)
