"""The commands about firings: tick, which records and submits them, and log, which shows what became of them."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.paths import Paths
from bub_cron.records import Record, history
from bub_cron.trigger import tick as trigger
from bub_cron.wire import OUTCOMES, iso

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
            terminal.first_line(record.error or record.reply or json.loads(record.content).get("text")),
        )
        for record in records
    ]
    terminal.table(
        ("time", "reminder", "outcome", "seconds", "attempts", "reply or error"),
        rows,
        elastic=("reminder", "reply or error"),
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
