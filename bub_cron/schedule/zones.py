"""Zones: which names there are, and the stretches of time in which an offset from UTC holds.

Kept true here: the stretches of a zone cover all time without a gap or an overlap, and are the same whatever is asked.
zoneinfo knows when an offset changes but doesn't tell: changes are searched block by block, and kept for all schedules.
"""

from __future__ import annotations

from bub_cron.errors import ScheduleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    Stretch = tuple[int, int, int, int]  # start, stop (excluded), offset, the offset just before start

MINUTE, HOUR, DAY = 60, 3600, 86_400  # seconds
FIRST, LAST = -62_135_510_400, 253_402_214_400  # year 1 and year 9999, a day inside what datetime can hold
REACH = 4 * HOUR  # how long a change matters: it is corrected for up to 3 h
MAX_NAME = 64  # characters
NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})  # files of the database that are no IANA zones
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/")
_BLOCK = 64 * DAY


class Zone:
    """A zone's wall clock: `local` tells what it shows at an instant."""

    __slots__ = ("_blocks", "_calm", "local")

    def __init__(self, name: str) -> None:
        from datetime import datetime
        from zoneinfo import ZoneInfo

        tz = ZoneInfo(name)
        self.local: Callable[[int], datetime] = lambda instant: datetime.fromtimestamp(instant, tz)
        self._blocks: dict[int, tuple[Stretch, ...]] = {}
        self._calm: tuple[int, int, int | None] = (0, 0, None)

    def stretches(self, begin: int, end: int) -> Iterator[Stretch]:
        """Yield the stretches that meet [begin, end], whole ones, ascending.

        They also end where blocks do, with both offsets the same, so that a far end costs nothing until it is reached.
        """
        for block in range(begin // _BLOCK, end // _BLOCK + 1):
            if block not in self._blocks:
                self._blocks[block] = tuple(self._cut(block))
            for stretch in self._blocks[block]:
                if begin < stretch[1] and stretch[0] <= end:
                    yield stretch

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

    def _cut(self, block: int) -> Iterator[Stretch]:
        """Cut a block where the offset changes.

        One sample a day: an offset that comes and goes between two would be overlooked, but the shortest-lived in the
        zone database held for 4 days (Africa/Freetown, 1939), since 1970 for 7.
        """
        start = block * _BLOCK
        before = offset = self._offset(start - 1)
        for low in range(start - 1, start + _BLOCK - 1, DAY):
            high = low + DAY
            while self._offset(high) != offset:
                change = self._change(offset, low, high)
                if start < change:
                    yield start, change, offset, before
                start, before, offset = change, offset, self._offset(change)
        yield start, (block + 1) * _BLOCK, offset, before

    def _change(self, offset: int, low: int, high: int) -> int:
        """The first instant in (low, high] without the offset that holds at `low`, and at `high` no more."""
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high

    def _offset(self, instant: int) -> int:
        offset = self.local(min(max(instant, FIRST), LAST)).utcoffset()
        return int(offset.total_seconds()) if offset else 0


_ZONES: dict[str, Zone] = {}


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
            _ZONES[name] = Zone(name)
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
