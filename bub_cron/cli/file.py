"""The commands about the reminders file itself: init, check, schema.

Invariants: a file that is there is never written to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.cli.look import local_fire_time, next_of
from bub_cron.errors import (
    BubCronError,
    FaultyFilesError,
    FileExistsAlreadyError,
    FileFaultsError,
    FileMissingError,
    FileUnreadableError,
    each_of,
)
from bub_cron.paths import Paths, create_file, drop_ins
from bub_cron.reminders import STARTER, Reminder, json_schema, load, suspicions


@commands.command()
@with_paths
def init(paths: Paths) -> None:
    """Write a commented starter file, never over an existing one."""
    try:
        create_file(paths.file, STARTER)
    except FileExistsError as error:
        raise FileExistsAlreadyError(f"{paths.file} is there already; it was left as it is") from error
    except OSError as error:
        raise FileExistsAlreadyError(f"{paths.file} can't be written: {error.strerror or error}") from error
    click.echo(paths.file)
    click.echo("Edit it, then try `bub-cron check` and `bub-cron next`.", err=True)


@commands.command()
@with_paths
@json_option
def check(paths: Paths, as_json: bool) -> None:
    """Print every fault and warning of the file and its drop-ins, or a one-line summary.

    With --json, each fault and warning is one object: file, line, column, kind (fault, warning), text. Warnings don't change
    the exit status.
    """
    try:
        reminders = load(paths.file)
    except (FileFaultsError, FaultyFilesError, FileUnreadableError, FileMissingError) as error:
        if not as_json and isinstance(error, FileUnreadableError | FileMissingError):
            raise
        for one in each_of(error):
            if as_json:
                _print_faults_json(one, paths)
            elif isinstance(one, FileFaultsError):
                terminal.print_faults(one, sys.stdout)
            else:
                click.echo(terminal.clean(str(one)))
        sys.exit(error.exit_status)
    now = int(time.time())
    for notice in suspicions(reminders, now):
        if as_json:
            click.echo(_json_line(notice.file, notice.line, notice.column, "warning", notice.message))
            continue
        place = f"{terminal.clean(notice.file)}:{notice.line}:{notice.column}"
        click.echo(f"{place}: warning: {terminal.clean(notice.message)}", err=True)
    if not as_json:
        click.echo(f"{terminal.clean(_sources(reminders, paths))}: {_summary(reminders, now)}")


def _print_faults_json(error: BubCronError, paths: Paths) -> None:
    if isinstance(error, FileFaultsError):
        for fault in error.faults:
            click.echo(_json_line(error.path, fault.line, fault.column, "fault", fault.message))
    else:  # of a file that can't be read
        path = error.path if isinstance(error, FileUnreadableError) else paths.file
        click.echo(_json_line(path, 1, 1, "fault", str(error)))


def _json_line(file: str, line: int, column: int, kind: str, text: str) -> str:
    return terminal.json_line({"file": file, "line": line, "column": column, "kind": kind, "text": text})


def _sources(reminders: list[Reminder], paths: Paths) -> str:
    """Return the files that are there, and where there are several, how many reminders each has."""
    there = [path for path in (paths.file,) if os.path.exists(path)] + drop_ins(paths.file)
    if len(there) == 1:
        return there[0]
    counts = Counter(reminder.file for reminder in reminders)
    names = [there[0], *map(os.path.basename, there[1:])]
    return ", ".join(f"{name} ({counts[path]})" for name, path in zip(names, there, strict=True))


def _summary(reminders: list[Reminder], now: int) -> str:
    disabled = sum(not reminder.enabled for reminder in reminders)
    count = f"{len(reminders):,} reminder{'' if len(reminders) == 1 else 's'}"
    if disabled:
        count += " (disabled)" if disabled == len(reminders) == 1 else f" ({disabled:,} disabled)"
    upcoming = [(moment, reminder) for reminder in reminders if (moment := next_of(reminder, now)) is not None]
    if not upcoming:
        return f"{count}; no upcoming fire times"
    moment, reminder = min(upcoming, key=lambda pair: pair[0])
    return f"{count}; the next is {reminder.name}, at {local_fire_time(moment, reminder)}, in {terminal.span(moment - now)}"


@commands.command("schema")
@with_paths
def schema_(paths: Paths) -> None:
    """Print the JSON Schema of the file, for editors that complete and check it."""
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
