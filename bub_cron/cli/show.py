"""The command show: everything about one reminder.

Invariants:
- Each value has its origin: the entry, the `defaults` of its file, what is built in, or (a zone) the machine.
- One clock per screen: that of the reminder's zone.
- The address of a ping is a secret: only its host is shown.
"""

from __future__ import annotations

import time
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import click

from bub_cron import terminal
from bub_cron.checkers import duration
from bub_cron.cli.base import commands, json_option, name_argument, named, with_paths
from bub_cron.cli.firings import record_json, said_of, why_of
from bub_cron.cli.look import away, known_pauses, paused_json
from bub_cron.errors import StoreError
from bub_cron.paths import Paths
from bub_cron.pauses import Pauses, covering, in_force
from bub_cron.records import Record, history, usage
from bub_cron.reminders import Reminder, load
from bub_cron.reminders.values import LIMITS, REMINDER_KEYS, SCHEDULES
from bub_cron.schedule import describe, fire_times, next_fire_time
from bub_cron.schedule.zones import LAST
from bub_cron.wire import MESSAGES, iso

_NEXT = 3
_LATEST = 5
_DAYS = 30
_DAY = 86400
_WIDTH = 10
_DURATIONS = ("grace", "timeout", "mark_late")
_ENTRY, _DEFAULTS, _BUILT_IN, _MACHINE = "entry", "defaults", "built-in", "machine"


class Value(NamedTuple):
    """The value in force for a key, and where it comes from; `line` is that of the reminder's file, None if not from there."""

    key: str
    value: Any
    origin: str
    line: int | None


class Past(NamedTuple):
    """What the stores say of a reminder: its newest firings, and what those of the last days took."""

    latest: list[Record]
    firings: int
    tokens: int


@commands.command()
@name_argument
@with_paths
@json_option
def show(paths: Paths, name: str, as_json: bool) -> None:
    """Show everything about one reminder.

    Its values and where each comes from (its entry, the defaults of its file, or built in), its next fire times, what
    holds it back, its latest outcomes, and its tokens of the last 30 days.
    """
    now = int(time.time())
    reminder = named(load(paths.file), name)
    pauses = known_pauses(paths)
    past = _past(paths, name, now)
    times = list(islice(fire_times(reminder.schedule, now, LAST), _NEXT)) if reminder.enabled else []
    if as_json:
        click.echo(terminal.json_line(_json(reminder, times, pauses, past, now)))
        return
    _print_head(reminder, times, pauses, past, now)
    _print_values(reminder)
    _print_body(reminder)
    if past is not None and past.latest:
        _print_latest(past.latest, ZoneInfo(reminder.timezone))


def values_of(reminder: Reminder) -> list[Value]:
    """Return the values of a reminder in the order of the file's keys; None where a key is not set."""
    found = []
    for key in REMINDER_KEYS:
        if key in SCHEDULES + MESSAGES and key not in reminder.own:
            continue
        place = reminder.places.get(key)
        built_in = _MACHINE if key == "timezone" and _has_machines_zone(reminder) else _BUILT_IN
        origin = built_in if place is None else _ENTRY if key in reminder.own else _DEFAULTS
        found.append(Value(key, _value(reminder, key), origin, None if place is None else place[0]))
    return found


def _has_machines_zone(reminder: Reminder) -> bool:
    """Tell whether its zone is the machine's; an `every` without a start counts in UTC on every machine."""
    return reminder.machine_zone and (reminder.schedule.kind != "every" or "start" in reminder.limits)


def _value(reminder: Reminder, key: str) -> Any:
    if key in SCHEDULES:
        return reminder.schedule_text
    if key in MESSAGES:
        return reminder.body
    if key in LIMITS:
        return reminder.limits.get(key)
    value = getattr(reminder, key)
    if key == "ping" and value is not None:
        return f"{urlsplit(value).scheme}://{urlsplit(value).hostname}/..."
    if key == "pause_until" and value is not None:
        return datetime.fromtimestamp(value, ZoneInfo(reminder.timezone)).isoformat()
    return value


def _past(paths: Paths, name: str, now: int) -> Past | None:
    """Return what the stores say; None, and say why, where they can't be read: the file alone tells the rest."""
    try:
        found = [one for one in usage(paths, now - _DAYS * _DAY, now) if one.reminder == name]
        latest = history(paths, reminder=name, most=_LATEST)
    except StoreError as error:
        click.echo(f"bub-cron: what became of it is not known: {terminal.clean(str(error))}", err=True)
        return None
    return Past(latest, sum(one.firings for one in found), sum(one.tokens for one in found))


# For people


def _print_head(reminder: Reminder, times: list[int], pauses: Pauses, past: Past | None, now: int) -> None:
    zone = ZoneInfo(reminder.timezone)
    held = pauses.of(reminder.name, reminder.pause_until)
    pause = in_force(held, now)

    def local(instant: int) -> str:
        return f"{datetime.fromtimestamp(instant, zone):%a %Y-%m-%d %H:%M}"

    lines = [
        ("reminder", reminder.name),
        ("file", f"{reminder.file}:{reminder.line}"),
        ("schedule", describe(reminder.schedule)),
        ("zone", f"{reminder.timezone}, for all times here"),
        *(
            ("next" if at == 0 else "", f"{local(moment)}, in {away(moment - now)}{_held(held, moment)}")
            for at, moment in enumerate(times)
        ),
    ]
    if not reminder.enabled:
        lines.append(("next", "never: it is disabled"))
    elif not times:
        ended = next_fire_time(reminder.schedule, now) is None
        lines.append(("next", "never: its times are past" if ended else "not known"))
    if pause is not None:
        lines.append(("paused", pause.sentence(local)))
    if past is not None:
        firings = f"{past.firings:,} {'firing' if past.firings == 1 else 'firings'}"
        lines.append(("tokens", f"{past.tokens:,} in the last {_DAYS} days, {firings}"))
    for title, text in lines:
        terminal.paragraph(terminal.Styled(f"{title:{_WIDTH}}", "bold"), text)


def _held(held: Any, moment: int) -> str:
    pause = covering(held, moment)
    return "" if pause is None else " (skipped)" if pause.reason == "skip" else " (paused)"


def _print_values(reminder: Reminder) -> None:
    found = [one for one in values_of(reminder) if one.key not in MESSAGES]
    given = [one for one in found if (one.value is not None and one.value not in ([], {})) or one.line is not None]
    unset = [one.key for one in found if one not in given]
    click.echo()
    rows = [(one.key, _origin(one), _written(one)) for one in given]
    terminal.table(("key", "from", "value"), rows, folds=True)
    if unset:
        terminal.paragraph("not set: ", ", ".join(unset))


def _origin(one: Value) -> str:
    if one.line is None:
        return one.origin
    return f"line {one.line}" if one.origin == _ENTRY else f"defaults, line {one.line}"


def _written(one: Value) -> str:
    """Return a value as the file would have it."""
    value = one.value
    if isinstance(value, bool):
        return str(value).lower()
    if one.key in _DURATIONS and isinstance(value, int | float):
        return duration(int(value))
    if one.key == "gate":
        parts = {**value, "timeout": duration(int(value["timeout"]))}
        return ", ".join(f"{key}: {_plain(part)}" for key, part in parts.items())
    if isinstance(value, dict):
        return ", ".join(f"{key}: {part}" for key, part in value.items()) or "none"
    return _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _print_body(reminder: Reminder) -> None:
    line = reminder.places[reminder.kind][0]
    click.echo(f"\n{reminder.kind} (line {line}):")
    for text in reminder.body.splitlines():
        terminal.paragraph("  " if text else "", text)


def _print_latest(latest: list[Record], zone: ZoneInfo) -> None:
    click.echo()
    rows = [
        (
            f"{datetime.fromtimestamp(one.moment, zone):%Y-%m-%d %H:%M}",
            terminal.outcome(one.outcome),
            why_of(one) or said_of(one, whole=False),
        )
        for one in latest
    ]
    terminal.table(("latest", "outcome", "reply or reason"), rows, folds=True)


# For programs


def _json(reminder: Reminder, times: list[int], pauses: Pauses, past: Past | None, now: int) -> dict[str, Any]:
    zone = ZoneInfo(reminder.timezone)
    held = pauses.of(reminder.name, reminder.pause_until)
    return {
        "reminder": reminder.name,
        "file": reminder.file,
        "line": reminder.line,
        "enabled": reminder.enabled,
        "means": describe(reminder.schedule),
        "timezone": reminder.timezone,
        "values": {one.key: {"value": one.value, "from": one.origin, "line": one.line} for one in values_of(reminder)},
        "next": [
            {
                "fire_time": iso(moment),
                "local": datetime.fromtimestamp(moment, zone).isoformat(),
                "paused": paused_json(covering(held, moment)),
            }
            for moment in times
        ],
        "paused": paused_json(in_force(held, now)),
        "latest": None if past is None else [record_json(record) for record in past.latest],
        "usage": None if past is None else {"days": _DAYS, "firings": past.firings, "tokens": past.tokens},
    }
