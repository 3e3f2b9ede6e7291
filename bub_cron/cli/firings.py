"""The commands about firings: tick, which records and submits them, and log, which shows what became of them.

Invariants: no reason is ever cut; one clock per screen, which the head names.
"""

from __future__ import annotations

import contextlib
import gc
import select
import sys
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import groupby
from typing import Any, NamedTuple, TextIO

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, named, optional_name_argument, with_paths
from bub_cron.cli.look import next_of, screen_clock
from bub_cron.cli.when import end_of, start_of
from bub_cron.errors import BubCronError, UnknownReminderError
from bub_cron.health.status import is_late
from bub_cron.paths import Paths
from bub_cron.pauses import in_force
from bub_cron.records import Record, gaps, history, last_tick, pauses
from bub_cron.reminders import Reminder, load
from bub_cron.schedule import left_out
from bub_cron.states import ACCEPTED, DUE, OUTCOMES, RAN, RETRYING, RUNNING, SILENT
from bub_cron.trigger import tick as trigger
from bub_cron.wire import iso

LOG_COUNT = 20
_OUTCOME_HELP = f"Only those with this outcome: {', '.join(OUTCOMES)}."
_LEFT_OUT = 100  # days that calendars left out, at most


@commands.command()
@with_paths
def tick(paths: Paths) -> None:
    """Record and submit what is due: what cron or a systemd timer runs each minute.

    Prints nothing when all is well, and the same error once an hour. Exits with 65 for a faulty file, 66 for a missing
    one, 69 if something is due and no gateway took it, 74 if the store can't be written, 76 if the gateway rejected one.
    """
    sys.exit(trigger.run(paths, time.time()))


@commands.command()
@optional_name_argument
@click.option(
    "-n",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    default=LOG_COUNT,
    show_default=True,
    help="Show at most this many.",
)
@click.option("--id", "firing_id", metavar="ID", help="Only the firing with this id.")
@click.option("--outcome", type=click.Choice(OUTCOMES), metavar="OUTCOME", help=_OUTCOME_HELP)
@click.option("--since", metavar="WHEN", help="Only those since WHEN: 2026-12-01T07:30, yesterday, 2h (ago).")
@click.option("--until", metavar="WHEN", help="Only those until WHEN.")
@click.option("-f", "--follow", is_flag=True, help="Go on: show each firing whose outcome changes.")
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

    With a NAME or an --id, it shows all that is known of each: the reason, the messages, the reply, what its gate said. A
    line tells of each time of a minute or more without a tick, since then nothing could fire; with a NAME, also of each
    fire time that a calendar left out. (Not with --json: see `status`.)
    """
    now = int(time.time())
    reminder = None if name is None else _reminder(paths, name)
    clock, zone = screen_clock([] if reminder is None else [reminder])
    begin = None if since is None else start_of(since, now, ahead=False, zone=clock)
    end = None if until is None else end_of(until, now, ahead=False, zone=clock)
    shown = _Shown(clock, zone, whole=name is not None or firing_id is not None, has_id=firing_id is not None)
    wanted = {"firing_id": firing_id, "reminder": name, "outcome": outcome}
    if follow:
        if until is not None:
            raise click.UsageError("--follow goes on until you interrupt it: leave --until out")
        with contextlib.suppress(KeyboardInterrupt):
            _follow(paths, count, begin, wanted, shown, as_json=as_json)
        return
    found, ahead = _newest(paths, wanted, begin, end, now, count)
    status = 0 if found or ahead or name is None or reminder is not None or _is_known(paths, name) else 1
    if as_json:
        for record in [*found, *ahead]:
            click.echo(terminal.json_line(record_json(record)))
        sys.exit(status)
    rows = [(record.moment, shown.row(record)) for record in found]
    if outcome is None and firing_id is None:
        oldest = max(begin or 0, found[-1].moment if len(found) == count else 0)
        there = [gap for gap in gaps(paths, oldest) if end is None or gap[0] <= end]
        rows += shown.gap_rows(there, [record.moment for record in found])
        if reminder is not None:
            first = max(begin or 0, found[-1].moment if found else begin or now)
            rows += shown.left_out_rows(reminder, int(first), int(min(now, end or now)))
    lines = [row for _, row in sorted(rows, key=_moment_of, reverse=True)]
    if lines or ahead:
        above = {len(lines): _DATED_AHEAD} if ahead else {}
        shown.print([*lines, *map(shown.row, ahead)], above=above)
    if name is not None:
        click.echo(_outlook(paths, name, outcome, shown, has_rows=bool(found or ahead)), err=True)
    elif not lines and not ahead:
        click.echo(_what_next(paths, firing_id, outcome, is_chosen=bool(since or until)), err=True)
    _tell_of_silence(paths, shown, now)
    sys.exit(status)


def _newest(
    paths: Paths, wanted: dict[str, Any], begin: float | None, end: float | None, now: int, count: int
) -> tuple[list[Record], list[Record]]:
    """Return the newest firings; and those dated in the future, which are not the newest, if there is room for them."""
    latest = now + _AHEAD_SECONDS
    found = history(paths, **wanted, since=begin, until=latest if end is None else min(end, latest), most=count)
    if len(found) == count or (end is not None and end <= latest):
        return found, []
    return found, history(paths, **wanted, since=max(begin or 0, latest + 1), until=end, most=count - len(found))


def _moment_of(pair: tuple[float, _Row]) -> float:
    return pair[0]


def _what_next(paths: Paths, firing_id: str | None, outcome: str | None, *, is_chosen: bool) -> str:
    """Return what to do about an empty log."""
    if firing_id is not None:
        return f"no firing {terminal.clean(firing_id)} is {outcome or 'recorded'}"
    if outcome is not None or is_chosen:
        return "no firing matches; `bub-cron log` without options shows the newest"
    if last_tick(paths).instant is None:
        return "nothing has fired yet, and no tick has run: `bub-cron install` lets this machine run it each minute"
    return "nothing has fired yet: `bub-cron next` shows what will, and `bub-cron fire NAME` fires one now"


def _reminder(paths: Paths, name: str) -> Reminder | None:
    """Return the reminder of a name; None where there is none, or the files can't be read, which `_outlook` tells."""
    try:
        return named(load(paths.file), name)
    except BubCronError:
        return None


def _is_known(paths: Paths, name: str) -> bool:
    """Tell whether a name was ever a reminder's. Where the file can't be read, nobody can tell that it isn't."""
    try:
        load(paths.file)
        return bool(history(paths, reminder=name, most=1))
    except BubCronError:
        return True


_COLUMNS = ("reminder", "outcome", "reply or reason")
_LEAST = (16, 16, 11, 30)  # of the columns, where rows follow later
_AHEAD_SECONDS = 120  # what two clocks may differ by without a word
_DATED_AHEAD = "dated in the future, by a clock that was ahead or by the sender:"
_FOLLOWED = 1000  # of the newest firings, how many are watched
_LOOK_SECONDS = 1.0


class _Row(NamedTuple):
    """A row of the table, and the lines below it."""

    cells: tuple[str, ...]
    details: list[str]


class _Shown:
    """How firings are shown: by which clock, and with `whole` all that is known of each."""

    def __init__(self, clock: tzinfo | None, zone: str, *, whole: bool, has_id: bool) -> None:
        self._clock = clock
        self.zone = zone
        self._whole = whole
        self._has_id = has_id

    def time(self, instant: float | None) -> str:
        return "" if instant is None else f"{datetime.fromtimestamp(instant, self._clock):%Y-%m-%d %H:%M}"

    def print(
        self, rows: list[_Row], *, above: dict[int, str] | None = None, widths: list[int] | None = None,
        least: Sequence[int] | None = None,
    ) -> list[int]:  # fmt: skip
        details = {number: row.details for number, row in enumerate(rows)}
        return terminal.table(
            (f"time ({self.zone})", *_COLUMNS), [row.cells for row in rows], elastic=("reminder",), above=above, details=details,
            widths=widths, least=least, folds=True,
        )  # fmt: skip

    def row(self, record: Record) -> _Row:
        why = why_of(record)
        words = why or said_of(record, whole=self._whole)
        cells = (
            _fire_time(record, self.time),
            record.reminder or record.id,
            terminal.outcome(record.outcome),
            words,
        )
        return _Row(cells, list(self._details(record, has_why=bool(why))) if self._whole else [])

    def _details(self, record: Record, *, has_why: bool) -> Iterator[str]:
        if self._has_id:
            yield f"id: {record.id}"
            yield f"to: {record.to or '-'}"
        took = [
            f"{record.attempts} attempts" if record.attempts > 1 else "",
            f"{record.tokens:,} tokens" if record.tokens else "",
            "" if record.seconds is None else terminal.span(record.seconds),
        ]
        if any(took):
            yield f"took: {', '.join(filter(None, took))}"
        if record.reason:
            yield f"reason: {record.reason}"
        if record.count > 1:
            yield f"{record.count:,} fire times share this row"
        for message in record.messages:
            sends = f" after {message['sends']} sends" if (message["sends"] or 0) > 1 else ""
            error = f": {message['error']}" if message["error"] else ""
            # One message that arrived at once is what the outcome says already.
            if self._has_id or len(record.messages) > 1 or sends or error:
                yield f"{message['kind']} to {message['to']}: {message['state']}{sends}{error}"
        if record.gate:
            yield f"gate: {' / '.join(record.gate.split(chr(10))).strip(' /')}"
        said = ((record.reply if has_why else record.reply or record.text) or "").strip().splitlines()
        if has_why or len(said) > 1:  # else it stands in the row
            yield from (f"| {line}" for line in said)

    def gap_rows(self, found: list[tuple[int, int]], moments: list[float]) -> list[tuple[float, _Row]]:
        """Return a row, and where it stands in time, for each run of gaps (the newest first) with no firing in between."""
        rows: list[tuple[float, _Row]] = []
        oldest_first = sorted(moments)
        for _, run in groupby(found, key=lambda gap: bisect(oldest_first, gap[0])):
            run_ = list(run)
            began, ended = run_[-1][0], run_[0][1]
            lost = terminal.span(sum(until - since for since, until in run_))
            times, all_ = (f"{len(run_):,} times ", " in all") if len(run_) > 1 else ("", "")
            since_, until_ = self.time(began), self.time(ended)
            text = f"{times}until {until_[11:] if until_[:10] == since_[:10] else until_} ({lost}{all_})"
            rows.append((began, _Row((since_, "(no tick)", "", text), [])))
        return rows

    def left_out_rows(self, reminder: Reminder, after: int, until: int) -> list[tuple[float, _Row]]:
        """Return a row for each fire time that a calendar took away, by what the files say now; the latest ones."""
        try:
            found = deque(left_out(reminder.schedule, after, until), maxlen=_LEFT_OUT)
        except BubCronError:
            return []  # what is wrong with the files is told below the table
        return [
            (out.instant, _Row((self.time(out.instant), reminder.name, "(left out)", out.why), [])) for out in found
        ]


def _tell_of_silence(paths: Paths, shown: _Shown, now: int) -> None:
    instant = last_tick(paths).instant
    if instant is not None and is_late(instant, now):
        click.echo(f"no tick has run since {shown.time(instant)}: see `bub-cron doctor`", err=True)


def _is_read(out: TextIO) -> bool:
    """Tell whether anybody can still read what goes to a stream: the other end of a pipe may have been closed."""
    poll = select.poll()
    poll.register(out.fileno(), 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def _follow(
    paths: Paths, count: int, since: float | None, wanted: dict[str, Any], shown: _Shown, *, as_json: bool
) -> None:
    """Print the newest firings, and from then on each one that is new or whose outcome has changed."""

    def newest(oldest: float | None = None) -> list[Record]:
        return history(paths, **wanted, since=oldest, most=_FOLLOWED)

    gc.enable()
    there = newest()
    # What is older than these is not new, also when one of them is pruned.
    oldest = there[-1].moment if len(there) == _FOLLOWED else None
    fresh = [record for record in there[:count] if since is None or record.moment >= since]
    gaps_since = max((ended for _, ended in gaps(paths)), default=0)
    fresh_gaps: list[tuple[int, int]] = []
    widths: list[int] | None = None
    while _is_read(sys.stdout):
        if as_json:
            for record in reversed(fresh):
                click.echo(terminal.json_line(record_json(record)))
        elif fresh or fresh_gaps or widths is None:
            rows = [(record.moment, shown.row(record)) for record in reversed(fresh)]
            rows += shown.gap_rows(fresh_gaps, [record.moment for record in fresh])
            in_order = [row for _, row in sorted(rows, key=_moment_of)]
            widths = shown.print(in_order, widths=widths, least=_LEAST)
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
        seen = {record.id: record.outcome for record in there}
        there = newest(oldest)
        fresh = [record for record in there if seen.get(record.id) != record.outcome]
        fresh_gaps = [] if wanted["outcome"] or wanted["firing_id"] else gaps(paths, gaps_since + 1)
        gaps_since = max([gaps_since, *(ended for _, ended in fresh_gaps)])


# What became of a firing that has neither an error nor a reply, or what it still waits for.
_PLAINLY = {
    DUE: "waits for a gateway to take it",
    ACCEPTED: "waits for its turn in the gateway",
    RUNNING: "is under way",
    RETRYING: "waits to be tried again",
    SILENT: "nothing was sent: the model had nothing to say",
    RAN: "it ran, and nothing was sent for it",
}


def why_of(record: Record) -> str:
    """Return, in one line, why a firing is where it is; "" if nothing more is known than its outcome."""
    return " ".join(terminal.clean_lines(_explained(record, record.why))) if record.why else ""


def said_of(record: Record, *, whole: bool) -> str:
    """Return, in one line, what a firing said; without `whole` its end may be cut."""
    plainly = _plainly(record)
    said = (record.reply or record.text or "").strip()
    if whole and len(said.splitlines()) > 1:
        return plainly  # its lines are told below
    line = terminal.first_line(said)
    if not line:
        return plainly
    text = f"{plainly}: {line}" if plainly else line
    return text if whole else terminal.Brief(text, "")


def _explained(record: Record, why: str) -> str:
    return f"{_plainly(record)}: {why}" if record.outcome in (ACCEPTED, RETRYING) else why


def _plainly(record: Record) -> str:
    if record.outcome == ACCEPTED and record.accepted_at is None:
        return "a gateway has it, whose own record can't be seen here"
    return _PLAINLY.get(record.outcome, "")


def _outlook(paths: Paths, name: str, outcome: str | None, shown: _Shown, *, has_rows: bool) -> str:
    """Return what a person who asks about a reminder, and why it didn't fire, needs besides its firings."""
    title = terminal.clean(name)
    none = "" if has_rows else f"no firing of {title} is {outcome or 'recorded'}; "
    try:
        reminder = named(load(paths.file), name)
    except UnknownReminderError as error:
        return f"{none}{error}"
    except BubCronError as error:
        return f"{none}when {title} fires next isn't known: {terminal.first_line(str(error))}"
    now = int(time.time())
    known = pauses(paths)
    moment = next_of(reminder, now, known)
    pause = in_force(known.of(name, reminder.pause_until), now)
    if pause is not None and reminder.enabled:
        none += f"{title} is {terminal.first_line(pause.sentence(shown.time))}; "
    if moment is not None:
        return f"{none}{title} fires next at {shown.time(moment)}{'' if has_rows else f' {shown.zone}'}, in {terminal.span(moment - now)}"
    if not reminder.enabled:
        return f"{none}{title} is disabled"
    if pause is None:
        return f"{none}{title} will not fire again: its times are past"
    return f"{none}`bub-cron resume {title if pause.reminder else '--all'}` ends that"


def _fire_time(record: Record, clock: Callable[[float | None], str]) -> str:
    """Return the fire time by a clock; the caller's own label, or when it was accepted, where it isn't an instant."""
    try:
        return clock(datetime.fromisoformat(record.fire_time or "").timestamp())
    except (ValueError, OverflowError):
        return record.fire_time or clock(record.accepted_at)


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
