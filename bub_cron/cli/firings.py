"""The commands about firings: tick, which records and submits them, and log, which shows what became of them."""

from __future__ import annotations

import contextlib
import sys
import time
from bisect import bisect
from collections import deque
from datetime import datetime
from itertools import groupby
from typing import Any

import click
from rich.text import Text

from bub_cron import terminal
from bub_cron.checkers import parse_duration
from bub_cron.cli.base import commands, json_option, named, optional_name_argument, with_paths
from bub_cron.cli.look import instant_of, local_fire_time, next_of
from bub_cron.errors import BubCronError, UnknownReminderError
from bub_cron.health.status import is_late
from bub_cron.paths import Paths
from bub_cron.pauses import in_force
from bub_cron.records import Record, gaps, history, last_tick, pauses
from bub_cron.reminders import load
from bub_cron.schedule import left_out
from bub_cron.states import ACCEPTED, DUE, OUTCOMES, RAN, RETRYING, RUNNING, SILENT
from bub_cron.trigger import tick as trigger
from bub_cron.wire import iso

LOG_COUNT = 20
_LEFT_OUT = 100  # days that calendars left out, at most


@commands.command()
@with_paths
def tick(paths: Paths) -> None:
    """Record and submit what is due: what cron or a systemd timer runs each minute.

    Says nothing when all is well, and the same trouble once an hour. Exits with 65 for a broken file, 66 for a missing
    one, 69 if something is due and no gateway took it, 74 if the store can't be written, 76 if the gateway rejected one.
    """
    sys.exit(trigger.run(paths, time.time()))


@commands.command()
@optional_name_argument
@click.option("-n", "count", type=click.IntRange(min=1), default=LOG_COUNT, show_default=True, help="At most so many.")
@click.option("--id", "firing_id", metavar="ID", help="Only the firing with this id.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only those with this outcome.")
@click.option("--since", metavar="WHEN", help="Only those since then: 2026-12-01T07:30, or 2h for the last two hours.")
@click.option("--until", metavar="WHEN", help="... and until then.")
@click.option("-f", "--follow", is_flag=True, help="Then show each as its outcome changes, until interrupted.")
@with_paths
@json_option
def log(
    paths: Paths,
    name: str | None,
    count: int,
    firing_id: str | None,
    outcome: str | None,
    since: str | None,
    until: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Show firings and what became of them, the newest first; with --follow the newest last.

    With a NAME or an --id, why a firing ended is never cut. Exits with 1 if there is no such reminder, and never was.

    Where no tick ran for a minute or more, a line says so: then nothing could fire. With a NAME, so does a line for each
    fire time that a calendar took away. (Not with --json: see `status`.)
    """
    now = int(time.time())
    begin, end = (None if when is None else _instant(when, now) for when in (since, until))
    if follow:
        if until is not None:
            raise click.UsageError("--follow goes on until you interrupt it: leave --until out")
        with contextlib.suppress(KeyboardInterrupt):
            wanted = {"firing_id": firing_id, "reminder": name, "outcome": outcome}
            _follow(paths, count, begin, wanted, as_json=as_json)
        return
    records = history(paths, firing_id=firing_id, reminder=name, outcome=outcome, since=begin, until=end, most=count)
    status = 0 if records or name is None or _is_known(paths, name) else 1
    if as_json:
        for record in records:
            click.echo(terminal.json_line(record_json(record)))
        sys.exit(status)
    whole = name is not None or firing_id is not None
    shown = [(record.moment, _row(record, whole=whole)) for record in records]
    if outcome is None and firing_id is None:
        oldest = max(begin or 0, records[-1].moment if len(records) == count else 0)
        there = [gap for gap in gaps(paths, oldest) if end is None or gap[0] <= end]
        shown += _gap_rows(there, [record.moment for record in records])
        if name is not None:
            first = max(begin or 0, records[-1].moment if records else begin or now)
            shown += _left_out_rows(paths, name, int(first), int(min(now, end or now)))
    rows = [row for _, row in sorted(shown, key=lambda pair: pair[0], reverse=True)]
    terminal.table(_COLUMNS, rows, elastic=_ELASTIC)
    if name is not None:
        click.echo(_outlook(paths, name, outcome, has_rows=bool(records)), err=True)
    elif firing_id is not None and not records:
        click.echo(f"no firing {terminal.clean(firing_id)} is {outcome or 'recorded'}", err=True)
    _tell_of_silence(paths, now)
    sys.exit(status)


def _is_known(paths: Paths, name: str) -> bool:
    """Tell whether a name is, or was, a reminder's. Where the file can't be read, nobody can tell that it isn't."""
    try:
        return any(reminder.name == name for reminder in load(paths.file)) or bool(
            history(paths, reminder=name, most=1)
        )
    except BubCronError:
        return True


_COLUMNS = ("time", "reminder", "outcome", "seconds", "attempts", "reply or error")
_ELASTIC = ("reminder", "reply or error")
_LEAST = (16, 20, 11, 7, 8, 40)  # of the columns, where rows are still to come
_FOLLOWED = 1000  # of the newest firings, how many are watched
_LOOK_SECONDS = 1.0


def _row(record: Record, *, whole: bool = False) -> tuple[str | Text, ...]:
    """Return what a row of the table says of a firing; with `whole`, all of why it is where it is."""
    return (
        _when(record),
        record.reminder or record.id,
        terminal.outcome(record.outcome),
        "" if record.seconds is None else f"{record.seconds:.1f}",
        str(record.attempts or ""),
        whole_words(record) if whole and record.why else _words(record),
    )


def _gap_rows(found: list[tuple[int, int]], moments: list[float]) -> list[tuple[float, tuple[str | Text, ...]]]:
    """Return a row, and where it stands in time, for each run of gaps (the newest first) with no firing in between."""
    rows: list[tuple[float, tuple[str | Text, ...]]] = []
    oldest_first = sorted(moments)
    for _, run in groupby(found, key=lambda gap: bisect(oldest_first, gap[0])):
        run_ = list(run)
        began, ended = run_[-1][0], run_[0][1]
        lost = terminal.span(sum(until - since for since, until in run_))
        times, all_ = (f"{len(run_):,} times ", " in all") if len(run_) > 1 else ("", "")
        since_, until_ = terminal.local_time(began), terminal.local_time(ended)
        # The time alone on the same day: a narrow terminal cuts the end.
        text = f"{times}until {until_[11:] if until_[:10] == since_[:10] else until_} ({lost}{all_})"
        rows.append((began, (terminal.local_time(began), "(no tick)", "", "", "", text)))
    return rows


def _left_out_rows(paths: Paths, name: str, after: int, until: int) -> list[tuple[float, tuple[str | Text, ...]]]:
    """Return a row for each fire time that a calendar took away, by what the files say now; the latest ones."""
    try:
        reminder = named(load(paths.file), name)
        found = deque(left_out(reminder.schedule, after, until), maxlen=_LEFT_OUT)
    except BubCronError:
        return []  # what is wrong with the files is told below the table
    return [(out.instant, (terminal.local_time(out.instant), name, "(left out)", "", "", out.why)) for out in found]


def _tell_of_silence(paths: Paths, now: int) -> None:
    instant = last_tick(paths).instant
    if instant is not None and is_late(instant, now):
        click.echo(f"no tick has run since {terminal.local_time(instant)}: see `bub-cron doctor`", err=True)


def _follow(paths: Paths, count: int, since: float | None, wanted: dict[str, Any], *, as_json: bool) -> None:
    """Print the newest firings, and from then on each one that is new or whose outcome has changed."""
    whole = bool(wanted["reminder"] or wanted["firing_id"])

    def newest(oldest: float | None = None) -> list[Record]:
        return history(paths, **wanted, since=oldest, most=_FOLLOWED)

    there = newest()
    # What is older than these is not new, also when one of them is pruned.
    oldest = there[-1].moment if len(there) == _FOLLOWED else None
    fresh = [record for record in there[:count] if since is None or record.moment >= since]
    gaps_since = max((ended for _, ended in gaps(paths)), default=0)
    fresh_gaps: list[tuple[int, int]] = []
    widths: list[int] | None = None
    while True:
        if as_json:
            for record in reversed(fresh):
                click.echo(terminal.json_line(record_json(record)))
        elif fresh or fresh_gaps or widths is None:
            shown = [(record.moment, _row(record, whole=whole)) for record in reversed(fresh)]
            shown += _gap_rows(fresh_gaps, [record.moment for record in fresh])
            rows = [row for _, row in sorted(shown, key=lambda pair: pair[0])]
            widths = terminal.table(_COLUMNS, rows, elastic=_ELASTIC, widths=widths, least=_LEAST)
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
        seen = {record.id: record.outcome for record in there}
        there = newest(oldest)
        fresh = [record for record in there if seen.get(record.id) != record.outcome]
        fresh_gaps = [] if wanted["outcome"] or wanted["firing_id"] else gaps(paths, gaps_since + 1)
        gaps_since = max([gaps_since, *(ended for _, ended in fresh_gaps)])


def _instant(text: str, now: int) -> float:
    """Read a moment: an instant, or how long ago it was, as a duration."""
    try:
        return now - parse_duration(text)
    except ValueError:
        return instant_of(text)


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
    if record.why:
        return terminal.first_line(_explained(record, record.why))
    plainly = _plainly(record)
    said = terminal.first_line(record.reply or record.text)
    return f"{plainly}: {said}" if plainly and said else plainly or said


def whole_words(record: Record) -> Text:
    """Return all of why a firing is where it is, or else what it said; as a cell that is folded, not cut."""
    if not record.why:
        return Text(_words(record), overflow="fold")
    return Text(" ".join(terminal.clean_lines(_explained(record, record.why))), overflow="fold")


def _explained(record: Record, why: str) -> str:
    return f"{_plainly(record)}: {why}" if record.outcome in (ACCEPTED, RETRYING) else why


def _plainly(record: Record) -> str:
    if record.outcome == ACCEPTED and record.accepted_at is None:
        return "a gateway has it, whose own record can't be seen here"
    return _PLAINLY.get(record.outcome, "")


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
    known = pauses(paths)
    moment = next_of(reminder, now, known)
    pause = in_force(known.of(name, reminder.pause_until), now)
    if pause is not None and reminder.enabled:
        none += f"{shown} is {terminal.first_line(pause.sentence(terminal.local_time))}; "
    if moment is not None:
        return f"{none}{shown} fires next at {local_fire_time(moment, reminder)}, in {terminal.span(moment - now)}"
    return (
        f"{none}{shown} is disabled"
        if not reminder.enabled
        else f"{none}{shown} will not fire again: its times are past"
        if pause is None
        else f"{none}`bub-cron resume {shown if pause.reminder else '--all'}` ends that"
    )


def _when(record: Record) -> str:
    """Return the fire time as the machine's local time; the caller's own label, or when it came, where it isn't one."""
    try:
        return terminal.local_time(datetime.fromisoformat(record.fire_time or "").timestamp())
    except (ValueError, OverflowError):
        return record.fire_time or terminal.local_time(record.accepted_at)


def record_json(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "reminder": record.reminder,
        "fire_time": record.fire_time,
        "outcome": record.outcome,
        "reason": record.reason,
        "attempts": record.attempts,
        "sends": record.sends,
        "tokens": record.tokens,
        "error": record.error,
        "reply": record.reply,
        "messages": [{field: message[field] for field in _MESSAGE_FIELDS} for message in record.messages],
        "accepted_at": None if record.accepted_at is None else iso(record.accepted_at),
        "finished_at": None if record.finished_at is None else iso(record.finished_at),
        "seconds": record.seconds,
        "count": record.count,
        "to": record.to,
    }


_MESSAGE_FIELDS = ("kind", "to", "state", "sends", "error")
