"""The commands that look ahead: list, next.

Kept true here: what they say of the past is what the stores say; what they say of the future is what a tick will find.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, named, optional_name_argument, with_paths
from bub_cron.paths import Paths
from bub_cron.records import Record, last_records
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import describe, fire_times, next_fire_time
from bub_cron.wire import iso

FAR = 253402214400  # 9999-12-31, where calendars end
DEFAULT_COUNT = 10


@commands.command("list")
@with_paths
@json_option
def list_(paths: Paths, as_json: bool) -> None:
    """Show the reminders, when each fires next, and what became of the last one."""
    reminders = load(paths.file)
    last = last_records(paths)
    now = int(time.time())
    if as_json:
        for reminder in reminders:
            click.echo(terminal.json_line(_reminder_json(reminder, last.get(reminder.name), now)))
        return
    rows = [
        (
            reminder.name,
            describe(reminder.schedule),
            f"{_zoned(moment, reminder):%a %Y-%m-%d %H:%M}"
            if (moment := next_of(reminder, now))
            else "-"
            if reminder.enabled
            else "disabled",
            reminder.to,
            terminal.outcome(last[reminder.name].outcome) if reminder.name in last else "-",
        )
        for reminder in reminders
    ]
    terminal.table(("reminder", "schedule", "next", "to", "last"), rows, elastic=("reminder", "schedule", "to"))


def _reminder_json(reminder: Reminder, last: Record | None, now: int) -> dict[str, Any]:
    moment = next_of(reminder, now)
    return {
        "reminder": reminder.name,
        "enabled": reminder.enabled,
        "schedule": reminder.schedule_text,
        "timezone": reminder.schedule.zone,
        "means": describe(reminder.schedule),
        "kind": reminder.kind,
        "to": reminder.to,
        "next": None if moment is None else iso(moment),
        "last": None if last is None else {"fire_time": last.fire_time, "outcome": last.outcome, "error": last.error},
    }


@commands.command("next")
@optional_name_argument
@click.option(
    "-n", "count", type=click.IntRange(min=1), help=f"At most so many (default {DEFAULT_COUNT}; all with --until)."
)
@click.option("--after", metavar="ISO", help="Fire times after this instant (default: now).")
@click.option("--until", metavar="ISO", help="... and not after this one.")
@with_paths
@json_option
def next_(
    paths: Paths, name: str | None, count: int | None, after: str | None, until: str | None, as_json: bool
) -> None:
    """Show the fire times to come, of one reminder or of all."""
    reminders = load(paths.file)
    chosen = reminders if name is None else [named(reminders, name)]
    now = int(time.time())
    begin = now if after is None else instant_of(after)
    end = FAR if until is None else instant_of(until)
    most = count or (DEFAULT_COUNT if until is None else None)
    moments = islice(_upcoming(chosen, begin, end), most)
    if as_json:
        for moment, reminder in moments:
            local = _zoned(moment, reminder).isoformat()
            click.echo(terminal.json_line({"reminder": reminder.name, "fire_time": iso(moment), "local": local}))
        return
    shown = [
        (local_fire_time(moment, reminder), _here(moment, reminder), moment, reminder) for moment, reminder in moments
    ]
    if not shown:
        off = ", ".join(reminder.name for reminder in chosen if not reminder.enabled)
        click.echo(f"nothing is to fire{f'; disabled: {off}' if off else ''}", err=True)
        return
    # Where the machine's clock shows the same as each reminder's, one column says it all.
    differ = any(here for _, here, *_ in shown)
    rows = [
        [when, *([here] if differ else []), _away(moment - now), reminder.name, reminder.to]
        for when, here, moment, reminder in shown
    ]
    columns = ["when", *(["here"] if differ else []), "in", "reminder", "to"]
    terminal.table(columns, rows, elastic=("reminder", "to"))


def _upcoming(reminders: list[Reminder], after: int, until: int) -> Iterator[tuple[int, Reminder]]:
    def one(reminder: Reminder) -> Iterator[tuple[int, Reminder]]:
        return ((moment, reminder) for moment in fire_times(reminder.schedule, after, until))

    enabled = [reminder for reminder in reminders if reminder.enabled]
    return heapq.merge(*map(one, enabled), key=lambda pair: pair[0])


def instant_of(text: str) -> int:
    """Read an ISO 8601 instant; one without an offset is the machine's local time."""
    try:
        return int(datetime.fromisoformat(text).timestamp() // 1)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{text!r} is not an instant; write it like 2026-12-01T07:30:00Z") from error


def next_of(reminder: Reminder, now: int) -> int | None:
    return next_fire_time(reminder.schedule, now) if reminder.enabled else None


def _zoned(moment: int, reminder: Reminder) -> datetime:
    return datetime.fromtimestamp(moment, ZoneInfo(reminder.timezone))


def local_fire_time(moment: int, reminder: Reminder) -> str:
    return f"{_zoned(moment, reminder):%a %Y-%m-%d %H:%M} {reminder.timezone}"


def _here(moment: int, reminder: Reminder) -> str:
    """Return what the machine's clock shows then: "" if the same as the reminder's, without the date if that is."""
    theirs, here = f"{_zoned(moment, reminder):%Y-%m-%d %H:%M}", terminal.local_time(moment)
    return "" if here == theirs else here[11:] if here[:10] == theirs[:10] else here


def _away(seconds: int) -> str:
    return terminal.span(seconds) if seconds >= 0 else f"{terminal.span(-seconds)} ago"
