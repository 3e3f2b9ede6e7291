"""Calendars: which days they have, and what each of those is called. Days are counted from 1970-01-01.

Invariants:
- A calendar is the union of what it names, without the days of the calendars in its `except`.
- What is written of it (`plain`) says all of it. The days of a country or an iCalendar file are looked up in `sources`.
"""

from __future__ import annotations

from bub_cron.schedule.kinds import ALL_DAYS, ALL_MONTHS, Cron
from bub_cron.schedule.sources import days_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01


class Calendar:
    """`ranges` are pairs of days, both included; `weekdays` the bits of a cron's day of week; `sources` of `days_of`."""

    __slots__ = ("_cron", "excepted", "name", "ranges", "sources", "weekdays")

    def __init__(
        self,
        name: str,
        *,
        ranges: tuple[tuple[int, int], ...] = (),
        weekdays: int = 0,
        sources: tuple[str, ...] = (),
        excepted: tuple[Calendar, ...] = (),
    ) -> None:
        self.name = name
        self.ranges = ranges
        self.weekdays = weekdays
        self.sources = sources
        self.excepted = excepted
        self._cron = Cron(False, False, (1, 1, ALL_DAYS, ALL_MONTHS, weekdays), "UTC") if weekdays else None

    def has(self, day: int) -> bool:
        return self.name_of(day) is not None

    def name_of(self, day: int) -> str | None:
        """What a day is called, "" if it has no name; None if the calendar doesn't have it."""
        name = self._named(day)
        return None if name is None or any(calendar.has(day) for calendar in self.excepted) else name

    def why_not(self, day: int) -> str:
        """Say which of its own exceptions takes a day away that it would have; "" if none does."""
        if self._named(day) is not None:
            for calendar in self.excepted:
                if (name := calendar.name_of(day)) is not None:
                    return f"{calendar.name}{f': {name}' if name else ''}"
        return ""

    def _named(self, day: int) -> str | None:
        for source in self.sources:
            if (name := days_of(source).name_of(day)) is not None:
                return name
        if any(first <= day <= last for first, last in self.ranges):
            return ""
        if self._cron is not None and self._cron.matches_day(day):
            return ""
        return None

    def without_sources(self, *, least: bool = False) -> Calendar | None:
        """Return what is sure of it without a lookup: the most days that it may have, None for all days.

        With `least` the fewest days, None for no day.
        """
        if self.sources and not least:
            return None
        if least and not (self.ranges or self.weekdays):
            return None
        inner = [calendar.without_sources(least=not least) for calendar in self.excepted]
        if least and None in inner:
            return None
        return Calendar(
            self.name,
            ranges=self.ranges,
            weekdays=self.weekdays,
            excepted=tuple(one for one in inner if one is not None),
        )

    def earliest(self) -> int:
        """A day before which it surely has none, 0 if that isn't known."""
        return min(first for first, _ in self.ranges) if self.ranges and not (self.weekdays or self.sources) else 0

    def all(self) -> Iterator[Calendar]:
        """Yield it, and the calendars in its `except`, and in theirs."""
        yield self
        for calendar in self.excepted:
            yield from calendar.all()

    def plain(self) -> dict[str, Any]:
        """Return all that is written of it, as JSON has it."""
        parts: dict[str, Any] = {"name": self.name}
        if self.ranges:
            parts["dates"] = [list(pair) for pair in self.ranges]
        if self.weekdays:
            parts["weekdays"] = f"{self.weekdays:x}"
        if self.sources:
            parts["sources"] = list(self.sources)
        if self.excepted:
            parts["except"] = [calendar.plain() for calendar in self.excepted]
        return parts

    @classmethod
    def of_plain(cls, parts: Mapping[str, Any]) -> Calendar:
        """Make the calendar that `plain` wrote. Raises ValueError for anything else."""
        try:
            return cls(
                parts["name"],
                ranges=tuple((int(first), int(last)) for first, last in parts.get("dates", ())),
                weekdays=int(parts.get("weekdays", "0"), 16),
                sources=tuple(parts.get("sources", ())),
                excepted=tuple(map(cls.of_plain, parts.get("except", ()))),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a calendar of ours") from error


def day_of(text: str) -> int:
    """Read `2026-12-24` as a day."""
    from datetime import date

    return date.fromisoformat(text).toordinal() - _EPOCH
