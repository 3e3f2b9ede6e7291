"""The command week: seven days, a column each.

Invariants:
- What it says of the past is what the stores say; what it says of the future is what a tick will find. A fire time that
  no tick has recorded yet, though its time has come, has no outcome and says so.
- One clock per screen: its zone tells the days and the times, also those of WHEN.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.cli.look import OFTEN, paused_json, print_drop_ins, screen_clock
from bub_cron.cli.when import begin_of
from bub_cron.paths import Paths
from bub_cron.pauses import Pause, Pauses, covering
from bub_cron.records import Record, history, last_tick, pauses
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import fire_times, left_out
from bub_cron.wire import firing_id, iso

_DAYS = 7
_FOLDED = "often"  # stands where other rows have a time; sorts behind them
_UNRECORDED = "no tick"
_PAUSED = "paused"
_GAP = 1
_NARROWEST = len("Mon 21")


class Week(NamedTuple):
    """The fire times in (after, until], by the days of a clock; `zone` is its name."""

    after: int
    until: int
    days: list[date]
    clock: tzinfo | None
    zone: str

    def day(self, instant: int) -> date:
        return datetime.fromtimestamp(instant, self.clock).date()


@dataclass(frozen=True, slots=True)
class Entry:
    """One fire time: with its outcome once it is recorded; or one that a calendar left out, and why.

    `count` fire times share it. `zone` is the reminder's. `pause` is what holds a future one back.
    """

    instant: int
    reminder: str
    zone: tzinfo | None
    outcome: str | None = None
    count: int = 1
    left_out: str = ""
    pause: Pause | None = None


@commands.command()
@click.option(
    "--after", metavar="WHEN", help="Seven days from WHEN: 2026-12-21, yesterday, 7d (ahead) (default: today)."
)
@with_paths
@json_option
def week(paths: Paths, after: str | None, as_json: bool) -> None:
    """Show seven days, a column each: what fires when.

    What is past has its outcome below it, as in `bub-cron log`. A reminder that fires four times a day or more has one
    line for them all, such as "48x mail". Below stand the days that a calendar left out, with the calendar and the
    holiday. All times are in one zone, which the first line names.
    """
    now = int(time.time())
    reminders = load(paths.file)
    shown = _week(after or "today", now, *screen_clock(reminders))
    entries = sorted(_entries(paths, reminders, shown, now), key=lambda entry: (entry.instant, entry.reminder))
    if as_json:
        for entry in entries:
            click.echo(terminal.json_line(_entry_json(entry)))
        return
    there, gone = [one for one in entries if not one.left_out], [one for one in entries if one.left_out]
    span = f"{shown.days[0]:%a %Y-%m-%d} to {shown.days[-1]:%a %Y-%m-%d}, {shown.zone}"
    if there:
        click.echo(span)
        _print_days(there, shown, now)
    else:
        off = ", ".join(reminder.name for reminder in reminders if not reminder.enabled)
        click.echo(f"no fire times, {span}{f'; disabled: {off}' if off else ''}", err=True)
    if gone:
        _print_left_out(gone, shown)
    in_sight = {entry.reminder for entry in entries}
    print_drop_ins((reminder for reminder in reminders if reminder.name in in_sight), paths)


def _week(when: str, now: int, clock: tzinfo | None, zone: str) -> Week:
    try:
        after = begin_of(when, now, ahead=True, zone=clock)
        first = datetime.fromtimestamp(after + 1, clock).replace(hour=0, minute=0, second=0)
        until = int((first + timedelta(days=_DAYS)).timestamp()) - 1
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{when!r}: no seven days begin then") from error
    return Week(after, until, [first.date() + timedelta(days=number) for number in range(_DAYS)], clock, zone)


def _entries(paths: Paths, reminders: list[Reminder], shown: Week, now: int) -> Iterator[Entry]:
    zones = {reminder.name: ZoneInfo(reminder.timezone) for reminder in reminders}
    records = _records(paths, shown, now)
    for record in records:
        if record.reminder is not None:  # not a `send`
            zone = zones.get(record.reminder, shown.clock)
            yield Entry(int(record.moment), record.reminder, zone, record.outcome, record.count)
    recorded = {record.id for record in records}
    # What the last tick left behind is in the ledger; without one, nothing from before now will ever be.
    done = now if shown.after >= now else min(now, last_tick(paths).instant or now)
    held = pauses(paths) if shown.until > done else Pauses(())
    for reminder in reminders:
        if not reminder.enabled:
            continue
        name, zone = reminder.name, zones[reminder.name]
        for instant in fire_times(reminder.schedule, max(shown.after, done), shown.until):
            if firing_id(name, iso(instant)) not in recorded:
                yield Entry(instant, name, zone, pause=covering(held.of(name, reminder.pause_until), instant))
        for out in left_out(reminder.schedule, shown.after, shown.until):
            if firing_id(name, iso(out.instant)) not in recorded:
                yield Entry(out.instant, name, zone, left_out=out.why)


def _records(paths: Paths, shown: Week, now: int) -> list[Record]:
    """Return the firings of the week; of one that is all in the future there are none."""
    if shown.after >= now:
        return []
    found = history(paths, since=shown.after, until=shown.until + 1)
    return [record for record in found if shown.after < int(record.moment) <= shown.until]


def _print_days(entries: list[Entry], shown: Week, now: int) -> None:
    of_a_day: dict[tuple[date, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        of_a_day[shown.day(entry.instant), entry.reminder].append(entry)
    # By what stands at its left, and the reminder: so a reminder stays in its line from day to day.
    rows: dict[tuple[str, str], dict[date, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (day, name), some in of_a_day.items():
        is_folded = sum(entry.count for entry in some) >= OFTEN
        counted: Counter[tuple[str, str]] = Counter()
        for entry in some:
            label = _FOLDED if is_folded else f"{datetime.fromtimestamp(entry.instant, shown.clock):%H:%M}"
            counted[label, _standing(entry, now)] += entry.count
        for (label, standing), count in counted.items():
            what = name if count == 1 and not is_folded else f"{count}x {name}"
            rows[label, name][day] += _cell(what, standing)
    lines: list[list[str]] = []
    before = ""
    for label, name in sorted(rows):
        cells = [rows[label, name][day] for day in shown.days]
        for line in range(max(map(len, cells))):
            left = label if line == 0 and label != before else ""
            lines.append([left, *(cell[line] if line < len(cell) else "" for cell in cells)])
        before = label
    titles = [_title(day) for day in shown.days]
    terminal.table(["", *titles], lines, elastic=titles, gap=_GAP, narrowest=_NARROWEST, keeps_empty=True)


def _standing(entry: Entry, now: int) -> str:
    """Return what stands below a fire time: nothing if it is in the future and nothing holds it back."""
    return entry.outcome or (_UNRECORDED if entry.instant <= now else _PAUSED if entry.pause else "")


def _cell(what: str, standing: str) -> list[str]:
    shown = terminal.clean(what)
    if not standing:
        return [shown]
    is_outcome = standing not in (_UNRECORDED, _PAUSED)
    return [shown, terminal.outcome(standing) if is_outcome else terminal.Styled(standing, "yellow")]


def _print_left_out(entries: list[Entry], shown: Week) -> None:
    days: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in entries:
        title = _title(shown.day(entry.instant))
        if title not in days[entry.reminder, entry.left_out]:
            days[entry.reminder, entry.left_out].append(title)
    click.echo("left out:")
    width = max(len(name) for name, _ in days)
    for (name, why), titles in sorted(days.items(), key=lambda item: item[0][0]):
        terminal.paragraph(f"  {name:{width}}  ", f"{', '.join(titles)}: {why}")


def _title(day: date) -> str:
    return f"{day:%a %d}"


def _entry_json(entry: Entry) -> dict[str, Any]:
    line: dict[str, Any] = {
        "reminder": entry.reminder,
        "fire_time": iso(entry.instant),
        "local": datetime.fromtimestamp(entry.instant, entry.zone).astimezone(entry.zone).isoformat(),
        "paused": paused_json(entry.pause),
        "outcome": entry.outcome,
    }
    if entry.count > 1:
        line["count"] = entry.count
    return {**line, "left_out": entry.left_out} if entry.left_out else line
