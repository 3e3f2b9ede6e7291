"""The commands that hold reminders back by hand: pause, resume, skip.

Invariants: they write to the ledger alone, in one transaction, and change nothing if one of their names is unknown.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from collections.abc import Iterator
from itertools import islice

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, complete_names, name_argument, named, with_paths
from bub_cron.cli.look import local_fire_time
from bub_cron.cli.when import start_of
from bub_cron.errors import BubCronError, one_line
from bub_cron.paths import Paths
from bub_cron.pauses import ALL, SKIP, Pauses, covering, in_force
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import fire_times
from bub_cron.store import ERRORS, FAR, store_error
from bub_cron.trigger import pausing
from bub_cron.trigger.ledger import SHAPE, Ledger

_MOST_SKIPS = 1000
_SHOWN = 5

_names_argument = click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)


@commands.command()
@_names_argument
@click.option("--all", "all_", is_flag=True, help="All reminders, also those that are added later.")
@click.option("--until", metavar="WHEN", help="Until WHEN: 2026-12-01 (when that day begins), 2d, tomorrow.")
@click.option("--why", metavar="TEXT", help="The reason, which `log` and `status` show.")
@with_paths
def pause(paths: Paths, names: tuple[str, ...], all_: bool, until: str | None, why: str | None) -> None:
    """Pause reminders, until WHEN or until `bub-cron resume`.

    Their fire times end as `skipped` and are not caught up later. What a gateway has accepted already still runs, and so
    does `bub-cron fire`. A reminder that is paused already gets the new end and reason.
    """
    _require_either(names, all_)
    now = int(time.time())
    end = None if until is None else min(start_of(until, now, ahead=True), FAR)
    if end is not None and end <= now:
        raise click.UsageError(f"--until {until} is in the past")
    if not all_:
        reminders = load(paths.file)
        for name in names:
            named(reminders, name)
    chosen = [ALL] if all_ else list(dict.fromkeys(names))
    with _ledger(paths) as ledger:
        pausing.pause(ledger, chosen, until=end, why=one_line(why or "") or None, who=_user(), now=now)
        pauses = pausing.read(ledger)
    for name in chosen:
        found = in_force((one for one in pauses.of(name) if one.reminder == name), now)
        if found is not None:
            click.echo(terminal.clean(f"{name} is " * bool(name) + found.sentence(_local)))


@commands.command()
@_names_argument
@click.option("--all", "all_", is_flag=True, help="End every pause and skip.")
@with_paths
def resume(paths: Paths, names: tuple[str, ...], all_: bool) -> None:
    """Let reminders run again. What they missed while paused is not caught up.

    Exits with 1 if one of NAME is still paused: by a pause of all, or by `pause_until` in its file.
    """
    _require_either(names, all_)
    now = int(time.time())
    with _ledger(paths) as ledger:
        held = {one.reminder for one in pausing.read(ledger).holding(now)}
        if unheld := [name for name in names if name not in held]:
            reminders = load(paths.file)
            for name in unheld:
                named(reminders, name)
        chosen = sorted(held) if all_ else list(dict.fromkeys(names))
        pausing.resume(ledger, chosen, now)
        pauses = pausing.read(ledger)
    for name in chosen:
        text = "the pause of all reminders has ended" if name == ALL else f"{name} is no longer paused"
        click.echo(terminal.clean(text if name in held else f"{name} was not paused"))
    if not chosen:
        click.echo("nothing was paused", err=True)
    still = _tell_of_still_paused(paths, pauses, None if all_ else chosen, now)
    sys.exit(1 if still and not all_ else 0)


@commands.command()
@name_argument
@click.option("-n", "count", metavar="N", type=click.IntRange(1, _MOST_SKIPS), default=1, help="How many (default 1).")
@with_paths
def skip(paths: Paths, name: str, count: int) -> None:
    """Skip the next fire times of a reminder, and show them.

    They end as `skipped`. Fire times that a pause holds back anyway don't count. Skipping again takes the place of the
    skip before; `bub-cron resume NAME` ends it.
    """
    reminder = named(load(paths.file), name)
    now = int(time.time())
    with _ledger(paths) as ledger:
        skipped = _to_skip(reminder, pausing.read(ledger), count, now)
        if skipped:
            pausing.skip(ledger, name, skipped[-1], who=_user(), now=now)
    if not skipped:
        click.echo(f"{terminal.clean(name)} has no upcoming fire time to skip", err=True)
        sys.exit(1)
    for moment in skipped[:_SHOWN]:
        click.echo(f"{terminal.clean(name)} skips {local_fire_time(moment, reminder)}")
    if len(skipped) > _SHOWN:
        click.echo(f"... and {len(skipped) - _SHOWN:,} more, until {local_fire_time(skipped[-1], reminder)}")


def _to_skip(reminder: Reminder, pauses: Pauses, count: int, now: int) -> list[int]:
    if not reminder.enabled:
        return []
    held = [one for one in pauses.of(reminder.name, reminder.pause_until) if one.kind != SKIP]
    ends = [one.until for one in held if one.holds(now)]
    if None in ends:
        return []  # all of them are held back already
    begin = max([now, *(end - 1 for end in ends if end is not None)])
    moments = fire_times(reminder.schedule, begin, FAR)
    return list(islice((moment for moment in moments if covering(held, moment) is None), count))


def _tell_of_still_paused(paths: Paths, pauses: Pauses, names: list[str] | None, now: int) -> bool:
    """Say which reminders (of these names, None: of all) something else still holds back; return whether there are any."""
    try:
        reminders = load(paths.file)
    except BubCronError:
        return False  # the pauses have ended all the same; `check` tells what is wrong with the file
    found = [
        (one.name, held)
        for one in reminders
        if (names is None or one.name in names)
        and (held := in_force(pauses.of(one.name, one.pause_until), now)) is not None
    ]
    for name, held in found:
        hint = "; `bub-cron resume --all` ends that" if held.reminder == ALL else ""
        click.echo(terminal.clean(f"{name} is still paused: {held.sentence(_local)}{hint}"), err=True)
    return bool(found)


def _require_either(names: tuple[str, ...], all_: bool) -> None:
    if bool(names) == all_:
        raise click.UsageError(
            "give the names of reminders, or --all" if not names else "give names or --all, not both"
        )


@contextlib.contextmanager
def _ledger(paths: Paths) -> Iterator[Ledger]:
    """Open the ledger for one transaction; `StoreError` if the disk refuses."""
    try:
        with contextlib.closing(Ledger(paths.ledger)) as ledger, ledger.transaction():
            yield ledger
    except ERRORS as error:
        raise store_error(paths.ledger, error, SHAPE) from error


def _user() -> str:
    """Return the name of the user who runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _local(instant: float) -> str:
    return f"{terminal.local_time(instant)} ({terminal.clock()})"
