"""One tick: read the file if it changed, record what is due, submit it.

Kept true here:
- Every fire time since the last tick is recorded before the socket is touched, in the transaction that moves on past it.
- A firing that may have been submitted already is never called `missed`, nor submitted with other content, before the
  inbox was asked for it, by its file or over the socket; while nobody can be asked, it stays `due`.
- Two ticks at once do no harm: each decision is one transaction on rows that are still `due`, and an id runs once.
- `now` is read once, by the caller.

A tick with nothing to do loads no more than SQLite.
"""

from __future__ import annotations

import os
import sqlite3
import sys

from bub_cron import errors
from bub_cron.errors import BubCronError, GatewayAbsentError, StoreError
from bub_cron.store import store_error
from bub_cron.trigger.ledger import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

    from bub_cron.paths import Paths
    from bub_cron.trigger.ledger import Due

ROWS_EACH = 1000  # fire times of one reminder, missed by the ticks, that get a row each
FRESH_SECONDS = 60  # older ones, when they first can be submitted, are what `catch_up` chooses from
CLOCK_BACK_SECONDS = 3 * 3600


class Trouble:
    """One thing that is wrong: `key` tells it from others, tick after tick; `text` is what the user reads."""

    __slots__ = ("key", "status", "text")

    def __init__(self, status: int, text: str, key: str | None = None) -> None:
        self.status = status
        self.text = text
        self.key = key or text


# Of several troubles, the tick exits with the first of these.
_URGENCY = (errors.EX_IOERR, errors.EX_PROTOCOL, errors.EX_UNAVAILABLE, errors.EX_DATAERR, errors.EX_NOINPUT)


def run(paths: Paths, now: float, out: TextIO | None = None) -> int:
    """Run one tick at `now` (epoch seconds) and return its exit status; troubles go to `out`, standard error if None.

    A trouble that the last tick had too is printed once an hour; the status says it every time.
    """
    out = out or sys.stderr
    try:
        ledger = Ledger(paths.ledger)
    except StoreError as error:
        print(f"bub-cron: {error}", file=out)
        return error.exit_status
    try:
        troubles = _tick(ledger, paths, int(now))
        with ledger.transaction():
            news = ledger.is_news("\n".join(trouble.key for trouble in troubles), int(now))
    except sqlite3.Error as error:
        print(f"bub-cron: {store_error(ledger.path, error)}", file=out)
        return errors.EX_IOERR
    finally:
        ledger.close()
    for trouble in troubles if news else ():
        print("\n".join(f"bub-cron: {line}" for line in trouble.text.splitlines()), file=out)
    statuses = {trouble.status for trouble in troubles}
    return next((status for status in _URGENCY if status in statuses), 0)


def _tick(ledger: Ledger, paths: Paths, now: int) -> list[Trouble]:
    troubles = _read_file(ledger, paths.file, now)
    with ledger.transaction():
        troubles += _record(ledger, now)
    if ledger.any_due():
        troubles += _submit(ledger, paths, now)
    return troubles


# --- The file


def signature(path: str) -> str:
    """Return what changes whenever the file, what its path leads to, or the machine's zone changes."""
    try:
        found = os.stat(path)
    except OSError as error:
        seen = f"error {error.errno}"
    else:
        seen = f"{found.st_mtime_ns} {found.st_ctime_ns} {found.st_size} {found.st_ino} {found.st_dev}"
    try:
        zone = os.readlink("/etc/localtime")
    except OSError:
        zone = ""
    return f"{path}\n{seen}\n{os.environ.get('TZ', '')}\n{zone}"


def _read_file(ledger: Ledger, path: str, now: int) -> list[Trouble]:
    last_tick, known, faults, status = ledger.tick_row()
    present = signature(path)
    if present != known:
        from bub_cron.trigger import load

        try:
            load.take_in(ledger, path, present, last_tick, now)
            faults = None
        except BubCronError as error:
            # The last good file stays in force.
            faults, status = str(error), error.exit_status
            with ledger.transaction():
                ledger.set_file(present, faults, status)
    if faults is None:
        return []
    return [
        Trouble(status or errors.EX_DATAERR, f"{faults}\nuntil that is mended, the last good version stays in force")
    ]


# --- What is due


def _record(ledger: Ledger, now: int) -> list[Trouble]:
    last_tick, *_ = ledger.tick_row()
    back = last_tick is not None and now < last_tick - CLOCK_BACK_SECONDS
    if back:
        _set_cursor(ledger, now)
    elif overdue := ledger.overdue_reminders(now):
        from bub_cron.schedule import decode, next_fire_time

        following = []
        for name, schedule_text, content, grace, next_at in overdue:
            schedule = decode(schedule_text)
            _record_reminder(ledger, name, schedule, content, grace, next_at, now)
            following.append((next_fire_time(schedule, now), name))
        ledger.set_next(following)
    if last_tick is None or now > last_tick or back:
        ledger.set_last_tick(now)
    if not back or last_tick is None:
        return []
    from bub_cron.wire import iso

    text = f"the clock is behind the last tick ({iso(last_tick)}): counting on from {iso(now)}; no firing repeats"
    return [Trouble(0, text)]


def _record_reminder(
    ledger: Ledger, name: str, schedule: Any, content: str, grace: int, next_at: int, now: int
) -> None:
    """Record a reminder's fire times from `next_at` to `now`: the last thousand a row each, the older ones one row."""
    from collections import deque

    from bub_cron.schedule import fire_times

    latest: deque[int] = deque(maxlen=ROWS_EACH)
    count = 0
    for fire_time in fire_times(schedule, next_at - 1, now):
        if count == 0:
            first = fire_time
        if len(latest) == ROWS_EACH:
            last_of_crowd = latest[0]
        latest.append(fire_time)
        count += 1
    if count > ROWS_EACH:
        ledger.record_crowd(name, first, last_of_crowd, count - ROWS_EACH, content=content, now=now)
    ledger.record(name, latest, content=content, grace=grace, now=now)


def _set_cursor(ledger: Ledger, now: int) -> None:
    from bub_cron.schedule import decode, next_fire_time

    ledger.set_next([
        (next_fire_time(decode(schedule), now), name)
        for name, (schedule, _, enabled, *_) in ledger.reminders().items()
        if enabled
    ])


# --- Submitting


def _submit(ledger: Ledger, paths: Paths, now: int) -> list[Trouble]:
    from bub_cron.trigger.client import Connection

    try:
        with Connection(paths.socket) as connection:
            _judge(ledger, lambda ids: _ask_gateway(connection, ids), now, catch_up=True)
            return _send(ledger, connection, now)
    except GatewayAbsentError as error:
        from bub_cron.records import known_to_inbox

        _judge(ledger, lambda ids: known_to_inbox(paths.inbox, ids), now, catch_up=False)
        waiting = len(ledger.due())
        if not waiting:
            return []
        text = f"{error}\n{waiting} due {'firing waits' if waiting == 1 else 'firings wait'} for it"
        return [Trouble(error.exit_status, text, key=str(error))]


def _judge(ledger: Ledger, ask: Callable[[list[str]], set[str] | None], now: int, *, catch_up: bool) -> None:
    """Settle the due firings that are not to be submitted, and let the others take edits over.

    `ask` tells which of some ids the inbox has, None if nobody knows. It is called outside of any transaction.
    """
    doubtful = [
        firing.id
        for firing in ledger.due()
        if firing.submitted_at is not None and (firing.edited or firing.changed or now > firing.expires)
    ]
    known = ask(doubtful) if doubtful else set()
    with ledger.transaction():
        # Read again: another tick may have settled some of them meanwhile.
        due = ledger.due()
        settled: dict[str, tuple[str, str | None]] = dict.fromkeys(known or (), ("accepted", None))
        asked = set(doubtful) if known is not None else set()
        ours = [firing for firing in due if firing.submitted_at is None or firing.id in asked]
        open_ = [firing for firing in ours if firing.id not in settled]
        changed = [firing for firing in open_ if firing.changed]
        for firing in changed:
            firing.take_over()
        for firing in open_:
            if reason := _why_not(firing, now):
                settled[firing.id] = ("missed", reason)
        if catch_up:
            settled |= _superseded([firing for firing in open_ if firing.id not in settled], now)
        ledger.change_due(changed)
        ledger.settle([(firing, *word) for firing, word in settled.items()], now)


def _why_not(firing: Due, now: int) -> str | None:
    if firing.edited:
        return "edited: its reminder was removed, disabled or rescheduled before it could be submitted"
    if now > firing.expires:
        return "too late: its grace was over before a gateway could take it"
    return None


def _superseded(due: list[Due], now: int) -> dict[str, tuple[str, str | None]]:
    """Return what becomes of the firings that catching up leaves out: all but a reminder's latest, of the old ones."""
    old = [f for f in due if f.submitted_at is None and f.fire_time < now - FRESH_SECONDS and f.catch_up == "latest"]
    latest = {firing.reminder: firing for firing in old}  # they come oldest first
    return {
        firing.id: ("missed", f"catching up: {latest[firing.reminder].id} starts in its place")
        for firing in old
        if firing is not latest[firing.reminder]
    }


def _ask_gateway(connection: Any, ids: list[str]) -> set[str]:
    known: set[str] = set()
    lines = [f'{{"status": "{firing}"}}\n'.encode() for firing in ids]

    def note(answer: dict[str, Any]) -> None:
        if answer.get("status") not in ("unknown-id", "busy", "rejected"):
            known.add(str(answer.get("id")))

    connection.exchange(lines, note)
    return known


def _send(ledger: Ledger, connection: Any, now: int) -> list[Trouble]:
    with ledger.transaction():
        due = [firing for firing in ledger.due() if not _why_not(firing, now) and not firing.changed]
        ledger.mark_submitted([firing.id for firing in due], now)
    answers: list[dict[str, Any]] = []
    try:
        connection.exchange([firing.line() for firing in due], answers.append)
    finally:
        # Also when the gateway went away in the middle: what it answered by then stands.
        troubles = _take_answers(ledger, answers, {firing.id for firing in due}, now)
    return troubles


def _take_answers(ledger: Ledger, answers: list[dict[str, Any]], ids: set[str], now: int) -> list[Trouble]:
    settled: list[tuple[str, str, str | None]] = []
    troubles: list[Trouble] = []
    for answer in answers:
        firing, status, error = answer.get("id"), answer.get("status"), str(answer.get("error", ""))
        if firing not in ids:
            text = f"the gateway refused the connection: {error or answer}"
            troubles.append(Trouble(errors.EX_UNAVAILABLE, text))
        elif status == "rejected":
            settled.append((firing, "rejected", error))
            troubles.append(Trouble(errors.EX_PROTOCOL, f"the gateway rejected {firing}: {error}"))
        elif status == "busy":
            troubles.append(Trouble(errors.EX_UNAVAILABLE, f"the gateway is busy: {error}", key="busy"))
        else:
            settled.append((firing, "accepted", None))
    with ledger.transaction():
        ledger.settle(settled, now)
    return list({trouble.key: trouble for trouble in troubles}.values())
