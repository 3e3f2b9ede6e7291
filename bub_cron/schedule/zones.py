"""Zones: which names there are, and the stretches of time in which an offset from UTC holds.

Invariants:
- The stretches of a zone cover all time without a gap or an overlap, and are the same whatever is asked.
- A zone's rules are those of its data, and its data is known: a caller may give the data that it has kept (`use`), or
  another zone to stand for a name (`standing_for`). zoneinfo's own cache is not used.
"""

from __future__ import annotations

from bub_cron.errors import ScheduleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    Stretch = tuple[int, int, int, int]  # start, stop (excluded), offset, the offset just before start

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds
FIRST, LAST = -62_135_510_400, 253_402_214_400  # year 1 and year 9999, a day inside what datetime can hold
REACH = 4 * HOUR  # how long a change matters: it is corrected for up to 3 h
MAX_NAME = 64  # characters
MAX_DATA = 1 << 20  # bytes of a zone: many times what any has
NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})  # files of the database that are no IANA zones
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/")


class Zone:
    """A zone's wall clock, by its data."""

    __slots__ = ("_calm", "_stretches", "_year", "_zone", "data")

    def __init__(self, data: bytes) -> None:
        from bub_cron.schedule.tzif import Changes

        self.data = data
        self._zone = Changes(data)
        self._calm: tuple[int, int, int | None] = (0, 0, None)
        self._stretches: list[Stretch] = []
        before = offset = self._zone.first
        start = FIRST - DAY
        for stop, following in zip(self._zone.instants, self._zone.offsets, strict=True):
            self._stretches.append((start, stop, offset, before))
            start, before, offset = stop, offset, following
        # The last one is open, until the rule has a change in a later year.
        self._stretches.append((start, _NEVER, offset, before))
        self._year = max(_year_of(start), 1)

    def stretches(self, begin: int, end: int) -> Iterator[Stretch]:
        """Yield the stretches that meet [begin, end], whole ones, ascending.

        A far end costs nothing until it is reached.
        """
        from bisect import bisect_right

        number = max(0, bisect_right(self._stretches, begin, key=_start) - 1)
        while True:
            if number + 1 == len(self._stretches):
                self._go_on(max(begin, self._stretches[-1][0]) + 366 * DAY)
            stretch = self._stretches[number]
            if stretch[0] > end:
                return
            if begin < stretch[1]:
                yield stretch
            if stretch[1] == _NEVER:
                return
            number += 1

    def _go_on(self, until: int) -> None:
        """Let the rule add its changes, at least up to an instant."""
        if self._zone.rule is None:
            return
        last = min(_year_of(min(until, LAST)) + 1, 9999)
        while self._year <= last:
            for instant, offset in self._zone.of_year(self._year):
                start, _, former, before = self._stretches[-1]
                if instant > start and offset != former:
                    self._stretches[-1:] = [(start, instant, former, before), (instant, _NEVER, offset, former)]
            self._year += 1

    def calm(self, after: int, until: int) -> int | None:
        """The offset in (after, until], or None if a change in it, or in its reach before it, may matter."""
        low, high, known = self._calm
        if low <= after and until < high:
            return known
        near = list(self.stretches(after - REACH, until))
        _, stop, offset, _ = near[-1]
        changed = any(start > after - REACH and new != old for start, _, new, old in near)
        self._calm = (after, until + 1, None) if changed else (after, stop, offset)
        return self._calm[2]

    def offset(self, instant: int) -> int:
        """The offset from UTC, in seconds, that holds at an instant."""
        instant = min(max(instant, FIRST), LAST)
        return next(self.stretches(instant, instant))[2]

    def local(self, instant: int) -> datetime:
        """What the wall clock shows at an instant, without a zone of its own."""
        from datetime import datetime, timedelta

        return datetime(1970, 1, 1) + timedelta(seconds=instant + self.offset(instant))


_NEVER = LAST + 400 * DAY  # beyond whatever is asked for


def _start(stretch: Stretch) -> int:
    return stretch[0]


def _year_of(instant: int) -> int:
    """The year of an instant in UTC; near the first one, it may be one less."""
    return 1970 + instant // 31_556_952  # the mean length of a year, in seconds


class ChangedZone(Zone):
    """A zone whose rules change at an instant, as where the machine is moved, or new zone data is installed."""

    __slots__ = ("_new", "_old", "at")

    def __init__(self, old: Zone, new: Zone, at: int) -> None:
        self._old, self._new, self.at = old, new, at
        self._calm = (0, 0, None)
        self.data = new.data

    def stretches(self, begin: int, end: int) -> Iterator[Stretch]:
        for start, stop, offset, before in self._old.stretches(min(begin, self.at - 1), min(end, self.at - 1)):
            if begin < min(stop, self.at) and start <= end:
                yield start, min(stop, self.at), offset, before
        if end < self.at:
            return
        offset = self._old.offset(self.at - 1)
        for start, stop, new, before in self._new.stretches(max(begin, self.at), end):
            if start <= self.at:
                yield self.at, stop, new, offset
            else:
                yield start, stop, new, before


_ZONES: dict[str, Zone] = {}
_kept: Mapping[str, bytes] = {}


def use(data: Mapping[str, bytes]) -> None:
    """From now on load zones from this data, by their names, and only what isn't there from the machine's database."""
    global _kept
    _ZONES.clear()
    _kept = data


class standing_for:
    """Within it, a zone of the caller's stands for a name."""

    __slots__ = ("_before", "_name", "_zone")

    def __init__(self, name: str, zone: Zone) -> None:
        self._name, self._zone = name, zone

    def __enter__(self) -> None:
        self._before = _ZONES.get(self._name)
        _ZONES[self._name] = self._zone

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del _ZONES[self._name]
        else:
            _ZONES[self._name] = self._before


def places(name: str) -> list[str]:
    """Return the paths where a zone's data may be, in the order in which they are looked at, up to the one that is there."""
    import os
    from zoneinfo import TZPATH

    looked = []
    for directory in TZPATH:
        looked.append(os.path.join(directory, name))
        if os.path.isfile(looked[-1]):
            return looked
    try:
        import tzdata  # type: ignore[import-untyped]
    except ImportError:
        return looked
    return [*looked, os.path.join(os.path.dirname(tzdata.__file__), "zoneinfo", name)]


def read(name: str) -> bytes:
    """Return a zone's data as it is on disk; OSError if there is none."""
    with open(places(name)[-1], "rb") as file:
        return file.read(MAX_DATA)


def load_zone(name: str) -> Zone:
    """Load a zone, once. Raises ScheduleError, with the nearest names, if there is none."""
    if not isinstance(name, str):
        raise ScheduleError(f"a time zone is a name such as Europe/Berlin, not a value of type {type(name).__name__}")
    if name not in _ZONES:
        fits = 0 < len(name) <= MAX_NAME and _CHARACTERS.issuperset(name) and "" not in name.split("/")
        # right/ counts leap seconds, which the Unix epoch doesn't; posix/ is a second name for everything.
        if not fits or name in NO_ZONES or name.startswith(("right/", "posix/")):
            raise _unknown(name)
        try:
            _ZONES[name] = Zone(_kept[name] if name in _kept else read(name))
        except Exception as fault:  # not found, a directory, no permission, not a zone file: each has a type of its own
            raise _unknown(name) from fault
    return _ZONES[name]


def _unknown(name: str) -> ScheduleError:
    from bub_cron.schedule.hints import zone_hint

    return ScheduleError(f"{name[:40]!r} is not a time zone known here; {zone_hint(name, NO_ZONES)}")


def require_zone(name: str) -> str:
    """Return `name` if it is the IANA name of a zone known here; else raise ScheduleError with the nearest ones."""
    load_zone(name)
    return name
