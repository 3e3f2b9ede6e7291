"""The commands about firings: tick, which records and submits them, and log, which shows what became of them."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, named, with_paths
from bub_cron.cli.look import local_fire_time, next_of
from bub_cron.errors import BubCronError, UnknownReminderError
from bub_cron.paths import Paths
from bub_cron.records import Record, history
from bub_cron.reminders import load
from bub_cron.trigger import tick as trigger
from bub_cron.wire import ACCEPTED, DUE, OUTCOMES, RAN, RETRYING, RUNNING, SILENT, iso

LOG_COUNT = 20


@commands.command()
@with_paths
def tick(paths: Paths) -> None:
    """Record and submit what is due: what cron or a systemd timer runs each minute.

    Says nothing when all is well, and the same trouble once an hour. Exits with 65 for a broken file, 66 for a missing
    one, 69 if something is due and no gateway took it, 74 if the store can't be written, 76 if the gateway rejected one.
    """
    sys.exit(trigger.run(paths, time.time()))


@commands.command()
@click.argument("name", required=False)
@click.option("-n", "count", type=click.IntRange(min=1), default=LOG_COUNT, show_default=True, help="At most so many.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only those with this outcome.")
@with_paths
@json_option
def log(paths: Paths, name: str | None, count: int, outcome: str | None, as_json: bool) -> None:
    """Show firings and what became of them, the newest first."""
    records = history(paths, reminder=name, outcome=outcome, most=count)
    if as_json:
        for record in records:
            click.echo(terminal.json_line(_record_json(record)))
        return
    rows = [
        (
            _when(record),
            record.reminder or record.id,
            terminal.outcome(record.outcome),
            "" if record.seconds is None else f"{record.seconds:.1f}",
            str(record.attempts or ""),
            _words(record),
        )
        for record in records
    ]
    terminal.table(
        ("time", "reminder", "outcome", "seconds", "attempts", "reply or error"),
        rows,
        elastic=("reminder", "reply or error"),
    )
    if name is not None:
        click.echo(_outlook(paths, name, outcome, has_rows=bool(rows)), err=True)


# What became of a firing that has neither an error nor a reply, or what it still waits for.
_PLAINLY = {
    DUE: "waits for a gateway to take it",
    ACCEPTED: "waits for its turn in the gateway",
    RUNNING: "is under way",
    RETRYING: "waits to be tried again",
    SILENT: "nothing was sent: the model had nothing to say",
    RAN: "it ran, and nothing was sent for it",
}


def _words(record: Record) -> str:
    """Return, in one line, why a firing is where it is, or else what it said."""
    why, text = _PLAINLY.get(record.outcome), json.loads(record.content).get("text")
    if record.outcome == ACCEPTED and record.accepted_at is None:
        why = "a gateway has it, whose own record can't be seen here"
    if record.error:
        waits = record.outcome in (ACCEPTED, RETRYING)
        return terminal.first_line(f"{why}: {record.error.strip()}" if waits else record.error)
    said = terminal.first_line(record.reply or text)
    return f"{why}: {said}" if why and said else why or said


def _outlook(paths: Paths, name: str, outcome: str | None, *, has_rows: bool) -> str:
    """Return what a person who asks about a reminder, and why it didn't fire, wants to know besides its firings."""
    shown = terminal.clean(name)
    none = "" if has_rows else f"no firing of {shown} is {outcome or 'recorded'}; "
    try:
        reminders = load(paths.file)
        reminder = named(reminders, name)
    except UnknownReminderError as error:
        return f"{none}{error}"
    except BubCronError as error:
        return f"{none}when {shown} fires next can't be told: {terminal.first_line(str(error))}"
    now = int(time.time())
    moment = next_of(reminder, now)
    if moment is not None:
        return f"{none}{shown} fires next at {local_fire_time(moment, reminder)}, in {terminal.span(moment - now)}"
    return (
        f"{none}{shown} is disabled"
        if not reminder.enabled
        else f"{none}{shown} will not fire again: its times are past"
    )


def _when(record: Record) -> str:
    """Return the fire time as the machine's local time; the caller's own label, or when it came, where it isn't one."""
    try:
        return terminal.local_time(datetime.fromisoformat(record.fire_time or "").timestamp())
    except ValueError:
        return record.fire_time or terminal.local_time(record.accepted_at)


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "reminder": record.reminder,
        "fire_time": record.fire_time,
        "outcome": record.outcome,
        "attempts": record.attempts,
        "sends": record.sends,
        "error": record.error,
        "reply": record.reply,
        "accepted_at": None if record.accepted_at is None else iso(record.accepted_at),
        "finished_at": None if record.finished_at is None else iso(record.finished_at),
        "seconds": record.seconds,
        "tokens": record.tokens,
        "count": record.count,
        "to": json.loads(record.content).get("to"),
    }
