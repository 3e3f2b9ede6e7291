"""Record the fire times that have come, and put the cursor right where the clock has gone back.

Invariants:
- A fire time is recorded in the transaction that moves its reminder on past it, so that a tick which is killed has lost
  nothing, and the next one goes on with the reminders that are left.
- Of two ticks at once, one moves a reminder on: the other finds that it has moved.
- Nothing from before a reminder came into force is a fire time, whatever the clock does.
- Long downtime is counted, not walked through, and a tick's work on it is bounded, in rows and in CPU.
"""

import time

from bub_cron.errors import ScheduleError
from bub_cron.pauses import parts
from bub_cron.schedule import count_fire_times, decode, fire_times, latest_fire_times, next_fire_time
from bub_cron.schedule import zones as zones_
from bub_cron.trigger import firings, pausing
from bub_cron.trigger.ledger import REMINDERS
from bub_cron.trigger.telling import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Row
    from types import ModuleType

    from bub_cron.pauses import Pause, Pauses
    from bub_cron.schedule import Schedule
    from bub_cron.trigger.ledger import Ledger

ROWS_EACH = 1000  # fire times of one reminder, recorded at once, that get a row each
ROWS_ALL = 10_000  # of all reminders together; each has at least one
CPU_SECONDS = 8.0  # of the 10 that a tick may take
_CHUNK_SECONDS = 0.5  # of CPU, after which what is done is committed
_SHORT = 600  # seconds of downtime in which nobody can have many fire times
_NEAR = 12 * 3600  # seconds by which a clock may be behind before what it says of the past is taken for its own


class Backlog:
    """What a reminder has to record: its fire times in (after, now], `count` of them, None if nobody counted."""

    __slots__ = ("after", "count", "row", "schedule")

    def __init__(self, row: "Row", schedule: "Schedule", after: int) -> None:
        self.row = row
        self.schedule = schedule
        self.after = after
        self.count: int | None = None


def position(row: "Row", now: int, at_most: int | None = None) -> int:
    """Return the instant after which a reminder's fire times are still to be recorded at `now`, or `at_most` that.

    Nothing from before it came into force, or that has been recorded before the clock went back, is to be.
    """
    after = row["next_at"] - 1 if row["next_at"] is not None else now
    if at_most is not None:
        after = min(after, at_most)
    return max(after, _floor(row["since"], now), _floor(row["done_until"], now, 0))


def _floor(instant: int | None, now: int, reach: int = _NEAR) -> int:
    """Return an instant before which nothing counts, or 0 where the clock is so far behind it that it must be a wrong one."""
    return instant if instant is not None and now >= instant - reach else 0


def record_overdue(ledger: "Ledger", overdue: "list[Row]", now: int) -> list[Trouble]:
    """Record what is overdue, within the caller's transaction, which is committed on the way where there is much of it.

    What there is no time for is left to the next tick.
    """
    deadline = time.process_time() + CPU_SECONDS
    days = use_what_is_kept(ledger, overdue)
    backlogs, troubles = _backlogs(overdue, now)
    share = ROWS_EACH
    if now - overdue[0]["next_at"] > _SHORT:
        backlogs = _counted(backlogs, now, deadline - CPU_SECONDS / 2)
        share = _share([backlog.count or 0 for backlog in backlogs])
    pauses = pausing.read(ledger)
    chunk_ends = time.process_time() + _CHUNK_SECONDS
    for done, backlog in enumerate(backlogs, 1):
        _record(ledger, backlog, share, pauses, now)
        spent = time.process_time()
        if spent > deadline:
            backlogs = backlogs[:done]
            break
        if spent > chunk_ends:
            ledger.db.execute("COMMIT")
            ledger.db.execute("BEGIN IMMEDIATE")
            chunk_ends = spent + _CHUNK_SECONDS
    if days is not None:
        days.keep(ledger)
    if left := len(overdue) - len(troubles) - len(backlogs):
        text = f"{left:,} reminders have fire times from a long time without ticks that are not recorded yet: the next tick goes on"
        troubles.append(Trouble(0, text, key="downtime"))
    return troubles


def _has_calendars(row: "Row") -> bool:
    return bool(row["schedule"].startswith("limited "))


def use_what_is_kept(ledger: "Ledger", reminders: "list[Row]") -> "ModuleType | None":
    """Go by the zone data and the calendars' days that the ledger keeps; return the module that stores what is read of these.

    That is None where no reminder has a calendar: then nothing of it is loaded.
    """
    zones_.use(kept_zones(ledger))
    if not any(map(_has_calendars, reminders)):
        return None
    from bub_cron.trigger import days

    days.remember(ledger)
    return days


def kept_zones(ledger: "Ledger") -> dict[str, bytes]:
    """Return the zone data by which the ledger's fire times were computed."""
    return {row["name"]: row["data"] for row in ledger.db.execute("SELECT name, data FROM zones")}


def _backlogs(overdue: "Iterable[Row]", now: int) -> "tuple[list[Backlog], list[Trouble]]":
    backlogs, troubles = [], []
    for row in overdue:
        try:
            schedule = decode(row["schedule"])
            if _has_calendars(row):
                from bub_cron.trigger.days import require_known

                require_known(schedule, now)
            backlogs.append(Backlog(row, schedule, position(row, now)))
        except ScheduleError as error:  # of another version, or its zone or a calendar has gone; the others go on
            troubles.append(Trouble(error.exit_status, f"the reminder {row['name']} can't be scheduled: {error}"))
    return backlogs, troubles


def _counted(backlogs: list[Backlog], now: int, deadline: float) -> list[Backlog]:
    """Count the fire times of as many as there is time for, and return these."""
    for done, backlog in enumerate(backlogs):
        if done and time.process_time() > deadline:
            return backlogs[:done]
        backlog.count = count_fire_times(backlog.schedule, backlog.after, now)
    return backlogs


def _share(counts: list[int]) -> int:
    """Return how many rows each reminder may have, so that all together have no more than `ROWS_ALL`, if one each allows it."""
    left, share = ROWS_ALL, 0
    for done, count in enumerate(sorted(counts)):
        share = left // (len(counts) - done)
        if count > share:
            return max(1, min(ROWS_EACH, share))
        left -= count
    return ROWS_EACH


def _record(ledger: "Ledger", backlog: Backlog, share: int, pauses: "Pauses", now: int) -> None:
    row = backlog.row
    moved = ledger.db.execute(
        "UPDATE reminders SET next_at = ? WHERE name = ? AND next_at IS ?",
        (next_fire_time(backlog.schedule, now), row["name"], row["next_at"]),
    )
    if moved.rowcount:  # else another tick was quicker
        record_between(
            ledger, backlog.schedule, row, backlog.after, now, pauses=pauses, now=now, most=share, count=backlog.count
        )


def record_between(
    ledger: "Ledger",
    schedule: "Schedule",
    row: "Row",
    after: int,
    until: int,
    *,
    pauses: "Pauses",
    now: int,
    most: int = ROWS_EACH,
    count: int | None = None,
) -> None:
    """Record a reminder's fire times in (after, until]: the last `most` get a row each, what is older shares one.

    Where a pause begins or ends, the rows of either side are their own. `count` is how many there are, if that is known.
    """
    found = parts(pauses.of(row["name"], row["pause_until"]), after, until)
    for first, last, pause in reversed(found):
        known = count if len(found) == 1 else None
        most = max(1, most - _record_part(ledger, schedule, row, first, last, pause, now=now, most=most, count=known))


def _record_part(
    ledger: "Ledger",
    schedule: "Schedule",
    row: "Row",
    after: int,
    until: int,
    pause: "Pause | None",
    *,
    now: int,
    most: int,
    count: int | None,
) -> int:
    """Record the fire times in (after, until], which all are held back by a pause or all not; return how many have a row."""
    if count is None and until - after <= _SHORT:
        latest = list(fire_times(schedule, after, until))[-most:]
        count = len(latest)
    else:
        count = count_fire_times(schedule, after, until) if count is None else count
        latest = latest_fire_times(schedule, after, until, most)
    if count > len(latest):
        first = next_fire_time(schedule, after)
        last = latest_fire_times(schedule, after, latest[0] - 1, 1) if latest else []
        if first is not None and last:
            firings.record_crowd(
                ledger, row["name"], first, last[0], count - len(latest), content=row["content"], now=now, pause=pause
            )
    firings.record(ledger, row["name"], latest, content=row["content"], grace=row["grace"], now=now, pause=pause)
    return len(latest)


def turn_back(ledger: "Ledger", now: int) -> list[Trouble]:
    """Put the cursor back where the clock is behind the last tick, and return what to say about it.

    If a tick without ticks before it (a gap) covers `now`, and the time that ticks ran since that gap fits into what has
    passed since it began, the clock was ahead from then on: what it recorded is taken back, and all goes on from where
    the gap began. Else the clock may be behind for a moment, or was ahead from the beginning: then what has been recorded
    is not recorded again, what was recorded of times to come waits for them, and what was too late by the other clock and
    isn't by this one is due again.
    """
    with ledger.transaction():
        tick = ledger.tick_row()
        last, high = tick["last_tick"], tick["high"] or tick["last_tick"]
        if now // 60 >= last // 60:
            return []  # another tick was quicker
        gap = _gap_that_was_a_leap(ledger, last, now)
        if gap is not None:
            firings.take_back(ledger, after=gap["began"], recorded_from=gap["ended"])
            ledger.db.execute("DELETE FROM gaps WHERE ended > ?", (now,))
            ledger.set_last_tick(gap["began"], gap["began"])
        else:
            ledger.set_last_tick(now, high)
            firings.judge_anew(ledger, now)
        troubles = _reposition(ledger, last, now, None if gap is None else gap["began"])
    if last - now > 60:
        from bub_cron.wire import iso

        text = f"the clock is behind the last tick ({iso(last)}): counting on from {iso(now)}; no firing repeats"
        if gap is not None:
            text += (
                f"; what was recorded ahead of time since {iso(gap['began'])} is taken back, unless it was submitted"
            )
        troubles.append(Trouble(0, text))
    return troubles


def _gap_that_was_a_leap(ledger: "Ledger", last: int, now: int) -> "Row | None":
    gaps = ledger.db.execute("SELECT began, ended FROM gaps WHERE ended <= ? ORDER BY began DESC", (last,)).fetchall()
    later = 0  # seconds without ticks since then
    for gap in gaps:
        if gap["began"] <= now < gap["ended"]:
            ticked = last - gap["ended"] - later
            found: Row | None = gap if now - gap["began"] + 120 >= ticked else None
            return found
        later += gap["ended"] - gap["began"]
    return None


def _reposition(ledger: "Ledger", last: int, now: int, began: int | None) -> list[Trouble]:
    """Compute each reminder's next fire time anew: after `began`, where the clock was ahead since then, else after now."""
    reminders = list(map(ledger.sound_reminder, ledger.db.execute(f"{REMINDERS} WHERE enabled").fetchall()))
    days = use_what_is_kept(ledger, reminders)
    place = now if began is None else began
    troubles, following = [], []
    known: dict[tuple[str, int], int | None] = {}  # many share a schedule
    for row in reminders:
        since, done_until, next_at = row["since"], row["done_until"], row["next_at"]
        if began is None:
            recorded = last if next_at is None else min(last, next_at - 1)
            done_until = recorded if done_until is None else max(done_until, recorded)
        else:
            since = since and min(since, now)
            done_until = done_until and min(done_until, began)
        if next_at is None or next_at > place:
            after = max(place, _floor(since, now))
            try:
                if (row["schedule"], after) not in known:
                    known[row["schedule"], after] = next_fire_time(decode(row["schedule"]), after)
                next_at = known[row["schedule"], after]
            except ScheduleError as error:
                troubles.append(Trouble(error.exit_status, f"the reminder {row['name']} can't be scheduled: {error}"))
                continue
        following.append((since, next_at, done_until, row["name"]))
    if days is not None:
        days.keep(ledger)
    ledger.db.executemany("UPDATE reminders SET since = ?, next_at = ?, done_until = ? WHERE name = ?", following)
    return troubles
