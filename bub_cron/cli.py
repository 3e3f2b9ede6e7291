"""The commands: the operator's face.

Kept true here: data goes to standard output, words about it to standard error; every error of ours becomes its text and
its exit status in one place (`_Commands`); commands that only look change nothing.
"""

from __future__ import annotations

import functools
import heapq
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from bub_cron import __version__, terminal
from bub_cron.errors import (
    BubCronError,
    FileExistsAlreadyError,
    FileFaultsError,
    GatewayAbsentError,
    GatewayLeftError,
    UnknownReminderError,
)
from bub_cron.paths import Paths, find_paths
from bub_cron.records import Record, history, last_records
from bub_cron.reminders import STARTER, Reminder, json_schema, load, suspicions
from bub_cron.schedule import describe, fire_times, next_fire_time
from bub_cron.trigger import tick as trigger
from bub_cron.trigger.client import PATIENCE, Connection
from bub_cron.wire import (
    ACCEPTED,
    BUSY,
    GOOD,
    LAST_WORDS,
    MAX_LINE,
    OUTCOMES,
    REJECTED,
    RETRYING,
    RUNNING,
    check_fields,
    encode,
    iso,
    parse_duration,
)
from bub_cron.wire import FIELDS as WIRE_FIELDS

FAR = 253402214400  # 9999-12-31, where calendars end
DEFAULT_COUNT = 10
LOG_COUNT = 20
_ENDS = LAST_WORDS | {BUSY}


class _Commands(click.Group):
    """The one place where an error of ours becomes text and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FileFaultsError as error:
            terminal.print_faults(error, sys.stderr)
            ctx.exit(error.exit_status)
        except BubCronError as error:
            for line in terminal.clean_lines(str(error)):
                click.echo(f"bub-cron: {line}", err=True)
            ctx.exit(error.exit_status)


def _with_paths[R](command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options --file, --state and --socket, and hand it the paths in force."""

    @click.option("--file", metavar="PATH", help="The reminders file (BUB_CRON_FILE, $BUB_HOME/reminders.yaml).")
    @click.option("--state", metavar="DIR", help="The directory of the stores (BUB_CRON_STATE, $BUB_HOME/cron).")
    @click.option("--socket", metavar="PATH", help="The gateway's socket (BUB_CRON_SOCKET, $BUB_HOME/cron/cron.sock).")
    @functools.wraps(command)
    def wrapper(*, file: str | None, state: str | None, socket: str | None, **kwargs: Any) -> R:
        return command(find_paths(file=file, state=state, socket=socket), **kwargs)

    return wrapper


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bub-cron")
def commands() -> None:
    """Reminders on a schedule for Bub.

    Reminders stand in a YAML file; cron or a systemd timer runs `bub-cron tick` each minute; the tick submits what is
    due to the live `bub gateway`, which delivers it to the chat it is for.
    """


# --- The file


@commands.command()
@_with_paths
def init(paths: Paths) -> None:
    """Write a commented starter file, never over an existing one."""
    try:
        os.makedirs(os.path.dirname(paths.file), exist_ok=True)
        with open(paths.file, "x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError as error:
        raise FileExistsAlreadyError(f"{paths.file} is there already; it was left as it is") from error
    except OSError as error:
        raise FileExistsAlreadyError(f"{paths.file} can't be written: {error.strerror or error}") from error
    click.echo(paths.file)
    click.echo("Edit it, then try `bub-cron check` and `bub-cron next`.", err=True)


@commands.command()
@_with_paths
def check(paths: Paths) -> None:
    """Print every fault of the file, or a one-line summary."""
    try:
        reminders = load(paths.file)
    except FileFaultsError as error:
        terminal.print_faults(error, sys.stdout)
        sys.exit(error.exit_status)
    now = int(time.time())
    for notice in suspicions(reminders, now):
        click.echo(
            f"{terminal.clean(paths.file)}:{notice.line}:{notice.column}: warning: {terminal.clean(notice.message)}",
            err=True,
        )
    click.echo(f"{terminal.clean(paths.file)}: {_summary(reminders, now)}")


def _summary(reminders: list[Reminder], now: int) -> str:
    disabled = sum(not reminder.enabled for reminder in reminders)
    count = f"{len(reminders)} reminder{'' if len(reminders) == 1 else 's'}"
    if disabled:
        count += f", {disabled} of them disabled"
    upcoming = [(moment, reminder) for reminder in reminders if (moment := _next(reminder, now)) is not None]
    if not upcoming:
        return f"{count}; nothing is to fire"
    moment, reminder = min(upcoming, key=lambda pair: pair[0])
    return f"{count}; the next is {reminder.name}, at {_local(moment, reminder)}, in {terminal.span(moment - now)}"


@commands.command("schema")
@_with_paths
def schema_(paths: Paths) -> None:
    """Print the JSON Schema of the file, for editors that complete and check it."""
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@commands.command("list")
@_with_paths
@_json_option
def list_(paths: Paths, as_json: bool) -> None:
    """Show the reminders, when each fires next, and what became of the last one."""
    reminders = load(paths.file)
    last = last_records(paths)
    now = int(time.time())
    if as_json:
        for reminder in reminders:
            click.echo(terminal.json_line(_reminder_json(reminder, last.get(reminder.name), now)))
        return
    rows = [
        (
            reminder.name,
            describe(reminder.schedule),
            f"{_zoned(moment, reminder):%a %Y-%m-%d %H:%M}"
            if (moment := _next(reminder, now))
            else "-"
            if reminder.enabled
            else "disabled",
            reminder.to,
            terminal.outcome(last[reminder.name].outcome) if reminder.name in last else "-",
        )
        for reminder in reminders
    ]
    terminal.table(("reminder", "schedule", "next", "to", "last"), rows, elastic=("reminder", "schedule", "to"))


def _reminder_json(reminder: Reminder, last: Record | None, now: int) -> dict[str, Any]:
    moment = _next(reminder, now)
    return {
        "reminder": reminder.name,
        "enabled": reminder.enabled,
        "schedule": reminder.schedule_text,
        "timezone": reminder.schedule.zone,
        "means": describe(reminder.schedule),
        "kind": reminder.kind,
        "to": reminder.to,
        "next": None if moment is None else iso(moment),
        "last": None if last is None else {"fire_time": last.fire_time, "outcome": last.outcome, "error": last.error},
    }


@commands.command("next")
@click.argument("name", required=False)
@click.option(
    "-n", "count", type=click.IntRange(min=1), help=f"At most so many (default {DEFAULT_COUNT}; all with --until)."
)
@click.option("--after", metavar="ISO", help="Fire times after this instant (default: now).")
@click.option("--until", metavar="ISO", help="... and not after this one.")
@_with_paths
@_json_option
def next_(
    paths: Paths, name: str | None, count: int | None, after: str | None, until: str | None, as_json: bool
) -> None:
    """Show the fire times to come, of one reminder or of all."""
    reminders = load(paths.file)
    chosen = reminders if name is None else [_named(reminders, name)]
    now = int(time.time())
    begin = now if after is None else _instant(after)
    end = FAR if until is None else _instant(until)
    most = count or (DEFAULT_COUNT if until is None else None)
    moments = islice(_upcoming(chosen, begin, end), most)
    if as_json:
        for moment, reminder in moments:
            local = _zoned(moment, reminder).isoformat()
            click.echo(terminal.json_line({"reminder": reminder.name, "fire_time": iso(moment), "local": local}))
        return
    shown = [(_local(moment, reminder), _here(moment, reminder), moment, reminder) for moment, reminder in moments]
    if not shown:
        off = ", ".join(reminder.name for reminder in chosen if not reminder.enabled)
        click.echo(f"nothing is to fire{f'; disabled: {off}' if off else ''}", err=True)
        return
    # Where the machine's clock shows the same as each reminder's, one column says it all.
    differ = any(here for _, here, *_ in shown)
    rows = [
        [when, *([here] if differ else []), _away(moment - now), reminder.name, reminder.to]
        for when, here, moment, reminder in shown
    ]
    columns = ["when", *(["here"] if differ else []), "in", "reminder", "to"]
    terminal.table(columns, rows, elastic=("reminder", "to"))


def _upcoming(reminders: list[Reminder], after: int, until: int) -> Iterator[tuple[int, Reminder]]:
    def one(reminder: Reminder) -> Iterator[tuple[int, Reminder]]:
        return ((moment, reminder) for moment in fire_times(reminder.schedule, after, until))

    enabled = [reminder for reminder in reminders if reminder.enabled]
    return heapq.merge(*map(one, enabled), key=lambda pair: pair[0])


def _instant(text: str) -> int:
    """Read an ISO 8601 instant; one without an offset is the machine's local time."""
    try:
        return int(datetime.fromisoformat(text).timestamp() // 1)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{text!r} is not an instant; write it like 2026-12-01T07:30:00Z") from error


def _named(reminders: list[Reminder], name: str) -> Reminder:
    for reminder in reminders:
        if reminder.name == name:
            return reminder
    near = get_close_matches(name, [reminder.name for reminder in reminders], n=1)
    hint = f"did you mean {near[0]}?" if near else "`bub-cron list` shows those there are"
    raise UnknownReminderError(f"there is no reminder {terminal.clean(name)}; {hint}")


def _next(reminder: Reminder, now: int) -> int | None:
    return next_fire_time(reminder.schedule, now) if reminder.enabled else None


def _zoned(moment: int, reminder: Reminder) -> datetime:
    return datetime.fromtimestamp(moment, ZoneInfo(reminder.timezone))


def _local(moment: int, reminder: Reminder) -> str:
    return f"{_zoned(moment, reminder):%a %Y-%m-%d %H:%M} {reminder.timezone}"


def _here(moment: int, reminder: Reminder) -> str:
    """Return what the machine's clock shows then: "" if the same as the reminder's, without the date if that is."""
    theirs, here = f"{_zoned(moment, reminder):%Y-%m-%d %H:%M}", terminal.local_time(moment)
    return "" if here == theirs else here[11:] if here[:10] == theirs[:10] else here


def _away(seconds: int) -> str:
    return terminal.span(seconds) if seconds >= 0 else f"{terminal.span(-seconds)} ago"


# --- Running something now


@commands.command()
@click.argument("name")
@click.option("--no-wait", is_flag=True, help="Return once the gateway has accepted it.")
@_with_paths
def fire(paths: Paths, name: str, no_wait: bool) -> None:
    """Fire a reminder now and show what becomes of it.

    Minds neither `enabled` nor `overlap`. Exits with 0 for delivered, silent and ran, 69 without a gateway, 1 otherwise.
    """
    try:
        reminder = _named(load(paths.file), name)
    except UnknownReminderError as error:
        error.exit_status = 1
        raise
    request = {**reminder.content(), "id": f"fire-{name}-{uuid.uuid4().hex[:12]}", "overlap": "queue"}
    sys.exit(_run_now(paths, request, wait=not no_wait))


@commands.command()
@click.option("--to", required=True, metavar="CHANNEL:CHAT_ID", help="Where the reply goes.")
@click.option("--prompt", help="Run a turn with this prompt.")
@click.option("--text", help="Send this as it is.")
@click.option("--session", help="The Bub session that the turn belongs to (default: as --to).")
@click.option("--timeout", help="One attempt's limit, such as 10m.")
@click.option("--no-wait", is_flag=True, help="Return once the gateway has accepted it.")
@_with_paths
def send(paths: Paths, no_wait: bool, **fields: str | None) -> None:
    """Send a text, or run a prompt, now and without a reminder; shows and exits as `fire`."""
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    try:
        request = check_fields(given, WIRE_FIELDS)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if "timeout" in given:
        request["timeout"] = parse_duration(given["timeout"])
    sys.exit(_run_now(paths, {**request, "id": f"send-{uuid.uuid4().hex[:12]}"}, wait=not no_wait))


def _run_now(paths: Paths, request: dict[str, Any], *, wait: bool) -> int:
    """Submit a request, show what becomes of it, and return the exit status."""
    line = encode({**request, "wait": wait})
    if len(line) > MAX_LINE:
        raise click.UsageError(f"the message is too long: a request may have {MAX_LINE // 1024} KiB")
    with Connection(paths.socket) as connection:
        connection.write(line)
        answer = _follow(connection, request, wait=wait)
    status = answer.get("status")
    if status == REJECTED:
        click.echo(f"rejected: {terminal.clean(str(answer.get('error')))}", err=True)
        return 1
    _show_answer(answer, request)
    return 0 if status in GOOD or (not wait and status == ACCEPTED) else 1


def _follow(connection: Connection, request: dict[str, Any], *, wait: bool) -> dict[str, Any]:
    """Return the last word, or without `wait` the first one; on a terminal, show meanwhile what goes on."""
    out = terminal.console(sys.stderr)
    began = time.monotonic()
    answers = connection.read_some()
    with out.status("asking the gateway") as shown:
        while True:
            for answer in answers:
                if not wait or answer.get("status") in _ENDS:
                    return answer
                shown.update(_progress(answer, time.monotonic() - began))
            try:
                if out.is_terminal:
                    connection.write(encode({"status": request["id"]}))
                answers = connection.read(1.0 if out.is_terminal else PATIENCE)
            except GatewayAbsentError as error:
                text = f"{error}\n{request['id']} is in its inbox: `bub-cron log` will show what becomes of it"
                raise GatewayLeftError(text) from error


def _progress(answer: dict[str, Any], seconds: float) -> str:
    what = {ACCEPTED: "waits for its turn", RUNNING: "is running", RETRYING: "failed and will be tried again"}
    state = what.get(str(answer.get("status")), "asking the gateway")
    attempts = answer.get("attempts", 0)
    return f"it {state}, {terminal.span(seconds)}{f' (attempt {attempts})' if attempts > 1 else ''}"


def _show_answer(answer: dict[str, Any], request: dict[str, Any]) -> None:
    status = str(answer.get("status"))
    words = [status, "to" if status.endswith("delivered") else "for", str(request["to"])]
    if "seconds" in answer:
        words += ["in", terminal.span(answer["seconds"])]
    out = terminal.console()
    out.print(terminal.outcome(words[0]), terminal.clean(f"{' '.join(words[1:])} ({answer.get('id')})"), soft_wrap=True)
    if "error" in answer:
        click.echo(f"error: {terminal.clean(str(answer['error']))}", err=True)
    for line in terminal.clean_lines(str(answer.get("reply", ""))):
        click.echo(line)


# --- The tick and the log


@commands.command()
@_with_paths
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
@_with_paths
@_json_option
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
