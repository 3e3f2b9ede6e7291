"""The commands about what reminders cost and whether they would run: usage, gate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, name_argument, named, with_paths
from bub_cron.gate_command import MOST_OUTPUT, arguments, environment
from bub_cron.paths import Paths
from bub_cron.records import Usage
from bub_cron.records import usage as usage_of
from bub_cron.reminders import load
from bub_cron.states import OUTCOMES
from bub_cron.wire import iso

_DAY = 86400


@commands.command()
@click.option(
    "--days", metavar="N", type=click.IntRange(1, 3660), default=30, show_default=True, help="How many days back."
)
@with_paths
@json_option
def usage(paths: Paths, days: int, as_json: bool) -> None:
    """Show what each reminder took: firings, tokens, seconds and outcomes.

    Tokens are those that the model's provider told. Records go back as far as BUB_CRON_KEEP_DAYS.
    """
    now = time.time()
    found = usage_of(paths, now - days * _DAY, now)
    if as_json:
        for one in found:
            fields = {"reminder": one.reminder, "firings": one.firings, "tokens": one.tokens, "seconds": one.seconds}
            click.echo(terminal.json_line({**fields, "outcomes": one.outcomes}))
        return
    if not found:
        click.echo(f"nothing has fired in the last {days} days", err=True)
        return
    terminal.table(_COLUMNS, [_row(one) for one in found], elastic=("reminder",), folds=True)


_COLUMNS = ("reminder", "firings", "tokens", "seconds", "outcomes")


def _row(one: Usage) -> tuple[str, ...]:
    told = sorted(one.outcomes, key=OUTCOMES.index)
    outcomes = ", ".join(f"{one.outcomes[outcome]:,} {outcome}" for outcome in told)
    return one.reminder, f"{one.firings:,}", f"{one.tokens:,}" if one.tokens else "", f"{one.seconds:,.1f}", outcomes


@commands.command()
@name_argument
@with_paths
def gate(paths: Paths, name: str) -> None:
    """Run a reminder's gate here, by hand, and show what it says.

    It runs as you, with the environment that the gateway gives it. Exits as the gate does: 0 would run the reminder, 1 skip
    it, anything else is a failed attempt.
    """
    reminder = named(load(paths.file), name)
    if reminder.gate is None:
        raise click.UsageError(f"{name} has no gate")
    seconds = float(reminder.gate["timeout"])
    for number in (signal.SIGTERM, signal.SIGHUP):  # by SIGINT, Python's own handler, the gate is ended, too
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    # A file, not a pipe: what the gate left behind in the background would hold that open.
    output_file = tempfile.TemporaryFile()  # noqa: SIM115 - ends with the process
    try:
        process = subprocess.Popen(
            arguments(reminder.gate["run"]),
            stdin=subprocess.DEVNULL,
            stdout=output_file,
            env=environment(os.environ, name, iso(time.time() // 60 * 60)),
            start_new_session=True,
        )
    except OSError as error:
        click.echo(f"the gate can't be started: {error}", err=True)
        sys.exit(126)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        click.echo(f"the gate did not end within {seconds:g} s, so it was ended: a failed attempt", err=True)
        status = 124
    else:
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        output_file.seek(0)
        output = output_file.read()
        click.echo(output, nl=False)
        meaning = {0: "0: the reminder would run, with this output", 1: "1: the reminder would be skipped"}
        click.echo(meaning.get(status, f"{status}: neither 0 (run) nor 1 (skip), so a failed attempt"), err=True)
        if len(output) > MOST_OUTPUT:
            click.echo(f"of this, the first {MOST_OUTPUT // 1024} KiB count", err=True)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind, too
        except ProcessLookupError:
            process.poll()
        process.wait()
    sys.exit(status)
