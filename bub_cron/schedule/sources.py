"""The days of countries and of iCalendar files, with their names. The only module that imports holidays and icalendar.

Reading them takes a second, so a tick gets what an earlier one has read: `remember` it, ask for days, store what was
`learned`. Days are counted from 1970-01-01; a source is a text such as `country DE BE` or `ics /home/me/school.ics`.

Invariants:
- A day that isn't known yet is read when it is asked for; so what comes out never depends on what was remembered.
- What was read is known by its ground: the file that it stands on (of the library, or the calendar), as it is on disk.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from bub_cron.errors import ScheduleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01
_YEARS_BEFORE, _YEARS_AFTER = 1, 4  # of the one that is asked for, which are read with it
_SOME_YEAR = 2000
_MAX_BYTES = 8 * 1024 * 1024


class Kept:
    """What is known of a source: its days from `first` to `last`, each by its name. `days` has a line a day, for a store."""

    __slots__ = ("_names", "days", "first", "ground", "last", "source")

    def __init__(self, source: str, ground: str, first: int, last: int, days: str) -> None:
        self.source = source
        self.ground = ground
        self.first = first
        self.last = last
        self.days = days
        self._names: dict[int, str] = {}
        for line in days.splitlines():
            day, _, name = line.partition(" ")
            self._names[int(day)] = name

    @property
    def path(self) -> str:
        """The file that the days were read from."""
        return self.ground.partition("\n")[0]

    def name_of(self, day: int) -> str | None:
        """What a day is called, None if it isn't one of the days; one beyond the span is read first.

        Raises ScheduleError if nothing has been read yet, and can't be now.
        """
        if not self.first <= day <= self.last:
            try:
                self._extend(day)
            except ScheduleError:
                if not self.ground:
                    raise
                return None  # what was read stays in force; the tick says that the file can't be read
        return self._names.get(day)

    def _extend(self, day: int) -> None:
        from datetime import date

        year = date.fromordinal(day + _EPOCH).year
        first, last = year - _YEARS_BEFORE, year + _YEARS_AFTER
        if self.ground:
            first = min(first, date.fromordinal(self.first + _EPOCH).year)
            last = max(last, date.fromordinal(self.last + _EPOCH).year)
        wider = read(self.source, first, last)
        for name in ("ground", "first", "last", "days", "_names"):
            setattr(self, name, getattr(wider, name))
        _learned.add(self.source)


_known: dict[str, Kept] = {}
_learned: set[str] = set()


def remember(kept: Iterable[Kept]) -> None:
    """Take what a store has, in place of what this process knows."""
    _known.clear()
    _learned.clear()
    _known.update({one.source: one for one in kept})


@contextmanager
def standing(kept: Iterable[Kept]) -> Iterator[None]:
    """Go by these days of sources for a while, in place of what is known of them."""
    former = dict(_known)
    _known.update({one.source: one for one in kept})
    try:
        yield
    finally:
        _known.clear()
        _known.update(former)


def know(kept: Kept) -> None:
    """Go by these days of a source, though its file can't be read any more."""
    _known[kept.source] = kept


def paths() -> set[str]:
    """Return the files that the sources which were asked for stand on, also those that couldn't be read."""
    files = {one.path or source.removeprefix("ics ") for source, one in _known.items()}
    return {path for path in files if os.path.isabs(path)}


def learned() -> list[Kept]:
    """Return what was read since `remember`; the caller must store it."""
    return [_known[source] for source in sorted(_learned & _known.keys())]


def days_of(source: str) -> Kept:
    """Return what is known of a source. It is read if nothing is: raises ScheduleError if that can't be done."""
    if source not in _known:
        _known[source] = Kept(source, "", 0, -1, "")
    return _known[source]


def is_stale(kept: Kept) -> bool:
    """Whether the file that days were read from is another one by now. One look at the disk."""
    return kept.ground != _ground_of(kept.path)


def _ground_of(path: str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return f"{path}\ngone"
    return f"{path}\n{found.st_mtime_ns} {found.st_size} {found.st_ino}"


def read(source: str, first_year: int, last_year: int) -> Kept:
    """Read a source's days in these years, both included. Raises ScheduleError."""
    from datetime import date

    kind, _, rest = source.partition(" ")
    path = _library() if kind == "country" else rest
    ground = _ground_of(path)  # from before it is read: a change in between shows later
    read_days = _country_days if kind == "country" else _ics_days
    names = read_days(rest, first_year, last_year)
    first, last = date(first_year, 1, 1).toordinal() - _EPOCH, date(last_year, 12, 31).toordinal() - _EPOCH
    lines = [f"{day} {' '.join(names[day].split())}" for day in sorted(names) if first <= day <= last]
    return Kept(source, ground, first, last, "\n".join(lines))


# --- Countries


def country_source(country: str, subdivision: str | None) -> str:
    """Return the source of a country's days, of all its places or of one. Raises ScheduleError, with near names."""
    codes = _countries()
    if country not in codes:
        raise ScheduleError(f"{country[:40]!r} is not a country of the library holidays{_near(country, codes)}")
    if subdivision is None:
        return f"country {codes[country]}"
    from holidays import country_holidays

    known = country_holidays(codes[country])
    places = {place: place for place in known.subdivisions}
    places |= dict(getattr(known, "subdivisions_aliases", None) or {})
    if subdivision not in places:
        right = f"; it has {', '.join(known.subdivisions)}" if known.subdivisions else "; it has none"
        near = _near(subdivision, places) if known.subdivisions else ""
        raise ScheduleError(f"{subdivision[:40]!r} is not a subdivision of {country}{near or right}")
    return f"country {codes[country]} {places[subdivision]}"


def _library() -> str:
    from importlib.util import find_spec

    found = find_spec("holidays.version")
    if found is None or found.origin is None:
        raise ScheduleError("the library holidays is not installed")
    return found.origin


def _countries() -> dict[str, str]:
    """The two letters of each country, by all of its names."""
    from holidays.registry import COUNTRIES

    return {name: names[1] for key, names in COUNTRIES.items() for name in (*names[:3], key.replace("_", " ").title())}


def _near(word: str, known: dict[str, str]) -> str:
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    found = [by_lower[near] for near in get_close_matches(word.strip().lower(), by_lower, n=3, cutoff=0.6)]
    words = list(dict.fromkeys(known[name] if known[name] == name else f"{known[name]} ({name})" for name in found))
    return f"; did you mean {' or '.join(words)}?" if words else ""


def _country_days(rest: str, first_year: int, last_year: int) -> dict[int, str]:
    import warnings

    from holidays import country_holidays

    country, _, place = rest.partition(" ")
    try:
        with warnings.catch_warnings():
            # Of years that it has no data of. `check` tells of a calendar that has no day in the next year.
            warnings.simplefilter("ignore")
            found = country_holidays(country, subdiv=place or None, years=range(first_year, last_year + 1))
        return {day.toordinal() - _EPOCH: str(name) for day, name in found.items()}
    except (NotImplementedError, ValueError, KeyError) as error:
        raise ScheduleError(f"the library holidays can't tell the days of {rest}: {error}") from error


# --- iCalendar files


def require_readable(source: str) -> str:
    """Return a source if its days can be read. Raises ScheduleError."""
    if not days_of(source).ground:
        read(source, _SOME_YEAR, _SOME_YEAR)
    return source


def _ics_days(path: str, first_year: int, last_year: int) -> dict[int, str]:
    """The days of a file's all-day events, those of recurring ones included; what is cancelled is left out."""
    from datetime import date, datetime

    import icalendar
    import recurring_ical_events

    contents = _contents(path)
    names: dict[int, str] = {}
    try:
        for calendar in icalendar.Calendar.from_ical(contents, multiple=True):
            _require_bounded(path, calendar)
            for event in recurring_ical_events.of(calendar).between(date(first_year, 1, 1), date(last_year + 1, 1, 1)):
                start = event.start
                if isinstance(start, datetime) or str(event.get("STATUS", "")).upper() == "CANCELLED":
                    continue
                for day in range(start.toordinal(), max(event.end.toordinal(), start.toordinal() + 1)):
                    names.setdefault(day - _EPOCH, str(event.get("SUMMARY", "")))
    except ScheduleError:
        raise
    except Exception as error:  # whatever the libraries raise of a file that isn't sound: KeyError, ValueError, ...
        raise ScheduleError(f"{path} can't be read as iCalendar: {error}") from error
    return names


def _require_bounded(path: str, calendar: Any) -> None:
    """Refuse events that repeat more often than a day of theirs lasts: they would be gone through one by one."""
    for event in calendar.walk("VEVENT"):
        rules = event.get("RRULE", [])
        for rule in rules if isinstance(rules, list) else [rules]:
            if {str(word).upper() for word in rule.get("FREQ", [])} & {"SECONDLY", "MINUTELY", "HOURLY"}:
                raise ScheduleError(
                    f"{path} has an event that repeats more often than daily: {event.get('SUMMARY', '')}"
                )


def _contents(path: str) -> bytes:
    import stat

    from bub_cron.paths import others_write

    try:
        # Without O_NONBLOCK, opening a FIFO that nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ScheduleError(f"{path} is not a regular file")
            if others_write(found, file.fileno()):
                raise ScheduleError(f"{path} may be written by others, so it is ignored: chmod go-w {path}")
            contents = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ScheduleError(f"{path} can't be read: {reason}") from error
    if len(contents) > _MAX_BYTES:
        raise ScheduleError(f"{path} is over {_MAX_BYTES // 1024 // 1024} MiB")
    if not contents.lstrip(b"\xef\xbb\xbf \r\n").upper().startswith(b"BEGIN:VCALENDAR"):
        raise ScheduleError(f"{path} is no iCalendar file: it doesn't begin with BEGIN:VCALENDAR")
    if not contents.rstrip().upper().endswith(b"END:VCALENDAR"):
        raise ScheduleError(f"{path} is cut short: it doesn't end with END:VCALENDAR")
    return contents
