"""The command remove: a reminder that was made in chat, and no other.

Invariants: no file but `chat.yaml` is ever written to, and that one only by `reminders/chat_file.py`.
"""

from __future__ import annotations

import os

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, nearest, paths_of, with_paths
from bub_cron.errors import BubCronError, UnknownReminderError
from bub_cron.paths import Paths, chat_file
from bub_cron.reminders import read_files
from bub_cron.reminders.chat_file import remove as remove_from


def _names(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    try:
        found = _in_chat(paths_of(context))
    except BubCronError:
        return []  # a shell that completes has no place for the reason
    return [name for name in found if name.startswith(begun)]


@commands.command()
@click.argument("name", shell_complete=_names)
@with_paths
def remove(paths: Paths, name: str) -> None:
    """Remove a reminder that was made in chat.

    It is taken out of `chat.yaml`, and what of it is still due is skipped. Reminders of your own files are yours to edit.
    Exits with 1 if none of that name was made in chat, and with 73 if the file can't be written.
    """
    path = chat_file(paths.file)
    if not os.path.lexists(path):  # to look into it would make its directory
        raise _unknown(paths, name)
    try:
        remove_from(path, name)
    except UnknownReminderError as error:
        raise _unknown(paths, name) from error
    click.echo(f"removed {terminal.clean(name)} from {terminal.clean(path)}")


def _unknown(paths: Paths, name: str) -> UnknownReminderError:
    """Tell where a reminder that was not made in chat stands, or which one may be meant."""
    shown, unread = terminal.clean(name), []
    for file in read_files(paths.file):
        for reminder in file.reminders:
            if reminder.name == name:
                place = f"{reminder.file}:{reminder.line}"
                return UnknownReminderError(f"{shown} was not made in chat: it stands at {place}; remove it there")
        if file.error is not None:
            unread.append(file.path)
    near = nearest(name, _in_chat(paths))
    hint = f"did you mean {near}?" if near else "`bub-cron list` shows those there are"
    beside = f"\n{', '.join(unread)} can't be read, so it may stand there: `bub-cron check`" if unread else ""
    return UnknownReminderError(f"no reminder {shown} was made in chat; {hint}{beside}")


def _in_chat(paths: Paths) -> list[str]:
    path = chat_file(paths.file)
    return [one.name for file in read_files(paths.file) if file.path == path for one in file.reminders]
