"""The command ics: the fire times to come, as an iCalendar file.

Invariants: a fire time has the same UID each time (the firing's id), and the same lines until its file is saved again, so
who takes the file again finds no change where there is none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice

import click

from bub_cron import __version__, terminal
from bub_cron.cli.base import commands, with_paths
from bub_cron.cli.look import known_pauses
from bub_cron.health.status import few
from bub_cron.paths import Paths
from bub_cron.pauses import Pauses, parts
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import count_fire_times, fire_times
from bub_cron.wire import firing_id, iso

_DAY = 86400
_MOST = 1000  # fire times of one reminder: an hour apart, those of 41 days
_MOST_IN_ALL = 20_000  # some 6 MiB
_MOST_TEXT = 2000  # characters of a message


@commands.command()
@click.option("--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="How many days ahead.")
@with_paths
def ics(paths: Paths, days: int) -> None:
    """Print the fire times of the next days as an iCalendar file.

    Reminders that are disabled, and fire times that a pause holds back, are left out. Each fire time keeps its UID, so a
    calendar that subscribes to the file, or imports it again, shows nothing twice. Of a reminder that fires very often,
    the first 1,000 are there, and 20,000 of all; standard error tells how many are left out.

    \b
    For example:
      bub-cron ics --days 90 > reminders.ics
    """
    now = int(time.time())
    reminders = load(paths.file)
    pauses = known_pauses(paths)
    from bub_cron.schedule import ics as calendar  # loads icalendar, which no other command needs

    entries: list[calendar.Entry] = []
    cut: list[str] = []
    for reminder in reminders:
        if not reminder.enabled:
            continue
        times, count = _times(reminder, pauses, now, now + days * _DAY, min(_MOST, _MOST_IN_ALL - len(entries)))
        revised = _saved(reminder.file, now)
        what = f"{reminder.kind}: {reminder.body[:_MOST_TEXT]}{'...' if len(reminder.body) > _MOST_TEXT else ''}"
        description = f"{what.rstrip()}\nto: {reminder.to}"
        for moment in times:
            uid = f"{firing_id(reminder.name, iso(moment))}/bub-cron"
            entries.append(calendar.Entry(uid, moment, revised, reminder.name, description))
        if count > len(times):
            cut.append(f"{reminder.name}: the first {len(times):,} fire times; {count - len(times):,} are left out")
    for sentence in few(cut):
        click.echo(terminal.clean(sentence), err=True)
    click.echo(calendar.write(entries, "Bub reminders", __version__), nl=False)


def _times(reminder: Reminder, pauses: Pauses, after: int, until: int, most: int) -> tuple[list[int], int]:
    """Return the fire times in (after, until] that nothing holds back: the first so many, and how many there are in all."""
    held = pauses.of(reminder.name, reminder.pause_until)
    free = [(begin, end) for begin, end, pause in parts(held, after, until) if pause is None]

    def each() -> Iterator[int]:
        for begin, end in free:
            yield from fire_times(reminder.schedule, begin, end)

    times = list(islice(each(), most))
    return times, sum(count_fire_times(reminder.schedule, begin, end) for begin, end in free)


def _saved(file: str, now: int) -> int:
    try:
        return int(os.stat(file).st_mtime)
    except OSError:  # removed just now
        return now
