"""One tick: read the files if they changed, record what is due, submit it.

Invariants:
- Every fire time since the last tick is recorded before the socket is touched, in the transaction that moves on past it.
- Two ticks at once do no harm: each decision is one transaction on rows that are still as they were, and an id runs once.
- `now` is read once, by the caller.

A tick with nothing to do loads no more than SQLite: what else it needs is imported where it is used.
"""

import os
import sys

from bub_cron import __version__
from bub_cron.paths import drop_ins, text_of
from bub_cron.store import ERRORS, store_error
from bub_cron.trigger.ledger import SHAPE, Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Row
    from typing import TextIO

    from bub_cron.errors import StoreError
    from bub_cron.paths import Paths
    from bub_cron.trigger.telling import Trouble

_DAY = 86400
ROOT = "/"  # below which the machine says its zone


def run(paths: "Paths", now: float, out: "TextIO | None" = None) -> int:
    """Run one tick at `now` (epoch seconds) and return its exit status; troubles go to `out`, standard error if None.

    A trouble that the last tick had too is printed once an hour; the status says it every time.
    """
    out = out or sys.stderr
    try:
        return _run(paths, now, out)
    except Exception as error:
        broken = _broken(paths, error)
    from bub_cron.errors import DamagedStoreError
    from bub_cron.trigger.telling import say, tell_systemd

    if isinstance(broken, DamagedStoreError):
        from bub_cron.trigger.ledger import mend

        try:
            told = mend(paths.ledger, now)
            if told is not None:  # else another tick has mended it meanwhile
                say(out, str(told))
            status = _run(paths, now, out)  # what is due is due all the same
        except Exception as error:
            broken = _broken(paths, error)
        else:
            if told is None:
                return status
            tell_systemd(str(told))
            return broken.exit_status
    say(out, str(broken))
    tell_systemd(str(broken))
    return broken.exit_status


def _broken(paths: "Paths", error: Exception) -> "StoreError":
    """Return what an error says of the ledger; raise it, if it is another one."""
    from bub_cron.errors import StoreError

    if not isinstance(error, (*ERRORS, StoreError)):
        raise error
    return store_error(paths.ledger, error, SHAPE)


def _run(paths: "Paths", now: float, out: "TextIO") -> int:
    ledger = Ledger(paths.ledger)
    try:
        tick = ledger.tick_row()
        troubles = _tick(ledger, tick, paths, int(now))
        if not troubles and not tick["trouble"]:
            return 0
        with ledger.transaction():
            keys = "\n".join(trouble.key for trouble in troubles)
            is_news = ledger.is_news(text_of(keys), int(now))
    finally:
        ledger.close()
    from bub_cron.trigger.telling import exit_status, say, tell_systemd

    for trouble in troubles if is_news else ():
        say(out, trouble.text)
    if troubles:
        tell_systemd("; ".join(trouble.text for trouble in troubles))
    return exit_status(troubles)


def _tick(ledger: Ledger, tick: "Row", paths: "Paths", now: int) -> "list[Trouble]":
    troubles: list[Trouble] = []
    last = tick["last_tick"]
    if last is not None and now // 60 < last // 60:
        from bub_cron.trigger.recording import turn_back

        troubles += turn_back(ledger, now)
    troubles += _read_files(ledger, tick, paths.file, now)
    troubles += _record(ledger, now)
    waiting = ledger.waiting(now)
    if "due" in waiting or "alert" in waiting:
        from bub_cron.trigger.submitting import submit

        troubles += submit(ledger, paths, now)
    if waiting and "ping" in ledger.waiting(now):  # last of all: a monitor that hangs delays nothing
        from bub_cron.trigger.alerting import send_pings

        troubles += send_pings(ledger)
    return troubles


# --- The files, and the ground that they stand on


def tz_in_force(tick: "Row") -> str:
    """Return the TZ that counts: this tick's, if it is the first one or the last one had it as well."""
    own = seen_tz()
    return own if tick["tz"] is None or own == tick["tz_seen"] else str(tick["tz"])


def seen_tz() -> str:
    """Return this tick's own TZ, as text that a store takes."""
    return text_of(os.environ.get("TZ", ""))


def signature(path: str, tz: str, zone_files: "Iterable[str]") -> str:
    """Return what changes whenever the files, what their paths lead to, the machine's zone or the zone data changes."""
    try:
        files = [path, *drop_ins(path)]
        listed = ""
    except OSError as error:
        files = [path]
        listed = str(error)
    try:
        zone = os.readlink(f"{ROOT}etc/localtime")
    except OSError:  # it is a plain file, or not there: then the name of the zone is in the other one
        zone = ""
        files += (f"{ROOT}etc/localtime", f"{ROOT}etc/timezone")
    # The version, too: what another one wrote of the files may read differently.
    head = f"{__version__}\n{tz}\n{zone}\n{os.environ.get('PYTHONTZPATH', '')}\n{listed}"
    return (
        "\n"
        .join([head, *map(_seen_of, files), *map(_seen_of, zone_files)])
        .encode("utf-8", "backslashreplace")
        .decode()
    )


def _seen_of(path: str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return f"{path} {error.__class__.__name__}"
    return f"{path} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_size} {found.st_ino} {found.st_dev}"


def _read_files(ledger: Ledger, tick: "Row", path: str, now: int) -> "list[Trouble]":
    tz = tz_in_force(tick)
    troubles: list[Trouble] = []
    if signature(path, tz, (tick["zone_files"] or "").splitlines()) != tick["signature"]:
        from bub_cron.trigger import load

        troubles += load.take_in(ledger, path, tz, now)
    if seen_tz() != tick["tz_seen"]:
        ledger.set_seen_tz(seen_tz())
    if faulty := ledger.faulty_files():
        from bub_cron.trigger.telling import file_troubles

        troubles += file_troubles(faulty)
    return troubles


# --- What is due


def _record(ledger: Ledger, now: int) -> "list[Trouble]":
    troubles: list[Trouble] = []
    with ledger.transaction():
        tick = ledger.tick_row()
        last, high = tick["last_tick"], tick["high"] or 0
        if overdue := ledger.overdue(now):
            from bub_cron.trigger.recording import record_overdue

            troubles += record_overdue(ledger, overdue, now)
        if last is None or now > last:
            ledger.set_last_tick(now, max(now, high))
        if last is not None:
            # What the clock has come back over is no gap.
            began = max(last, high) if now > high else last
            if now // 60 - began // 60 > 1:
                ledger.note_gap(began, now)  # or the clock was set forward, which looks the same from here
            if last // _DAY != now // _DAY:
                from bub_cron.trigger.keeping import look_through

                look_through(ledger, last, now)
    return troubles
