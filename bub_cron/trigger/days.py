"""The days of countries and iCalendar files that the ledger keeps, so that no tick reads them again without need.

Invariants:
- What was read is stored in the transaction of those fire times that were computed with it.
- A source whose file can't be read any more keeps the days that it had.
"""

from contextlib import suppress

from bub_cron.errors import ScheduleError
from bub_cron.schedule import sources, sources_of
from bub_cron.schedule.sources import Kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bub_cron.schedule import Schedule
    from bub_cron.trigger.ledger import Ledger

_DAY = 86400


def kept_days(ledger: "Ledger") -> list[Kept]:
    """Return what the ledger keeps of each source."""
    kept = []
    for row in ledger.db.execute("SELECT source, ground, first, last, days FROM calendar_days"):
        # What no tick wrote is left out: the days are read again.
        with suppress(TypeError, ValueError, AttributeError):
            kept.append(Kept(*row))
    return kept


def remember(ledger: "Ledger") -> None:
    """Go by the days that the ledger keeps; reading what is in none of its rows can wait until it is asked for."""
    sources.remember(kept_days(ledger))


def keep(ledger: "Ledger") -> None:
    """Store what was read since `remember`."""
    for one in sources.learned():
        ledger.db.execute(
            "REPLACE INTO calendar_days (source, ground, first, last, days) VALUES (?, ?, ?, ?, ?)",
            (one.source, one.ground, one.first, one.last, one.days),
        )


def read_again(old: "Iterable[Kept]", used: set[str], now: int) -> set[str]:
    """Read the sources in use that aren't known, and return those of them that `old` knew: their ground has moved.

    Where that can't be done, the old days are known again: the file that names the source is at fault, and says so.
    """
    moved = set()
    before = {one.source: one for one in old}
    for source in sorted(used):
        known = sources.days_of(source)
        if known.ground:
            continue
        try:
            known.name_of(now // _DAY)
        except ScheduleError:
            if source in before:
                sources.know(before[source])
        else:
            moved |= {source} & before.keys()
    return moved


def require_known(schedule: "Schedule", now: int) -> None:
    """Raise ScheduleError unless something is known of each of a schedule's sources."""
    if schedule.encoded.startswith("limited "):
        for source in sources_of(schedule):
            sources.days_of(source).name_of(now // _DAY)


def drop_unused(ledger: "Ledger", used: set[str]) -> None:
    """Forget the sources that no reminder has any more."""
    rows = ledger.db.execute("SELECT source FROM calendar_days").fetchall()
    ledger.db.executemany(
        "DELETE FROM calendar_days WHERE source = ?", [(row[0],) for row in rows if row[0] not in used]
    )
