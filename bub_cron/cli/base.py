"""What every command stands on: the group, the options that all have, and errors become text.

Kept true here: every error of ours becomes its text and its exit status in one place, `_Commands`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from bub_cron import __version__, terminal
from bub_cron.errors import BubCronError, FileFaultsError, UnknownReminderError, each_of
from bub_cron.paths import Paths, find_paths
from bub_cron.records import names_in_force
from bub_cron.reminders import Reminder, load


class _Commands(click.Group):
    """The one place where an error of ours becomes text and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BubCronError as error:
            for one in each_of(error):
                _print_error(one)
            ctx.exit(error.exit_status)


def _print_error(error: BubCronError) -> None:
    if isinstance(error, FileFaultsError):
        terminal.print_faults(error, sys.stderr)
        return
    for line in terminal.clean_lines(str(error)):
        click.echo(f"bub-cron: {line}", err=True)


def _files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(begun, type="file")]


def _directories(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(begun, type="dir")]


def with_paths[R](command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options --file, --state and --socket, and hand it the paths in force."""

    @click.option(
        "--file",
        metavar="PATH",
        shell_complete=_files,
        help="The reminders file (BUB_CRON_FILE, $BUB_HOME/reminders.yaml).",
    )
    @click.option(
        "--state",
        metavar="DIR",
        shell_complete=_directories,
        help="The directory of the stores (BUB_CRON_STATE, $BUB_HOME/cron).",
    )
    @click.option(
        "--socket",
        metavar="PATH",
        shell_complete=_files,
        help="The gateway's socket (BUB_CRON_SOCKET, $BUB_HOME/cron/cron.sock).",
    )
    @functools.wraps(command)
    def wrapper(*, file: str | None, state: str | None, socket: str | None, **kwargs: Any) -> R:
        return command(find_paths(file=file, state=state, socket=socket), **kwargs)

    return wrapper


def paths_of(context: click.Context) -> Paths:
    """Return the paths in force for a command line that a shell completes."""
    given = context.params
    return find_paths(file=given.get("file"), state=given.get("state"), socket=given.get("socket"))


def complete_names(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Return the reminders' names that begin so, for the shell: of the file, or where it is broken of the last good one."""
    paths = paths_of(context)
    names: list[str] = []
    try:
        names = [reminder.name for reminder in load(paths.file)]
    except BubCronError:
        # A shell that completes has no place for the reason; any command tells it.
        with contextlib.suppress(BubCronError):
            names = names_in_force(paths)
    return [name for name in names if name.startswith(begun)]


name_argument = click.argument("name", shell_complete=complete_names)
optional_name_argument = click.argument("name", required=False, shell_complete=complete_names)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bub-cron")
def commands() -> None:
    """Reminders on a schedule for Bub.

    Reminders stand in a YAML file; cron or a systemd timer runs `bub-cron tick` each minute; the tick submits what is
    due to the live `bub gateway`, which delivers it to the chat it is for.
    """


def named(reminders: list[Reminder], name: str) -> Reminder:
    """Return the reminder of a name; `UnknownReminderError` tells of the nearest there is."""
    for reminder in reminders:
        if reminder.name == name:
            return reminder
    near = get_close_matches(name, [reminder.name for reminder in reminders], n=1)
    hint = f"did you mean {near[0]}?" if near else "`bub-cron list` shows those there are"
    raise UnknownReminderError(f"there is no reminder {terminal.clean(name)}; {hint}")
