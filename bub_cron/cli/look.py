"""The commands that look ahead: list, next.

Invariants: what they say of the past is what the stores say; what they say of the future is what a tick will find.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import click

from bub_cron import records, terminal
from bub_cron.cli.base import commands, json_option, named, optional_name_argument, with_paths
from bub_cron.cli.unchanged import next_times
from bub_cron.cli.when import begin_of, end_of
from bub_cron.errors import ScheduleError, StoreError
from bub_cron.health.status import told_of_nobody
from bub_cron.paths import Paths
from bub_cron.pauses import Pause, Pauses, covering, in_force, next_running
from bub_cron.records import Record, last_records
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import (
    Schedule,
    cron_doubts,
    describe,
    fire_times,
    left_out,
    limit,
    machine_zone,
    next_fire_time,
    parse_cron,
    parse_rrule,
    parse_start,
    require_zone,
    zone_doubt,
)
from bub_cron.schedule.zones import LAST
from bub_cron.wire import iso

DEFAULT_COUNT = 10
_MINUTE = 60
_DAY = 86400
OFTEN = 4  # fire times in 24 h, from which on a reminder takes one line
_COUNTED = 1440


@commands.command("list")
@with_paths
@json_option
def list_(paths: Paths, as_json: bool) -> None:
    """Show the reminders: when each fires next, the latest outcome, where it goes, and its schedule.

    All times are in one zone, which the first line names; a schedule in another zone names its own. The reminders of
    drop-ins follow the name of their file.
    """
    reminders = load(paths.file)
    last = last_records(paths)
    now = int(time.time())
    pauses = records.pauses(paths)
    for pause in pauses.gone((reminder.name for reminder in reminders), now):
        click.echo(terminal.clean(told_of_nobody(pause)), err=True)
    if as_json:
        for reminder in reminders:
            click.echo(terminal.json_line(_reminder_json(reminder, last.get(reminder.name), pauses, now)))
        return
    clock, zone = screen_clock(reminders)
    known = next_times(paths)
    rows = [
        (
            reminder.name,
            _next_in_words(reminder, pauses, now, clock, known.get(reminder.name)),
            terminal.outcome(last[reminder.name].outcome) if reminder.name in last else "-",
            reminder.to,
            # Of the clock that the head names, the zone need not be said again.
            describe(reminder.schedule).replace(f", {zone}", "", 1),
        )
        for reminder in reminders
    ]
    titles = ("reminder", f"next ({zone})", "last", "to", "schedule")
    above = _begins(reminders, paths)
    terminal.table(titles, rows, elastic=("reminder", "to"), above=above, folds=True, alike=True)


def _begins(reminders: list[Reminder], paths: Paths) -> dict[int, str]:
    """Return, by the place of the first reminder of each drop-in, a line that names the file."""
    files = [reminder.file for reminder in reminders]
    return {files.index(file): f"{os.path.basename(file)}:" for file in dict.fromkeys(files) if file != paths.file}


def print_drop_ins(reminders: Iterable[Reminder], paths: Paths) -> None:
    """Print which of these reminders come from which drop-in; nothing if all stand in the file itself."""
    names: dict[str, list[str]] = {}
    for reminder in reminders:
        if reminder.file not in ("", paths.file):
            names.setdefault(reminder.file, []).append(reminder.name)
    for file, there in names.items():
        terminal.paragraph(f"from {terminal.clean(os.path.basename(file))}: ", ", ".join(dict.fromkeys(there)))


def _next_in_words(reminder: Reminder, pauses: Pauses, now: int, clock: tzinfo | None, known: int | None) -> str:
    """Return when a reminder fires next; `known` is what the ledger has, if it is right."""
    if not reminder.enabled:
        return "disabled"
    held = pauses.of(reminder.name, reminder.pause_until)
    moment = known if known is not None and known > now and not held else next_of(reminder, now, pauses)
    pause = in_force(held, now)
    if moment is None:
        return "ended" if next_fire_time(reminder.schedule, now) is None else "paused"
    return f"{datetime.fromtimestamp(moment, clock):%a %Y-%m-%d %H:%M}{' (paused)' if pause else ''}"


def paused_json(pause: Pause | None) -> str | bool | None:
    """Return until when something is paused: an instant, True where that is open, None where it is not paused."""
    if pause is None:
        return None
    return True if pause.until is None else iso(pause.until)


def _reminder_json(reminder: Reminder, last: Record | None, pauses: Pauses, now: int) -> dict[str, Any]:
    moment = next_of(reminder, now, pauses)
    return {
        "reminder": reminder.name,
        "file": reminder.file,
        "enabled": reminder.enabled,
        "schedule": reminder.schedule_text,
        "timezone": reminder.schedule.zone,
        "means": describe(reminder.schedule),
        "kind": reminder.kind,
        "to": reminder.to,
        "next": None if moment is None else iso(moment),
        "paused": paused_json(in_force(pauses.of(reminder.name, reminder.pause_until), now)),
        "outcome": None if last is None else last.outcome,
        "last": None if last is None else {"fire_time": last.fire_time, "outcome": last.outcome, "error": last.error},
    }


@commands.command("next")
@optional_name_argument
@click.option(
    "-n",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Show at most this many (default {DEFAULT_COUNT}; with --until: all).",
)
@click.option("--after", metavar="WHEN", help="Fire times after WHEN: 2026-12-01, 2h (ahead), tomorrow (default: now).")
@click.option("--until", metavar="WHEN", help="Fire times up to WHEN.")
@click.option("--all", "with_left_out", is_flag=True, help="Also those that a calendar leaves out, and why.")
@click.option("--cron", metavar="TEXT", help="Try a cron, without a file.")
@click.option("--rrule", metavar="TEXT", help="Try a rule, without a file; it needs --start.")
@click.option("--timezone", metavar="ZONE", help="With --cron or --rrule: its zone (default: the machine's).")
@click.option("--start", metavar="LOCAL", help="With --cron or --rrule: its start, as 2026-12-01 08:30.")
@with_paths
@json_option
def next_(
    paths: Paths,
    name: str | None,
    count: int | None,
    after: str | None,
    until: str | None,
    with_left_out: bool,
    cron: str | None,
    rrule: str | None,
    timezone: str | None,
    start: str | None,
    as_json: bool,
) -> None:
    """Show the fire times to come, of one reminder or of all.

    Without a name, -n or --until, reminders that fire often take one line each.
    """
    now = int(time.time())
    tried = _tried(cron, rrule, timezone, start, name)
    reminders = [] if tried else load(paths.file)
    chosen = [tried] if tried else reminders if name is None else [named(reminders, name)]
    clock, zone = screen_clock(chosen)
    begin = now if after is None else begin_of(after, now, ahead=True, zone=clock)
    end = LAST if until is None else end_of(until, now, ahead=True, zone=clock)
    folds = not as_json and name is None and count is None and until is None and tried is None
    most = count or (DEFAULT_COUNT if until is None else None)
    pauses = Pauses() if tried else known_pauses(paths)
    upcoming = list(islice(_upcoming(chosen, begin, end, pauses, folds=folds, with_left_out=with_left_out), most))
    if as_json:
        for one in upcoming:
            click.echo(terminal.json_line(_upcoming_json(one)))
        return
    if tried:
        _tell_of(tried)
    if not upcoming:
        off = ", ".join(reminder.name for reminder in chosen if not reminder.enabled)
        click.echo(f"no upcoming fire times{f'; disabled: {off}' if off else ''}", err=True)
        return
    _print_upcoming(upcoming, clock, zone, now)
    print_drop_ins((one.reminder for one in upcoming), paths)


def known_pauses(paths: Paths) -> Pauses:
    """Return the pauses in the ledger; where it can't be read, say so, for the file alone tells the fire times."""
    try:
        return records.pauses(paths)
    except StoreError as error:
        click.echo(f"bub-cron: what is paused is not known: {terminal.clean(str(error))}", err=True)
        return Pauses()


def _print_upcoming(upcoming: list[Upcoming], clock: tzinfo | None, zone: str, now: int) -> None:
    has_names = any(one.reminder.name for one in upcoming)
    shows_why = any(one.note or one.pause for one in upcoming)
    rows = [
        [
            f"{datetime.fromtimestamp(one.instant, clock):%a %Y-%m-%d %H:%M}",
            away(one.instant - now),
            *([one.reminder.name, one.reminder.to] if has_names else []),
            *([_noted(one, clock)] if shows_why else []),
        ]
        for one in upcoming
    ]
    names = ["reminder", "to"] if has_names else []
    terminal.table(
        [f"when ({zone})", "in", *names, *([""] if shows_why else [])], rows, elastic=names or ["in"], folds=shows_why
    )


def _noted(one: Upcoming, clock: tzinfo | None) -> str:
    def local(instant: int) -> str:
        return f"{datetime.fromtimestamp(instant, clock):%Y-%m-%d %H:%M}"

    words = [one.note, terminal.first_line(one.pause.sentence(local)) if one.pause else ""]
    return "; ".join(filter(None, words))


class Upcoming(NamedTuple):
    """A fire time to come: of a reminder that fires often the first of a day's; or one that is left out, and why.

    `pause` is what holds it back, if anything does.
    """

    instant: int
    reminder: Reminder
    note: str = ""
    left_out: str = ""
    pause: Pause | None = None


def _upcoming(
    reminders: list[Reminder], after: int, until: int, pauses: Pauses, *, folds: bool, with_left_out: bool
) -> Iterator[Upcoming]:
    def one(reminder: Reminder) -> Iterator[Upcoming]:
        held = pauses.of(reminder.name, reminder.pause_until)
        first = next_fire_time(reminder.schedule, after) if folds else None
        if first is not None:
            in_a_day = len(list(islice(fire_times(reminder.schedule, first - 1, first - 1 + _DAY), _COUNTED)))
            if in_a_day >= OFTEN:
                more = "or more " if in_a_day == _COUNTED else ""
                return iter([Upcoming(first, reminder, f"{in_a_day:,}x {more}in 24 h", pause=covering(held, first))])
        times = (
            Upcoming(moment, reminder, pause=covering(held, moment))
            for moment in fire_times(reminder.schedule, after, until)
        )
        if not with_left_out:
            return times
        out = (
            Upcoming(gone.instant, reminder, f"left out: {gone.why}", gone.why)
            for gone in left_out(reminder.schedule, after, until)
        )
        return heapq.merge(times, out, key=_moment)

    enabled = [reminder for reminder in reminders if reminder.enabled]
    return heapq.merge(*map(one, enabled), key=_moment)


def _moment(one: Upcoming) -> int:
    return one.instant


def _upcoming_json(one: Upcoming) -> dict[str, Any]:
    local = zoned(one.instant, one.reminder).isoformat()
    line: dict[str, Any] = {"reminder": one.reminder.name or None, "fire_time": iso(one.instant), "local": local}
    line["paused"] = paused_json(one.pause)
    return {**line, "left_out": one.left_out} if one.left_out else line


def screen_clock(reminders: list[Reminder]) -> tuple[tzinfo | None, str]:
    """Return the zone that a screen shows, and its name: that of all its reminders, or else the machine's."""
    zones = {reminder.timezone for reminder in reminders}
    try:
        zone = zones.pop() if len(zones) == 1 else machine_zone()
    except ScheduleError:
        return None, "local time"
    return ZoneInfo(zone), zone


# Expressions that are tried without a file


def _tried(
    cron: str | None, rrule: str | None, timezone: str | None, start: str | None, name: str | None
) -> Reminder | None:
    """Return a reminder without a name, a target and a message, for an expression that is to be tried."""
    if cron is None and rrule is None:
        if timezone is not None or start is not None:
            raise click.UsageError("--timezone and --start go with --cron or --rrule")
        return None
    if cron is not None and rrule is not None:
        raise click.UsageError("--cron and --rrule can't be tried at once")
    if name is not None:
        raise click.UsageError("a name can't be given with --cron or --rrule")
    zone = machine_zone() if timezone is None else require_zone(timezone)
    begin = None if start is None else parse_start(start, zone)
    plan: Schedule
    if cron is not None:
        text, plan = cron, parse_cron(cron, zone, "")
    elif begin is None:
        raise click.UsageError("a rule counts from a start; write --start as well, as --start '2026-12-01 08:30'")
    else:
        text, plan = rrule or "", parse_rrule(rrule or "", begin, zone)
    plan = limit(plan, zone, start=begin, until=None, times=None, only=(), excepted=())
    return Reminder(
        name="", schedule=plan, schedule_text=text, kind="text", body="", to="", session="", timezone=zone, grace=3600,
        attempts=1, context={}, line=1, column=1,
    )  # fmt: skip


def _tell_of(tried: Reminder) -> None:
    click.echo(describe(tried.schedule))
    doubts = list(cron_doubts(tried.schedule_text, tried.schedule)) if tried.schedule.kind == "cron" else []
    for doubt in [f"it {doubt}" for doubt in doubts] + [zone_doubt(tried.timezone)]:
        if doubt:
            click.echo(f"warning: {terminal.clean(doubt)}", err=True)


def next_of(reminder: Reminder, now: int, pauses: Pauses | None = None) -> int | None:
    """Return a reminder's next fire time that neither the file nor one of these pauses holds back."""
    held = (pauses or Pauses()).of(reminder.name, reminder.pause_until)
    return next_running(reminder.schedule, held, now) if reminder.enabled else None


def zoned(moment: int, reminder: Reminder) -> datetime:
    return datetime.fromtimestamp(moment, ZoneInfo(reminder.timezone))


def local_fire_time(moment: int, reminder: Reminder) -> str:
    return f"{zoned(moment, reminder):%a %Y-%m-%d %H:%M} {reminder.timezone}"


def away(seconds: int) -> str:
    """Return how far away an instant is, above a minute in whole minutes: fire times are."""
    length = abs(seconds) if abs(seconds) < _MINUTE else abs(seconds) // _MINUTE * _MINUTE
    return terminal.span(length) if seconds >= 0 else f"{terminal.span(length)} ago"
