"""The command ics: the fire times to come, as an iCalendar file.

Invariants: a fire time has the same UID each time (the firing's id), and the same lines until its file is saved again, so
who takes the file again finds no change where there is none.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

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
_MOST_IN_ALL = 20_000  # the earliest ones; some 6 MiB, which take icalendar 8 s to write
_MOST_TEXT = 2000  # characters of a message


@commands.command()
@click.option("--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="How many days ahead.")
@with_paths
def ics(paths: Paths, days: int) -> None:
    """Print the fire times of the next days as an iCalendar file.

    Reminders that are disabled, and fire times that a pause holds back, are left out. Each fire time keeps its UID, so a
    calendar that subscribes to the file, or imports it again, shows nothing twice. Of a reminder that fires very often,
    the first 1,000 are there, and 20,000 of all; standard error tells how many are left out.
    """
    now = int(time.time())
    reminders = [reminder for reminder in load(paths.file) if reminder.enabled]
    pauses = known_pauses(paths)
    from bub_cron.schedule import ics as calendar  # loads icalendar, which no other command needs

    spans = {one.name: _free(one, pauses, now, now + days * _DAY) for one in reminders}
    first = (islice(_times(one, spans[one.name]), _MOST) for one in reminders)
    times = list(islice(heapq.merge(*first, key=_moment), _MOST_IN_ALL))
    told = Counter(one.reminder.name for one in times)
    cut = [
        f"{one.name}: the first {told[one.name]:,} fire times; {left:,} are left out"
        for one in reminders
        if (left := _count(one, spans[one.name]) - told[one.name])
    ]
    for sentence in few(cut):
        click.echo(terminal.clean(sentence), err=True)
    saved = {file: _saved(file, now) for file in {one.file for one in reminders}}
    entries = (
        calendar.Entry(_uid(one), one.instant, saved[one.reminder.file], one.reminder.name, _description(one.reminder))
        for one in times
    )
    click.echo(calendar.write(entries, "Bub reminders", __version__), nl=False)


class Time(NamedTuple):
    """A fire time of a reminder."""

    instant: int
    reminder: Reminder


class Span(NamedTuple):
    """Instants in (after, until]."""

    after: int
    until: int


def _free(reminder: Reminder, pauses: Pauses, after: int, until: int) -> list[Span]:
    """Return what no pause covers of (after, until]."""
    held = pauses.of(reminder.name, reminder.pause_until)
    return [Span(begin, end) for begin, end, pause in parts(held, after, until) if pause is None]


def _times(reminder: Reminder, spans: list[Span]) -> Iterator[Time]:
    for span in spans:
        for instant in fire_times(reminder.schedule, span.after, span.until):
            yield Time(instant, reminder)


def _count(reminder: Reminder, spans: list[Span]) -> int:
    return sum(count_fire_times(reminder.schedule, span.after, span.until) for span in spans)


def _moment(one: Time) -> int:
    return one.instant


def _uid(one: Time) -> str:
    return f"{firing_id(one.reminder.name, iso(one.instant))}/bub-cron"


def _description(reminder: Reminder) -> str:
    more = "..." if len(reminder.body) > _MOST_TEXT else ""
    return f"{reminder.kind}: {reminder.body[:_MOST_TEXT].rstrip()}{more}\nto: {reminder.to}"


def _saved(file: str, now: int) -> int:
    try:
        return int(os.stat(file).st_mtime)
    except OSError:  # removed just now
        return now
