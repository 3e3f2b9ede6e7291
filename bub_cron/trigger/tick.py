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
import sys

from bub_cron import __version__, errors
from bub_cron.errors import GatewayAbsentError, StoreError
from bub_cron.paths import drop_ins
from bub_cron.store import ERRORS, store_error
from bub_cron.trigger.ledger import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

    from bub_cron.paths import Paths
    from bub_cron.trigger.client import Connection
    from bub_cron.trigger.ledger import Due

FRESH_SECONDS = 60  # older ones, when they first can be submitted, are what `catch_up` chooses from
CLOCK_BACK_SECONDS = 3 * 3600
KEEP_DAYS = 30
_DAY = 86400


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
        return _run(paths, now, out)
    except (*ERRORS, StoreError) as error:
        broken = store_error(paths.ledger, error)
    if isinstance(broken, errors.DamagedStoreError):
        from bub_cron.trigger.ledger import mend

        try:
            told = mend(paths.ledger, now)
            if told is not None:  # else another tick has mended it meanwhile
                _say(out, str(told))
            status = _run(paths, now, out)  # what is due is due all the same
        except (*ERRORS, StoreError) as error:
            broken = store_error(paths.ledger, error)
        else:
            if told is None:
                return status
            _tell_systemd(str(told))
            return errors.EX_IOERR
    _say(out, str(broken))
    _tell_systemd(str(broken))
    return errors.EX_IOERR


def _run(paths: Paths, now: float, out: TextIO) -> int:
    ledger = Ledger(paths.ledger)
    try:
        troubles = _tick(ledger, paths, int(now))
        with ledger.transaction():
            news = ledger.is_news("\n".join(trouble.key for trouble in troubles), int(now))
    finally:
        ledger.close()
    for trouble in troubles if news else ():
        _say(out, trouble.text)
    if troubles:
        _tell_systemd("; ".join(trouble.text for trouble in troubles))
    statuses = {trouble.status for trouble in troubles}
    return next((status for status in _URGENCY if status in statuses), 0)


def _say(out: TextIO, text: str) -> None:
    try:
        for line in text.splitlines():
            print(f"bub-cron: {_plain(line)}", file=out)
    except OSError:  # nobody reads it any more: the tick goes on, and its exit status says that there was something
        return


def _plain(line: str) -> str:
    # What the gateway or the file says may hold what a terminal would obey.
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in line)


def _tell_systemd(text: str) -> None:
    """Leave a trouble for `systemctl status`, where systemd runs the tick: it shows what this run said, not the last."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import contextlib
    import socket

    if address.startswith("@"):
        address = f"\0{address[1:]}"
    status = "; ".join(map(_plain, text.splitlines()))[:1000]
    # Without it the tick has failed no less, and its exit status says so.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect(address)
        notice.send(f"STATUS={status}".encode("utf-8", "replace"))


def _tick(ledger: Ledger, paths: Paths, now: int) -> list[Trouble]:
    troubles = _read_files(ledger, paths.file, now)
    with ledger.transaction():
        troubles += _record(ledger, now)
    if ledger.any_due():
        troubles += _submit(ledger, paths, now)
    return troubles


def _look_through_daily(ledger: Ledger, last_tick: int, now: int) -> None:
    if last_tick // _DAY == now // _DAY:
        return
    # What nobody reads may be damaged for long without anybody's notice.
    ledger.check()
    try:
        days = int(os.environ.get("BUB_CRON_KEEP_DAYS") or KEEP_DAYS)
    except ValueError:
        days = KEEP_DAYS  # the gateway, which reads the same variable, complains of it
    keep = max(1, days) * _DAY
    # After a leap that would leave nothing of before it the clock may be wrong: then the next midnight is soon enough.
    if now - last_tick <= keep:
        ledger.prune(now - keep)


# --- The file


def signature(path: str) -> str:
    """Return what changes whenever the file, a drop-in, what their paths lead to, or the machine's zone changes."""
    try:
        files = [path, *drop_ins(path)]
        listed = ""
    except OSError as error:
        files = [path]
        listed = str(error)
    try:
        zone = os.readlink("/etc/localtime")
    except OSError:
        zone = ""
    # The version, too: what another one wrote of the file may read differently.
    return "\n".join([__version__, os.environ.get("TZ", ""), zone, listed, *map(_seen_of, files)])


def _seen_of(path: str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return f"{os.fsencode(path)!r} {error.__class__.__name__}"
    return (
        f"{os.fsencode(path)!r} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_size} {found.st_ino} {found.st_dev}"
    )


def _read_files(ledger: Ledger, path: str, now: int) -> list[Trouble]:
    _, known, _ = ledger.tick_row()
    troubles = []
    if signature(path) != known:
        from bub_cron.trigger import load

        if former := load.take_in(ledger, path, now):
            text = (
                f"this state directory belonged to {former}; {path} has taken it over, and only its reminders are in"
                " force now: give each reminders file a state directory of its own (BUB_CRON_STATE)"
            )
            troubles.append(Trouble(errors.EX_DATAERR, text))
    for faults, status, older in ledger.faulty_files():
        note = "\nuntil that is fixed, the last good version stays in force" if older else ""
        troubles.append(Trouble(status, faults + note))
    return troubles


# --- What is due


def _record(ledger: Ledger, now: int) -> list[Trouble]:
    last_tick, *_ = ledger.tick_row()
    back = last_tick is not None and now < last_tick - CLOCK_BACK_SECONDS
    troubles = _set_cursor(ledger, now) if back else _record_overdue(ledger, now)
    if last_tick is not None:
        if now // 60 - last_tick // 60 > 1:
            ledger.note_gap(last_tick, now)  # or the clock was set forward, which looks the same from here
        _look_through_daily(ledger, last_tick, now)
    if last_tick is None or now > last_tick or back:
        ledger.set_last_tick(now)
    if back and last_tick is not None:
        from bub_cron.wire import iso

        text = f"the clock is behind the last tick ({iso(last_tick)}): counting on from {iso(now)}; no firing repeats"
        troubles.append(Trouble(0, text))
    return troubles


def _record_overdue(ledger: Ledger, now: int) -> list[Trouble]:
    overdue = ledger.overdue_reminders(now)
    if not overdue:
        return []
    from bub_cron.schedule import decode, fire_times, next_fire_time

    following, troubles = [], []
    for name, schedule_text, content, grace, next_at in overdue:
        try:
            schedule = decode(schedule_text)
            ledger.record(name, fire_times(schedule, next_at - 1, now), content=content, grace=grace, now=now)
            following.append((next_fire_time(schedule, now), name))
        except errors.ScheduleError as error:  # its zone has gone from the machine; the others go on
            troubles.append(Trouble(error.exit_status, f"the reminder {name} can't be scheduled: {error}"))
    ledger.set_next(following)
    return troubles


def _set_cursor(ledger: Ledger, now: int) -> list[Trouble]:
    from bub_cron.schedule import decode, next_fire_time

    following, troubles = [], []
    for name, (schedule, _, enabled, *_) in ledger.reminders().items():
        try:
            following.append((next_fire_time(decode(schedule), now) if enabled else None, name))
        except errors.ScheduleError as error:
            troubles.append(Trouble(error.exit_status, f"the reminder {name} can't be scheduled: {error}"))
    ledger.set_next(following)
    return troubles


# --- Submitting


def _submit(ledger: Ledger, paths: Paths, now: int) -> list[Trouble]:
    from bub_cron.trigger import client

    troubles: list[Trouble] = []
    try:
        with client.Connection(paths.socket) as connection:
            _judge(ledger, lambda ids: _ask_gateway(connection, ids), now, catch_up=True)
            _send(ledger, connection, now, troubles)
    except GatewayAbsentError as error:
        _judge(ledger, lambda ids: _ask_file(paths.inbox, ids), now, catch_up=False)
        if waiting := len(ledger.due()):
            text = f"{error}\n{waiting} due {'firing waits' if waiting == 1 else 'firings wait'} for it"
            troubles.append(Trouble(error.exit_status, text, key=str(error)))
    return troubles


def _judge(ledger: Ledger, ask: Callable[[list[str]], dict[str, bool]], now: int, *, catch_up: bool) -> None:
    """Settle the due firings that are not to be submitted, and let the others take edits over.

    `ask` tells which of some ids the inbox has; an id that it leaves out is one that nobody knows of. It is called
    outside of any transaction.
    """
    doubtful = [
        firing.id
        for firing in ledger.due()
        if firing.submitted_at is not None and (firing.edited or firing.changed or now > firing.expires)
    ]
    known = ask(doubtful) if doubtful else {}
    with ledger.transaction():
        # Read again: another tick may have settled some of them meanwhile.
        ours = [firing for firing in ledger.due() if firing.submitted_at is None or firing.id in known]
        settled: dict[str, tuple[str, str | None]] = {
            firing: ("accepted", None) for firing, there in known.items() if there
        }
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


def _ask_file(path: str, ids: list[str]) -> dict[str, bool]:
    from bub_cron.records import known_to_inbox

    known = known_to_inbox(path, ids)
    return {} if known is None else {firing: firing in known for firing in ids}


def _ask_gateway(connection: Connection, ids: list[str]) -> dict[str, bool]:
    from bub_cron.states import IN_INBOX
    from bub_cron.wire import UNKNOWN_ID

    known: dict[str, bool] = {}

    def note(answer: dict[str, Any]) -> None:
        status = str(answer.get("status"))
        if status in IN_INBOX or status == UNKNOWN_ID:
            known[str(answer.get("id"))] = status != UNKNOWN_ID

    connection.exchange([f'{{"status": "{firing}"}}\n'.encode() for firing in ids], note)
    return known


def _send(ledger: Ledger, connection: Connection, now: int, troubles: list[Trouble]) -> None:
    with ledger.transaction():
        due = [firing for firing in ledger.due() if not _why_not(firing, now) and not firing.changed]
        ledger.mark_submitted([firing.id for firing in due], now)
    answers: list[dict[str, Any]] = []
    try:
        connection.exchange([firing.line() for firing in due], answers.append)
    finally:
        # Also when the gateway went away in the middle: what it answered by then stands.
        troubles += _take_answers(ledger, answers, {firing.id for firing in due}, now)


def _take_answers(ledger: Ledger, answers: list[dict[str, Any]], ids: set[str], now: int) -> list[Trouble]:
    from bub_cron.states import IN_INBOX

    settled: list[tuple[str, str, str | None]] = []
    troubles: list[Trouble] = []
    for answer in answers:
        firing, status, error = answer.get("id"), str(answer.get("status")), str(answer.get("error", ""))
        if not isinstance(firing, str) or firing not in ids:
            troubles.append(Trouble(errors.EX_UNAVAILABLE, f"the gateway refused the connection: {error or answer}"))
        elif status in IN_INBOX:
            settled.append((firing, "accepted", None))
        elif status == "rejected":
            settled.append((firing, "rejected", error))
            troubles.append(Trouble(errors.EX_PROTOCOL, f"the gateway rejected {firing}: {error}"))
        elif status == "busy":
            troubles.append(Trouble(errors.EX_UNAVAILABLE, f"the gateway is busy: {error}", key="busy"))
        else:
            text = f"the gateway answered with a word that this bub-cron doesn't know: {status}"
            troubles.append(Trouble(errors.EX_UNAVAILABLE, text))
    with ledger.transaction():
        ledger.settle(settled, now)
    return list({trouble.key: trouble for trouble in troubles}.values())
