"""Take a changed reminders file into the ledger.

Kept true here: it is all or nothing, in one transaction; an entry whose schedule is unchanged keeps its place in time,
whatever else of it was edited; an entry that is new, rescheduled or enabled again counts from the file's last save, but
not from before the previous tick, and without a previous tick from now, so that no old time ever fires.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from bub_cron.errors import ScheduleError
from bub_cron.reminders import Reminder
from bub_cron.reminders import load as load_file
from bub_cron.schedule import Schedule, decode, encode, fire_times, next_fire_time
from bub_cron.trigger.ledger import Ledger


def take_in(ledger: Ledger, path: str, signature: str, last_tick: int | None, now: int) -> None:
    """Read the file at `path` and put it in force.

    `signature` is the file's from before it was read: if it changes meanwhile, the next tick reads it again. Raises
    `FileFaultsError`, `FileUnreadableError` or `FileMissingError`, and then changes nothing.
    """
    reminders = load_file(path)
    since = _since(path, last_tick, now)
    with ledger.transaction():
        known = ledger.reminders()
        rows, moved = [], {}
        for reminder in reminders:
            before = known.get(reminder.name)
            row = _row(reminder, before, since)
            if before is None or before[0] != row[1] or before[2] != row[3]:
                moved[reminder.name] = reminder
            if before != row[1:]:
                rows.append(row)
        gone = known.keys() - {reminder.name for reminder in reminders}
        _record_until_save(ledger, known, moved.keys() | gone, since, now)
        ledger.mark_edited(_edited(ledger, moved, gone))
        _record_past(ledger, moved.values(), since, now)
        ledger.put_reminders(rows)
        ledger.drop_reminders(gone)
        ledger.set_file(signature, None, None)


def _record_until_save(
    ledger: Ledger, known: dict[str, tuple[str, str, int, int, str, int | None]], names: set[str], since: int, now: int
) -> None:
    """Record what the old schedules of these reminders had between the previous tick and the file's save.

    They are edited away at once, but not without a row.
    """
    for name in names & known.keys():
        schedule, content, enabled, grace, _, next_at = known[name]
        if enabled and next_at is not None and next_at <= since:
            try:
                past = fire_times(decode(schedule), next_at - 1, since)
            except ScheduleError:
                continue  # its zone has gone; the ticks have said so, and the edit may be what mends it
            ledger.record(name, past, content=content, grace=grace, now=now)


def _since(path: str, last_tick: int | None, now: int) -> int:
    if last_tick is None:
        return now
    try:
        saved = int(os.stat(path).st_mtime)
    except OSError:
        saved = now  # it has gone since it was read
    return max(min(saved, now), min(last_tick, now))


def _row(
    reminder: Reminder, before: tuple[str, str, int, int, str, int | None] | None, since: int
) -> tuple[str, str, str, int, int, str, int | None]:
    schedule = encode(reminder.schedule)
    if not reminder.enabled:
        next_at = None
    elif before is not None and before[0] == schedule and before[2]:
        next_at = before[5]
    else:
        next_at = next_fire_time(reminder.schedule, since)
    content = json.dumps(reminder.content(), ensure_ascii=False)
    return (reminder.name, schedule, content, int(reminder.enabled), reminder.grace, reminder.catch_up, next_at)


def _edited(ledger: Ledger, moved: dict[str, Reminder], gone: set[str]) -> list[str]:
    """Return the due firings whose reminder is gone, disabled or rescheduled.

    Of an `at` list each instant was written by its own: what the new list still holds is not rescheduled.
    """
    return [
        firing.id
        for firing in ledger.due()
        if firing.reminder in gone
        or (firing.reminder in moved and not _still(moved[firing.reminder], firing.fire_time))
    ]


def _still(reminder: Reminder, fire_time: int) -> bool:
    schedule: Schedule = reminder.schedule
    return reminder.enabled and schedule.kind == "at" and fire_time in fire_times(schedule, fire_time - 1, fire_time)


def _record_past(ledger: Ledger, reminders: Iterable[Reminder], since: int, now: int) -> None:
    """Record the instants of new or changed `at` entries that were past when the file was saved."""
    for reminder in reminders:
        if reminder.enabled and reminder.schedule.kind == "at":
            past = fire_times(reminder.schedule, -1, since)
            content = json.dumps(reminder.content(), ensure_ascii=False)
            why = "already past when the file was saved"
            ledger.record(reminder.name, past, content=content, grace=reminder.grace, now=now, past=why)
