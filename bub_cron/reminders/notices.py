"""What is legal in a file but may not be meant.

Invariants: a notice says only what the schedule's own fire times bear out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

from bub_cron import channel_facts, checkers, schedule, wire
from bub_cron.errors import ScheduleError
from bub_cron.reminders.faults import in_quotes, shown
from bub_cron.reminders.reminder import Notice, Reminder
from bub_cron.schedule import Calendar, Schedule
from bub_cron.schedule.zones import load_zone

_DAY = 86400
_MANY = 1000  # runs of a model a day
_SHORT_GRACE = 60  # seconds: a tick comes each minute

_Doubt = tuple[str, str]  # the key that it is about, "" for none, and a sentence about the reminder without its name


def suspicions(reminders: list[Reminder], now: int) -> list[Notice]:
    """Return the notices; see `bub_cron.reminders.suspicions`."""
    notices: list[Notice] = []
    zones_told: set[tuple[str, object]] = set()
    changes = cache(lambda zone: _changes(zone, now))
    meetings: dict[Schedule, list[str]] = {}  # of 10,000 reminders most share a few
    first_of: dict[tuple[Schedule, str, str, str], Reminder] = {}
    for reminder in (one for one in reminders if one.enabled):
        twin = first_of.setdefault((reminder.schedule, reminder.to, reminder.kind, reminder.body), reminder)
        if reminder.schedule not in meetings:
            meetings[reminder.schedule] = list(_clock_changes(reminder, changes(reminder.timezone)))
        when = reminder.schedule.kind
        told = [*_both_days(reminder), *_often(reminder, now), *_past(reminder, now), *meetings[reminder.schedule]]
        told += schedule.cron_doubts(reminder.schedule_text, reminder.schedule) if when == "cron" else ()
        doubts: list[_Doubt] = [(when, sentence) for sentence in told] + [*_cut(reminder), *_short_grace(reminder)]
        doubts += [*_outlasted(reminder, now), *_idle_gate(reminder), *_alert_at_home(reminder)]
        doubts += [("context", sentence) for sentence in _context(reminder)]
        if twin is not reminder:
            place = f"on line {twin.line}" if twin.file == reminder.file else f"in {twin.file}"
            doubts.append(("", f"has the schedule, target and message of {twin.name} {place}: both will fire"))
        zone = (reminder.file, reminder.places.get("timezone", reminder.name))
        if (doubt := schedule.zone_doubt(reminder.timezone)) and zone not in zones_told:
            zones_told.add(zone)  # that of the defaults once
            doubts.append(("timezone", f"has a fixed zone: {doubt}"))
        doubts += _days_without_start(reminder, now)
        for key, sentence in doubts:
            line, column = reminder.places.get(key, (reminder.line, reminder.column))
            notices.append(Notice(line, column, f"{reminder.name} {sentence}", reminder.file))
    return [*notices, *_empty_calendars(reminders, now)]


def _days_without_start(reminder: Reminder, now: int) -> Iterator[_Doubt]:
    if reminder.schedule.kind == "every" and re.fullmatch("(?:[0-9]+[wd])+", reminder.schedule_text):
        first = None if "start" in reminder.places else schedule.next_fire_time(reminder.schedule, now)
        if first is not None:
            when = datetime.fromtimestamp(first, ZoneInfo(reminder.timezone))
            yield (
                "every",
                f"has no start, so it counts from 1970-01-01 00:00 UTC and next fires {when:%a %Y-%m-%d %H:%M}"
                f" {reminder.timezone}; write start: with its first date and time",
            )


def _empty_calendars(reminders: list[Reminder], now: int) -> Iterator[Notice]:
    """Tell of calendars in use that name no day in the next year, once each."""
    told: set[Calendar] = set()
    today = now // _DAY
    for reminder in (one for one in reminders if one.enabled):
        for key, calendar in schedule.calendars_of(reminder.schedule):
            if calendar in told:
                continue
            told.add(calendar)
            try:
                is_empty = not any(calendar.has(day) for day in range(today, today + 366))
            except ScheduleError as error:
                what = f"can't be read: {error}"
            else:
                what = "names no day in the next year" if is_empty else ""
            if what:
                line, column = reminder.places.get(key, (reminder.line, reminder.column))
                yield Notice(line, column, f"the calendar {calendar.name} {what}", reminder.file)


def _cut(reminder: Reminder) -> Iterator[_Doubt]:
    """Tell of a message that ends where YAML sees a comment. Who means one puts a space behind the #."""
    if len(reminder.cut) > 1 and not reminder.cut[1].isspace():
        whole = in_quotes(f"{reminder.body} {reminder.cut}")
        yield (
            reminder.kind,
            f"ends before {shown(reminder.cut)}, which YAML takes for a comment; put the {reminder.kind} in quotes{whole}",
        )


def _short_grace(reminder: Reminder) -> Iterator[_Doubt]:
    if reminder.grace < _SHORT_GRACE:
        yield "grace", f"is missed if the tick comes more than {reminder.grace} s late; write a grace of 1m or more"


def _outlasted(reminder: Reminder, now: int) -> Iterator[_Doubt]:
    until = reminder.pause_until
    if until is None or until <= now or schedule.next_fire_time(reminder.schedule, now) is None:
        return
    if schedule.next_fire_time(reminder.schedule, until - 1) is None:
        yield "pause_until", "is paused until its last fire time is over: it will not fire"


def _idle_gate(reminder: Reminder) -> Iterator[_Doubt]:
    if reminder.gate is not None and reminder.kind == wire.COMMAND:
        yield "gate", "has a gate before a command: it decides whether the command runs, which gets none of its output"


def _alert_at_home(reminder: Reminder) -> Iterator[_Doubt]:
    if reminder.alert == reminder.to:
        yield (
            "alert",
            f"has an alert to its own chat, {reminder.to}: what keeps its messages from arriving there keeps the alert, too",
        )


def _both_days(reminder: Reminder) -> Iterator[str]:
    fields = reminder.schedule_text.split()
    if reminder.schedule.kind == "cron" and len(fields) == 5 and not {"*", "*/1"} & {fields[2], fields[4]}:
        yield f"restricts both day of month and day of week: it fires {schedule.describe(reminder.schedule)}"


def _often(reminder: Reminder, now: int) -> Iterator[str]:
    """Tell how often a model is run, or how often a reminder for one hour fires in it.

    The day that begins with the next fire time is counted, and the one after it: `now` may lie within a `* * * * mon`.
    """
    minute, hour = [*reminder.schedule_text.split(), "", ""][:2]
    if reminder.schedule.kind == "cron" and minute in {"*", "*/1"} and hour.isdigit():
        what = "runs a model" if reminder.kind == wire.PROMPT else "fires"
        yield f"{what} 60 times, each minute from {int(hour):02}:00 to {int(hour):02}:59; for once write 0 {hour} ..."
        return
    counts, after = [0], now
    for _ in range(2 if reminder.kind == wire.PROMPT else 0):
        first = schedule.next_fire_time(reminder.schedule, after)
        if first is not None:
            after = first - 1 + _DAY
            counts.append(sum(1 for _ in schedule.fire_times(reminder.schedule, first - 1, after)))
    if max(counts) >= _MANY:
        yield f"runs a model {max(counts):,} times a day"


def _past(reminder: Reminder, now: int) -> Iterator[str]:
    if schedule.next_fire_time(reminder.schedule, now) is None:
        at = reminder.schedule.kind == "at"
        yield f"is past: {reminder.schedule_text} will not come again" if at else "has ended: no fire time is left"


def _context(reminder: Reminder) -> Iterator[str]:
    """Name what the chat's channel ignores; for a turn only what reads like a place, since the model sees the rest."""
    channel, _ = checkers.split_to(reminder.to)
    for key in channel_facts.ignored_context(channel, reminder.context):
        if channel_facts.is_place(key):
            instead = channel_facts.PLACES.get(channel, f"{channel} has no threads or topics that can be reached")
            yield f"has {key} in its context, which the channel {channel} ignores: {instead}"
        elif reminder.kind == wire.TEXT:
            yield f"has {key} in its context, which the channel {channel} ignores"


# Changes of the clock: (instant, offset before, offset after), all in seconds

_Change = tuple[int, int, int]


def _changes(zone: str, now: int) -> list[_Change]:
    """Return the zone's changes within a year after `now`."""
    return [
        (start, before, offset)
        for start, _, offset, before in load_zone(zone).stretches(now + 1, now + 366 * _DAY)
        if start > now
    ]


def _clock_changes(reminder: Reminder, changes: list[_Change]) -> Iterator[str]:
    """Yield a sentence for the first time that the clock skips, and one for the first that it repeats."""
    plan = schedule.unlimited(reminder.schedule)
    told: set[bool] = set()
    for instant, before, after in changes:
        is_skipped = after > before
        low, high = sorted((instant + before, instant + after))
        time = next(plan.shown(low, high), None)
        if time is not None and is_skipped not in told:
            told.add(is_skipped)
            message = (_skipped if is_skipped else _repeated)(plan, time, instant, after)
            yield f"meets a change of clocks: in {reminder.timezone}, {message}"


def _skipped(plan: Schedule, time: int, instant: int, after: int) -> str:
    fires = _fires_at(plan, instant)
    what = f"it fires at {_wall(instant + after, '%H:%M')} instead" if fires else "it doesn't fire then"
    return f"{_wall(time, '%H:%M')} doesn't exist on {_wall(time, '%Y-%m-%d')}; {what}"


def _repeated(plan: Schedule, time: int, instant: int, after: int) -> str:
    what = "both times" if _fires_at(plan, time - after) else "the first time"
    return f"{_wall(time, '%H:%M')} comes twice on {_wall(time, '%Y-%m-%d')}; it fires {what}"


def _fires_at(plan: Schedule, instant: int) -> bool:
    return next(schedule.fire_times(plan, instant - 1, instant), None) is not None


def _wall(seconds: int, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)
