"""What bounds a schedule of any kind: `start`, `until`, `times`, and the calendars of `only` and `except`.

Invariants:
- A fire time belongs to the day that the wall clock of the reminder's zone shows at it.
- `times` counts from `start`, whatever is asked for, so a limited schedule's fire times are one fixed set, too.
- Nothing with calendars fires after the year 2199: what names no day at all is found out in a second.
"""

from __future__ import annotations

from bub_cron.errors import ScheduleError
from bub_cron.schedule.kinds import Schedule, decode, first_showing, last_showing, local_seconds
from bub_cron.schedule.rules import HORIZON
from bub_cron.schedule.zones import DAY, FIRST, LAST, MINUTE, load_zone, require_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bub_cron.schedule.calendars import Calendar

MAX_TIMES = 10_000
_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01
_NONE = "-"


class LeftOut:
    """A fire time that the calendars took away: when, and why."""

    __slots__ = ("instant", "why")

    def __init__(self, instant: int, why: str) -> None:
        self.instant = instant
        self.why = why


class Days:
    """Which days the calendars of `only` and `except` leave."""

    __slots__ = ("_known", "excepted", "only")

    def __init__(self, only: tuple[Calendar, ...], excepted: tuple[Calendar, ...]) -> None:
        self.only = only
        self.excepted = excepted
        self._known: dict[int, bool] = {}

    def allow(self, day: int) -> bool:
        known = self._known.get(day)
        if known is None:
            known = self._known[day] = not any(calendar.has(day) for calendar in self.excepted) and (
                not self.only or any(calendar.has(day) for calendar in self.only)
            )
        return known

    def why_not(self, day: int) -> str:
        """Say which calendar leaves a day out, and by which holiday; "" if none does."""
        for calendar in self.excepted:
            if (name := calendar.name_of(day)) is not None:
                return f"{calendar.name}{f': {name}' if name else ''}"
        if not self.only or any(calendar.has(day) for calendar in self.only):
            return ""
        reasons = filter(None, (calendar.why_not(day) for calendar in self.only))
        return next(reasons, None) or f"not in {' or '.join(calendar.name for calendar in self.only)}"

    def next_allowed(self, day: int, last: int) -> int | None:
        """The first day from `day` to `last` that they leave."""
        while day <= last:
            if self.allow(day):
                return day
            day += 1
        return None


class Limited(Schedule):
    """Another schedule, `base`, within limits. Its own zone tells the days, for an `every` has none."""

    __slots__ = ("_counted", "base", "days", "start", "times", "until")

    _counted: list[int]
    base: Schedule
    days: Days | None
    start: str | None
    times: int | None
    until: str | None

    def __init__(
        self,
        base: Schedule,
        zone: str,
        *,
        start: str | None = None,
        until: str | None = None,
        times: int | None = None,
        only: tuple[Calendar, ...] = (),
        excepted: tuple[Calendar, ...] = (),
    ) -> None:
        words = [start, until, None if times is None else str(times), _written(only), _written(excepted)]
        encoded = " ".join(["limited", zone, *(word or _NONE for word in words), base.encoded])
        days = Days(only, excepted) if only or excepted else None
        super().__init__(
            encoded, zone, kind=base.kind, base=base, start=start, until=until, times=times, days=days, _counted=[]
        )

    def between(self, after: int, until: int) -> Iterator[int]:
        after, until = self._bounds(after, until)
        if after >= until:
            return iter(())
        if self.times is None:
            return self._within(after, until)
        return iter([instant for instant in self._all() if after < instant <= until])

    def count(self, after: int, until: int) -> int:
        if self.times is not None:
            return super().count(after, until)
        after, until = self._bounds(after, until)
        if after >= until:
            return 0
        if self.days is None:
            return self.base.count(after, until)
        found = 0
        for start, stop, offset, _ in load_zone(self.zone).stretches(after + 1, until):
            begin, end = max(start, after + 1), min(stop, until + 1)
            for day in range((begin + offset) // DAY, (end - 1 + offset) // DAY + 1):
                if self.days.allow(day):
                    low, high = max(begin, day * DAY - offset), min(end, (day + 1) * DAY - offset)
                    found += self.base.count(low - 1, high - 1)
        return found

    def left_out(self, after: int, until: int) -> Iterator[LeftOut]:
        """Yield the fire times in (after, until] that the calendars took away."""
        after, until = self._bounds(after, until)
        if self.days is None or after >= until:
            return
        if self.times is not None and len(self._all()) == self.times:
            until = min(until, self._all()[-1])
        local = load_zone(self.zone).local
        for instant in self.base.between(after, until):
            if why := self.days.why_not(local(instant).toordinal() - _EPOCH):
                yield LeftOut(instant, why)

    def _bounds(self, after: int, until: int) -> tuple[int, int]:
        zone = load_zone(self.zone)
        if self.start is not None:
            after = max(after, first_showing(zone, local_seconds(self.start)) - 1)
        if self.until is not None:
            until = min(until, last_showing(zone, _last_minute(self.until) + MINUTE - 1))
        return after, until if self.days is None else min(until, HORIZON)

    def _all(self) -> list[int]:
        """All fire times of a schedule with `times`."""
        if not self._counted:
            from itertools import islice

            after, until = self._bounds(FIRST, LAST)
            if after < until:
                self._counted.extend(islice(self._within(after, until), self.times))
        return self._counted

    def _within(self, after: int, until: int) -> Iterator[int]:
        if self.days is None:
            yield from self.base.between(after, until)
            return
        for start, stop, offset, _ in load_zone(self.zone).stretches(after + 1, until):
            at, end = max(start, after + 1), min(stop, until + 1)
            while at < end:
                instant = next(self.base.between(at - 1, end - 1), None)
                if instant is None:
                    break
                day = (instant + offset) // DAY
                allowed = self.days.next_allowed(day, (end - 1 + offset) // DAY)
                if allowed is None:
                    break
                if allowed > day:
                    at = allowed * DAY - offset
                    continue
                at = min((day + 1) * DAY - offset, end)
                yield from self.base.between(instant - 1, at - 1)


def _last_minute(until: str) -> int:
    """The last minute that an `until` allows, as the wall clock's seconds."""
    return local_seconds(until if "T" in until else f"{until}T23:59")


def limit(
    base: Schedule,
    zone: str,
    *,
    start: str | None,
    until: str | None,
    times: int | None,
    only: tuple[Calendar, ...],
    excepted: tuple[Calendar, ...],
) -> Schedule:
    """Return `base` within limits; texts are as `parse_start` and `parse_until` return them.

    Raises ScheduleError if it then never fires. Days that must be looked up first, of countries and in files, count as what
    lets it fire.
    """
    if times is not None and start is None:
        raise ScheduleError("times counts from a start; write start: as well")
    limited = Limited(base, zone, start=start, until=until, times=times, only=only, excepted=excepted)
    if start is None and until is None and limited.days is None:
        return base
    if start == getattr(base, "start", None) and until is None and times is None and limited.days is None:
        return base  # it counts from there by itself
    _require_fires(limited)
    return limited


def _require_fires(schedule: Limited) -> None:
    checked = schedule
    if schedule.days is not None:
        only = [calendar.without_sources() for calendar in schedule.days.only]
        excepted = [calendar.without_sources(least=True) for calendar in schedule.days.excepted]
        checked = Limited(
            schedule.base, schedule.zone, start=schedule.start, until=schedule.until,
            only=() if None in only else tuple(filter(None, only)), excepted=tuple(filter(None, excepted)),
        )  # fmt: skip
    # Nothing is searched before the first day that a calendar of dates alone has.
    first = 0
    if checked.days is not None and checked.days.only:
        first = max(0, min(calendar.earliest() for calendar in checked.days.only) * DAY - 2 * DAY)
    if next(checked.between(first, LAST), None) is None:
        raise ScheduleError(f"it never fires: {_why_never(schedule)}")


def _why_never(schedule: Limited) -> str:
    if schedule.start and schedule.until and _last_minute(schedule.until) < local_seconds(schedule.start):
        return "until is before start"
    if schedule.days is not None:
        return "only, except, start and until leave none of its fire times"
    return "start and until leave none of its fire times"


def unlimited(schedule: Schedule) -> Schedule:
    """Return a schedule without its limits. Where it counts from a start, it still does."""
    return schedule.base if isinstance(schedule, Limited) else schedule


def calendars_of(schedule: Schedule) -> Iterator[tuple[str, Calendar]]:
    """Yield the calendars of a schedule, each with the key that names it; also those in the `except` of others."""
    if not isinstance(schedule, Limited) or schedule.days is None:
        return
    for key, calendars in (("only", schedule.days.only), ("except", schedule.days.excepted)):
        for calendar in calendars:
            for one in calendar.all():
                yield key, one


def sources_of(schedule: Schedule) -> set[str]:
    """Return the sources, of `sources`, whose days decide on a schedule's."""
    return {source for _, calendar in calendars_of(schedule) for source in calendar.sources}


def left_out(schedule: Schedule, after: int, until: int) -> Iterator[LeftOut]:
    """Yield the fire times in (after, until] that a schedule's calendars took away; `times` counts what is left."""
    return schedule.left_out(after, until) if isinstance(schedule, Limited) else iter(())


def _written(calendars: tuple[Calendar, ...]) -> str:
    if not calendars:
        return ""
    import json

    # A blank can only stand inside of a text, where JSON has an escape for it.
    return json.dumps([calendar.plain() for calendar in calendars], separators=(",", ":")).replace(" ", "\\u0020")


def _read(word: str) -> tuple[Calendar, ...]:
    if word == _NONE:
        return ()
    import json

    from bub_cron.schedule.calendars import Calendar

    return tuple(Calendar.of_plain(plain) for plain in json.loads(word))


def decoded(_: str, words: Sequence[str]) -> Limited:
    """Make the schedule of an encoded line's words. Raises ValueError, or ScheduleError for its zone."""
    zone, start, until, times, only, excepted, *base = words
    if start != _NONE:
        local_seconds(start)
    if until != _NONE:
        _last_minute(until)
    if base[:1] == ["limited"] or (times != _NONE and not 1 <= int(times) <= MAX_TIMES):
        raise ValueError("limits within limits, or out of range")
    return Limited(
        decode(" ".join(base)), require_zone(zone), start=_word(start), until=_word(until),
        times=None if times == _NONE else int(times), only=_read(only), excepted=_read(excepted),
    )  # fmt: skip


def _word(word: str) -> str | None:
    return None if word == _NONE else word
