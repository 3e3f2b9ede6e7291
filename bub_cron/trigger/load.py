"""Take changed reminders files into the ledger.

Invariants:
- It is all or nothing, in one transaction. A file with a fault keeps its own last good version in force; the others count.
- What is put in force is what is on disk at that moment, so of two ticks at once the slower never puts an older version
  back in force.
- An entry whose schedule is unchanged keeps its place in time, whatever else of it was edited, and whichever file it is
  moved to. An entry that is new, rescheduled or enabled again counts from its file's last save, but not from before the
  previous tick, and without a previous tick from now, so that no old time ever fires.
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

from bub_cron.errors import BubCronError, FileMissingError, FileUnreadableError, ScheduleError
from bub_cron.reminders import Reminder, ReminderFile, repeated_names
from bub_cron.reminders import read_files as read_files
from bub_cron.schedule import Schedule, decode, encode, fire_times, next_fire_time
from bub_cron.trigger.ledger import Ledger
from bub_cron.trigger.tick import signature

_READS = 5  # of files that change all the while
_GONE_SECONDS = 0.2  # some editors move a file aside before they write the new one


def take_in(ledger: Ledger, path: str, now: int) -> str | None:
    """Read the files and put them in force; return the reminders file to which the state directory belonged before.

    That is None unless it was another one. What is wrong with a file goes into the ledger, for each tick to tell.
    """
    for _ in range(_READS):
        before, files, missing = _read(path, known=set(ledger.files_of_reminders().values()))
        with ledger.transaction():
            if signature(path) != before:
                continue
            last_tick, _, former = ledger.tick_row()
            if missing is not None:
                ledger.set_files(before, [(_text(path), str(missing), missing.exit_status)])
                return None
            faulty = _put_in_force(ledger, files, last_tick, now)
            # One that could not be read is tried again each time: a changed mode may not change what is seen of it.
            again = any(isinstance(file.error, FileUnreadableError) for file in files)
            ledger.set_files("" if again else before, faulty, _text(path))
            return former if former is not None and _is_another(former, path) else None
    unreadable = FileUnreadableError(f"{path} is being written: it, or a drop-in, changed each time that it was read")
    with ledger.transaction():
        ledger.set_files("", [(_text(path), str(unreadable), unreadable.exit_status)])
    return None


def _read(path: str, known: set[str]) -> tuple[str, list[ReminderFile], FileMissingError | None]:
    """Return the files' signature from before they were read, and the files, or that there are none."""
    for last in (False, True):
        before = signature(path)
        try:
            files = read_files(path)
        except FileMissingError as error:
            return before, [], error
        there = {_text(file.path) for file in files}
        if last or known <= there:
            break
        time.sleep(_GONE_SECONDS)
    return before, files, None


def _text(path: str) -> str:
    """Return a path as text that a store takes; a path need not be UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def _is_another(former: str, path: str) -> bool:
    return former != _text(path) and os.path.realpath(former) != os.path.realpath(path)


class _Change(NamedTuple):
    """What is put in force: a reminder, its row, and whether it is new, rescheduled, or switched on or off."""

    reminder: Reminder
    row: tuple[str, str, str, int, int, str, int | None]
    since: int
    moved: bool


def _put_in_force(
    ledger: Ledger, files: list[ReminderFile], last_tick: int | None, now: int
) -> list[tuple[str, str, int]]:
    """Put the good files in force, each as a whole; return (path, faults, exit status) of the others."""
    known, file_of = ledger.reminders(), ledger.files_of_reminders()
    faulty: list[tuple[str, str, int]] = []
    places: dict[str, str] = {}  # of each name, so far
    changes: list[_Change] = []
    for file in files:
        error: BubCronError | None = file.error or repeated_names(file, places)
        if error is not None:
            faulty.append((_text(file.path), str(error), error.exit_status))
            older = {name for name, where in file_of.items() if _is_below(where, _text(file.path))} - places.keys()
            places |= dict.fromkeys(older, file.path)
            continue
        since = _since(file.path, last_tick, now)
        for reminder in file.reminders:
            places[reminder.name] = f"{file.path}:{reminder.line}"
            before = known.get(reminder.name)
            row = _row(reminder, before, since)
            is_moved = before is None or before[0] != row[1] or before[2] != row[3]
            if before != row[1:] or file_of[reminder.name] != _text(file.path):
                changes.append(_Change(reminder, row, since, is_moved))
    gone = known.keys() - places.keys()
    moved = {change.reminder.name: change for change in changes if change.moved}
    # What is gone was in a file that is gone, too, or was saved without it.
    saved = {_text(file.path): _since(file.path, last_tick, now) for file in files}
    for name in (moved.keys() | gone) & known.keys():
        until = moved[name].since if name in moved else saved.get(file_of[name], now)
        _record_until(ledger, name, known[name], until, now)
    ledger.mark_edited(_edited(ledger, {name: change.reminder for name, change in moved.items()}, gone))
    for change in moved.values():
        _record_past(ledger, change.reminder, change.since, now)
    for change in changes:
        ledger.put_reminders(_text(change.reminder.file), [change.row])
    ledger.drop_reminders(gone)
    return faulty


def _is_below(file: str, path: str) -> bool:
    """Tell whether a file is the one at `path`, or in the directory that is there."""
    return file == path or file.startswith(f"{path}/")


def _record_until(
    ledger: Ledger, name: str, row: tuple[str, str, int, int, str, int | None], until: int, now: int
) -> None:
    """Record what the old schedule of a reminder had between the previous tick and the file's save.

    They are edited away at once, but not without a row.
    """
    schedule, content, enabled, grace, _, next_at = row
    if enabled and next_at is not None and next_at <= until:
        try:
            past = fire_times(decode(schedule), next_at - 1, until)
        except ScheduleError:
            return  # its zone has gone; the ticks have said so, and the edit may be what fixes it
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


def _record_past(ledger: Ledger, reminder: Reminder, since: int, now: int) -> None:
    """Record the instants of a new or changed `at` entry that were past when its file was saved."""
    if reminder.enabled and reminder.schedule.kind == "at":
        past = fire_times(reminder.schedule, -1, since)
        content = json.dumps(reminder.content(), ensure_ascii=False)
        ledger.record(
            reminder.name,
            past,
            content=content,
            grace=reminder.grace,
            now=now,
            past="already past when the file was saved",
        )
