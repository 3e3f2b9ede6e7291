"""What every command stands on: the group, the options that all have, and errors become text.

Invariants:
- Every error of ours becomes its text and its exit status in one place, `_Commands`.
- A command's module is loaded when that command is asked for, not before: `--help` needs none.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from bub_cron import __version__
from bub_cron.cli.contents import ENTRIES, EXAMPLES, GROUPS, OTHER, STATUSES
from bub_cron.errors import (
    STAYS_IN_FORCE,
    BubCronError,
    FaultyFilesError,
    FileFaultsError,
    FileMissingError,
    FileUnreadableError,
    StoreError,
    UnknownReminderError,
    each_of,
)
from bub_cron.paths import Paths, find_paths, text_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bub_cron.reminders import Reminder

_PATH_OPTIONS = ("file", "state", "socket")


class _Command(click.Command):
    """A command whose help ends with its examples and its exit statuses."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        entry = ENTRIES.get(self.name or "")
        if entry is not None:
            _write_lines(formatter, "Examples", entry.examples)
            statuses = entry.exits if entry.exits == "the gate's own" else f"{entry.exits}, 2 wrong usage"
            _write_lines(formatter, "Exits with", [statuses])
        super().format_epilog(ctx, formatter)


class _Commands(click.Group):
    """The one place where an error of ours becomes text and an exit status; and the commands by groups."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*ENTRIES, *sorted(self.commands.keys() - ENTRIES.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in ENTRIES:
            import_module(f"bub_cron.cli.{ENTRIES[cmd_name].module}")
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0][:1] != "-" and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"there is no command {args[0]!r}{f'; did you mean {near}?' if near else ''}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {title: [(name, one.summary) for name, one in entries.items()] for title, entries in GROUPS.items()}
        groups[OTHER] = [
            (name, self.commands[name].get_short_help_str(60)) for name in sorted(self.commands.keys() - ENTRIES.keys())
        ]
        # All in one column, whatever is the longest name of a group.
        width = max(len(name) for rows in groups.values() for name, _ in rows)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(f"{name:{width}}", summary) for name, summary in rows])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, "Examples", EXAMPLES)
        with formatter.section("Exit status"):
            formatter.write_dl(list(STATUSES))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=ENTRIES[name].summary if name in ENTRIES else None) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BubCronError as error:
            for one in each_of(error):
                _print_error(one)
            for note in getattr(error, "__notes__", ()):
                click.echo(f"bub-cron: {note}", err=True)
            ctx.exit(error.exit_status)


def _write_lines(formatter: click.HelpFormatter, title: str, lines: Iterable[str]) -> None:
    with formatter.section(title):
        for line in lines:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _print_error(error: BubCronError) -> None:
    from bub_cron import terminal

    if isinstance(error, FileFaultsError):
        terminal.print_faults(error, sys.stderr)
        return
    for line in terminal.clean_lines(str(error)):
        click.echo(f"bub-cron: {line}", err=True)


def _files(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    return _completed(begun, "file")


def _directories(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    return _completed(begun, "dir")


def _completed(begun: str, kind: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type=kind)]


def _path_options[F: Callable[..., Any]](*, hidden: bool) -> Callable[[F], F]:
    """Return what gives a command the options --file, --state and --socket."""

    def add(command: F) -> F:
        described = {
            "file": ("PATH", _files, "The reminders file (BUB_CRON_FILE, $BUB_HOME/reminders.yaml)."),
            "state": ("DIR", _directories, "The directory of the stores (BUB_CRON_STATE, $BUB_HOME/cron)."),
            "socket": ("PATH", _files, "The gateway's socket (BUB_CRON_SOCKET, $BUB_HOME/cron/cron.sock)."),
        }
        for name in reversed(_PATH_OPTIONS):
            metavar, complete, text = described[name]
            option = click.option(f"--{name}", metavar=metavar, shell_complete=complete, help=text, hidden=hidden)
            command = option(command)
        return command

    return add


def with_paths[R](command: Callable[..., R]) -> Callable[..., R]:
    """Let a command take --file, --state and --socket, and hand it the paths in force.

    They may stand before the command as well; its own count more. Only the group's help names them.
    """

    @_path_options(hidden=True)
    @click.pass_context
    @functools.wraps(command)
    def wrapper(context: click.Context, /, **given: Any) -> R:
        paths = paths_of(context)
        try:
            return command(paths, **{name: value for name, value in given.items() if name not in _PATH_OPTIONS})
        except (FaultyFilesError, FileFaultsError, FileMissingError, FileUnreadableError) as error:
            if _is_in_force(each_of(error), paths):
                error.add_note(STAYS_IN_FORCE)
            raise

    return wrapper


def _is_in_force(errors: Iterable[BubCronError], paths: Paths) -> bool:
    """Tell whether the tick goes by an earlier version of one of the files, or of a file below a directory, at fault."""
    from bub_cron.records import files_in_force

    try:
        files = [os.path.realpath(file) for file in files_in_force(paths)]
    except StoreError:
        return False  # the error at hand counts; `status` and `doctor` tell of the store
    # What is missing has no path: then it is that of all files.
    found = [getattr(error, "path", "") for error in errors]
    places = [os.path.realpath(text_of(path)) if path else "" for path in found]
    return any(file == place or file.startswith(f"{place}/") for file in files for place in places)


def paths_of(context: click.Context) -> Paths:
    """Return the paths in force for a command line, also for one that a shell completes."""
    given: dict[str, str | None] = {}
    for one in (context.find_root(), context):
        given |= {name: one.params[name] for name in _PATH_OPTIONS if one.params.get(name)}
    return find_paths(file=given.get("file"), state=given.get("state"), socket=given.get("socket"))


def complete_names(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Return the reminders' names that begin so, for the shell: of the file, or where it is broken of the last good one."""
    from bub_cron.cli.unchanged import names_for_shell

    return [name for name in names_for_shell(paths_of(context)) if name.startswith(begun)]


name_argument = click.argument("name", shell_complete=complete_names)
optional_name_argument = click.argument("name", required=False, shell_complete=complete_names)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="COMMAND [ARGUMENTS]...",
    options_metavar="[OPTIONS]",
)
@_path_options(hidden=False)
@click.version_option(__version__, prog_name="bub-cron")
def commands(file: str | None, state: str | None, socket: str | None) -> None:
    """Reminders on a schedule for Bub.

    You write reminders into a YAML file. cron or a systemd timer runs `bub-cron tick` each minute. The tick submits what is due
    to the live `bub gateway`, which delivers it to its chat.

    Options may stand before or after any command; `bub-cron COMMAND --help` shows a command's own.
    """


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return which of the names may have been meant; None if none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), n=1)
    return near[0] if near else None


def unknown_reminder(name: str, names: Iterable[str]) -> UnknownReminderError:
    """Return the error that there is no reminder of a name; it tells of the nearest of `names`."""
    from bub_cron import terminal

    near = nearest(name, names)
    hint = f"did you mean {terminal.clean(near)}?" if near else "`bub-cron list` shows those there are"
    return UnknownReminderError(f"there is no reminder {terminal.clean(name)}; {hint}")


def named(reminders: list[Reminder], name: str) -> Reminder:
    """Return the reminder of a name; `UnknownReminderError` tells of the nearest there is."""
    for reminder in reminders:
        if reminder.name == name:
            return reminder
    raise unknown_reminder(name, (reminder.name for reminder in reminders))
