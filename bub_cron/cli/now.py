"""The commands that run something now, through the live gateway: fire, send.

Invariants: they exit with 0 only for a final outcome that is good or meant, or for `accepted` where nobody waits. The
reply alone goes to standard output, with `--json` the socket's last answer alone.
"""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

import click

from bub_cron import terminal
from bub_cron.checkers import parse_duration
from bub_cron.cli.base import commands, json_option, name_argument, named, with_paths
from bub_cron.errors import GatewayAbsentError, GatewayLeftError, UnknownReminderError
from bub_cron.paths import Paths
from bub_cron.reminders import load
from bub_cron.states import ACCEPTED, BAD, FINAL, GOOD, REASONS, REJECTED, RETRYING, RUNNING, SKIPPED
from bub_cron.trigger.client import Connection
from bub_cron.wire import BUSY, FIELDS, MAX_LINE, check_fields, encode, parse_instant

_MESSAGES = ("prompt", "text", "command")
_ENDS = FINAL | {BUSY}
_BY_ITS_GATE = ("gate", "unchanged")
_TOO_LONG = f"the message is too long: a request may have {MAX_LINE // 1024} KiB"
_LOOK_SECONDS = 1.0  # between two looks at where the firing stands


@commands.command()
@name_argument
@click.option("--no-wait", is_flag=True, help="Return once the gateway has accepted it.")
@with_paths
@json_option
def fire(paths: Paths, name: str, no_wait: bool, as_json: bool) -> None:
    """Fire a reminder now and show what becomes of it.

    The reply goes to standard output, all else to standard error. With --json, the gateway's last answer goes to standard
    output. Ignores `enabled`, pauses and `overlap`. Exits with 0 for delivered, silent, ran and what its gate skipped, 69
    without a gateway, 1 otherwise; with --no-wait 0 for accepted.
    """
    try:
        reminder = named(load(paths.file), name)
    except UnknownReminderError as error:
        error.exit_status = 1
        raise
    request = {
        **reminder.content(),
        "id": f"fire-{name}-{uuid.uuid4().hex[:12]}",
        "overlap": "queue",
        "expires": time.time() + reminder.grace,
    }
    sys.exit(_run_now(paths, request, wait=not no_wait, as_json=as_json))


@commands.command()
@click.option("--to", required=True, metavar="CHANNEL:CHAT_ID", help="Where the reply goes.")
@click.option("--prompt", help="Run a turn with this prompt; `-` reads standard input.")
@click.option("--text", help="Send this as it is; `-` reads standard input.")
@click.option("--command", help="Run this Bub command, if the gateway allows commands; `-` reads standard input.")
@click.option("--session", help="The Bub session that the turn belongs to (default: as --to).")
@click.option("--timeout", help="One attempt's limit, such as 10m.")
@click.option("--no-wait", is_flag=True, help="Return once the gateway has accepted it.")
@with_paths
@json_option
def send(paths: Paths, no_wait: bool, as_json: bool, **fields: str | None) -> None:
    """Send a text, or run a prompt or a command, now and without a reminder; shows and exits as `fire`."""
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if [given.get(kind) for kind in _MESSAGES].count("-") == 1:
        given = {key: _standard_input() if key in _MESSAGES and value == "-" else value for key, value in given.items()}
    try:
        request = check_fields(given, FIELDS)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if "timeout" in given:
        request["timeout"] = parse_duration(given["timeout"])
    sys.exit(_run_now(paths, {**request, "id": f"send-{uuid.uuid4().hex[:12]}"}, wait=not no_wait, as_json=as_json))


def _standard_input() -> str:
    """Return what standard input has, without the line end that a shell's `echo` adds."""
    source = sys.stdin.buffer.read(MAX_LINE + 1)
    if len(source) > MAX_LINE:
        raise click.UsageError(_TOO_LONG)
    try:
        return source.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("standard input is not UTF-8") from error


def _run_now(paths: Paths, request: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    """Submit a request, show what becomes of it, and return the exit status."""
    line = encode({**request, "wait": wait})
    if len(line) > MAX_LINE:
        raise click.UsageError(_TOO_LONG)
    with Connection(paths.socket) as connection:
        connection.write(line)
        try:
            answer = _follow(connection, request, wait=wait)
        except KeyboardInterrupt:
            click.echo(f"no longer waiting; the gateway goes on with it: bub-cron log --id {request['id']}", err=True)
            return 1
    status = answer.get("status")
    if as_json:
        click.echo(terminal.json_line(answer))
    if status in (REJECTED, BUSY):
        what = "rejected" if status == REJECTED else "the gateway is busy, so nothing was fired"
        click.echo(f"{what}: {terminal.clean(str(answer.get('error')))}", err=True)
        return 1
    _show_answer(answer, request)
    if not as_json:
        for text in terminal.clean_lines(str(answer.get("reply", ""))):
            click.echo(text)
    if status in BAD:
        click.echo("`bub-cron doctor` examines the whole chain", err=True)
    is_meant = status in GOOD or (status == SKIPPED and answer.get("reason") in _BY_ITS_GATE)
    return 0 if is_meant or (not wait and status == ACCEPTED) else 1


def _follow(connection: Connection, request: dict[str, Any], *, wait: bool) -> dict[str, Any]:
    """Return the final answer, or without `wait` the first one; show meanwhile what goes on, and each refusal."""
    out = terminal.console(sys.stderr)
    began = time.monotonic()
    answers = connection.read_some()
    shown_refusals: set[str] = set()
    with out.status("asking the gateway") as shown:
        while True:
            for answer in answers:
                if not wait or answer.get("status") in _ENDS:
                    return answer
                refusal = _refusal(answer)
                if refusal and refusal not in shown_refusals:
                    if not shown_refusals:
                        click.echo("Ctrl-C ends only the waiting; the gateway goes on.", err=True)
                    shown_refusals.add(refusal)
                    click.echo(refusal, err=True)
                shown.update(_progress(answer, time.monotonic() - began))
            try:
                answers = connection.read(_LOOK_SECONDS)
                if not answers:
                    connection.write(encode({"status": request["id"]}))
            except GatewayAbsentError as error:
                text = f"{error}\n{request['id']} is in its inbox: `bub-cron log` will show what becomes of it"
                raise GatewayLeftError(text) from error


def _refusal(answer: dict[str, Any]) -> str:
    """Return, in one line, why an attempt or a send failed and when the next one is; "" if none did."""
    if answer.get("status") != RETRYING or not answer.get("error"):
        return ""
    try:
        at = f"; next try at {time.strftime('%H:%M:%S', time.localtime(parse_instant(str(answer['next_try']))))}"
    except (KeyError, ValueError):
        at = ""
    return f"failed: {terminal.first_line(str(answer['error']))}{at}"


def _progress(answer: dict[str, Any], seconds: float) -> str:
    what = {ACCEPTED: "waits for its turn", RUNNING: "is running", RETRYING: "will be tried again"}
    state = what.get(str(answer.get("status")), "asking the gateway")
    attempts = answer.get("attempts")
    attempts = attempts if isinstance(attempts, int) else 0
    return f"it {state}, {terminal.span(seconds)}{f' (attempt {attempts})' if attempts > 1 else ''}"


def _show_answer(answer: dict[str, Any], request: dict[str, Any]) -> None:
    status = str(answer.get("status"))
    words = [status, "to" if status.endswith("delivered") else "for", str(request["to"])]
    if isinstance(answer.get("seconds"), int | float):
        words += ["in", terminal.span(answer["seconds"])]
    said = terminal.painted(terminal.outcome(words[0]), sys.stderr)
    click.echo(f"{said} {terminal.clean(f'{" ".join(words[1:])} ({answer.get("id")})')}", err=True)
    why = answer.get("error") or REASONS.get(str(answer.get("reason")))
    if why:
        click.echo(f"error: {terminal.clean(str(why))}", err=True)
