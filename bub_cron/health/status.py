"""How the gateway, the trigger and the firings of the last 24 hours stand, and what of it needs a human.

Invariants: looking changes nothing; one part that can't be looked at hides no other; what needs a human is named in a
sentence that says where to look next, and goes away by itself once it works again, or a day later.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bub_cron import records
from bub_cron.errors import (
    BubCronError,
    FaultyFilesError,
    FileFaultsError,
    FileMissingError,
    each_of,
    one_line,
    user_name,
)
from bub_cron.health.finding import BROKEN
from bub_cron.health.storage import disk_finding, why_refused
from bub_cron.paths import Paths
from bub_cron.pauses import SKIP, Pause, Pauses, in_force, next_running
from bub_cron.records import Gated, Record
from bub_cron.reminders import Reminder, load
from bub_cron.states import DUE, FAILED, MISSED, REJECTED, RETRYING, UNDELIVERED, UNKNOWN
from bub_cron.trigger.client import ask
from bub_cron.trigger.remedies import command_line, owner_of
from bub_cron.wire import PONG, iso, parse_instant

DAY = 86400
MINUTE = 60
LATE_SECONDS = 90  # after the minute in which the next tick was to run, it is late
LOST_SECONDS = 300  # by then a gateway has taken what is due, and the inbox has what the gateway accepted
PATIENCE = 5.0  # seconds that a gateway has for an answer
STARTING_SECONDS = 60  # by then a gateway's channels have started
MOST = 5  # of one kind are named
_HOW = {
    FAILED: "failed",
    UNDELIVERED: "was not delivered",
    UNKNOWN: "may or may not have arrived",
    REJECTED: "was rejected",
    MISSED: "was missed",
}


@dataclass(slots=True)
class Status:
    """How it all stands. Instants are epoch seconds; what could not be looked at is None, and `attention` says why."""

    now: int
    gateway: dict[str, Any] | None = None
    gateway_error: str | None = None
    is_closed: bool = False  # these places are another user's, and nothing was looked at
    refused: bool = False  # there is a gateway, and it does not talk to this user
    reminders: list[Reminder] | None = None
    is_file_missing: bool = False
    faulty_files: int = 0
    next_fire: tuple[int, str] | None = None  # (instant, reminder)
    in_force: dict[str, int] = field(default_factory=dict)  # how many reminders of each file the tick goes by
    stores_error: str | None = None  # then all below is as if there were none
    last_tick: int | None = None
    trouble: str = ""
    outcomes: dict[str, int] = field(default_factory=dict)  # of the last 24 hours
    pauses: Pauses = field(default_factory=Pauses)
    due: int = 0
    accepted: int = 0
    retrying: list[Record] = field(default_factory=list)  # the newest first
    stuck: str = ""  # what is due for long, while a gateway answers
    bad: list[Record] = field(
        default_factory=list
    )  # each reminder's newest firing of the last 24 hours, where it is bad
    gated: list[Gated] = field(default_factory=list)  # what gates skipped in the last 24 hours
    gaps: list[tuple[int, int]] = field(default_factory=list)  # that ended in the last 24 hours, the newest first
    attention: list[str] = field(default_factory=list)

    @property
    def until(self) -> int:
        """The end of the second that `now` is: what was fired within it counts, too."""
        return self.now + 1

    @property
    def next_tick(self) -> int | None:
        """The minute in which the next tick is expected."""
        return None if self.last_tick is None else following_minute(self.last_tick)

    @property
    def is_late(self) -> bool:
        return self.last_tick is not None and is_late(self.last_tick, self.now)

    @property
    def why_not_ready(self) -> str:
        """Why the gateway that answers starts no firing; "" if it does."""
        if self.gateway is None or self.gateway.get("ready", True) is True:
            return ""
        return one_line(str(self.gateway.get("why") or "it doesn't say why"))

    @property
    def is_starting(self) -> bool:
        """Whether the gateway is not ready, and hasn't been there for long enough to worry."""
        try:
            since = parse_instant(str((self.gateway or {}).get("since")))
        except ValueError:
            return False
        return bool(self.why_not_ready) and since <= self.now <= since + STARTING_SECONDS

    @property
    def paused(self) -> list[Pause]:
        """The pauses that are in force: those by hand, and those of the files."""
        by_hand = [pause for pause in self.pauses.holding(self.now) if pause.kind != SKIP]
        in_files = (in_force(Pauses().of(one.name, one.pause_until), self.now) for one in self.reminders or ())
        return by_hand + [pause for pause in in_files if pause is not None]

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object, instants as UTC text."""
        return {
            "ok": not self.attention,
            "gateway": {"listening": self.gateway is not None, **(self.gateway or {"error": self.gateway_error})},
            "trigger": {
                "last_tick": _iso(self.last_tick),
                "next_tick": _iso(self.next_tick),
                "late": self.is_late,
                "trouble": self.trouble or None,
            },
            "reminders": None if self.reminders is None else len(self.reminders),
            "next": None
            if self.next_fire is None
            else {"fire_time": iso(self.next_fire[0]), "reminder": self.next_fire[1]},
            "paused": [
                {
                    "reminder": pause.reminder or None,
                    "since": iso(pause.since) if pause.who else None,
                    "until": _iso(pause.until),
                    "by": pause.who or None,
                    "why": pause.why,
                }
                for pause in self.paused
            ],
            "outcomes": self.outcomes,
            "gated": {one.reminder: {"skipped": one.skipped, "firings": one.firings} for one in self.gated},
            "waiting": {"due": self.due, "accepted": self.accepted},
            "retrying": [{"id": record.id, "error": record.why} for record in self.retrying],
            "gaps": [{"from": iso(began), "until": iso(ended)} for began, ended in self.gaps],
            "attention": self.attention,
        }


def following_minute(instant: int) -> int:
    return instant // MINUTE * MINUTE + MINUTE


def is_late(last_tick: int, now: float) -> bool:
    """Tell whether the tick after the last one should have run long since."""
    return now > following_minute(last_tick) + LATE_SECONDS


def local(instant: float) -> str:
    """Return an instant as the machine's local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(instant))


def faults_in_words(error: BubCronError, in_force: Mapping[str, int]) -> str:
    """Say what is wrong with a file, and which of its reminders the tick goes by meanwhile."""
    path = getattr(error, "path", None)
    if path is not None and os.path.realpath(path) not in map(os.path.realpath, in_force):
        return f"{faults_in_short(error)}; there is no earlier good version, so none of its reminders fire"
    return f"{faults_in_short(error)}; its last good version stays in force"


def told(record: Record) -> str:
    """Return, in one sentence, what became of a firing and why."""
    name = record.reminder or record.id
    return f"{name} {_HOW.get(record.outcome, record.outcome)} at {local(record.moment)}{because(record)}"


def told_of_nobody(pause: Pause) -> str:
    """Return, in one sentence, that a pause's reminder is not in the files any more, and what to do."""
    return (
        f"{pause.reminder} is {one_line(pause.sentence(local))}, and the files have no such reminder any more: if it was"
        f" renamed, pause it by its new name; `bub-cron resume {pause.reminder}` ends this pause"
    )


def retried(record: Record) -> str:
    """Return, in one sentence, that a firing didn't work yet and is tried again."""
    return f"{record.id} has not worked yet and is being tried again{because(record)}"


def log_of(paths: Paths, record: Record) -> str:
    """Return the command that shows all about a firing."""
    return command_line(paths, "log", "--id", record.id)


def because(record: Record) -> str:
    """Return the first line of why a firing is where it is, after a colon; "" if nothing is known of it."""
    return f": {record.why.splitlines()[0]}" if record.why else ""


def faults_in_short(error: BubCronError) -> str:
    """Say how many faults a file has, or why it can't be read."""
    if not isinstance(error, FileFaultsError):
        return str(error)
    return f"{error.path} has {len(error.faults)} {'fault' if len(error.faults) == 1 else 'faults'}"


def no_channel(pong: Mapping[str, Any]) -> str:
    """Say that a gateway has no chat to send to; "" if it has one."""
    return "" if pong.get("channels") else "the gateway has no chat enabled, so no reminder can be delivered"


def work_in_words(pong: Mapping[str, Any]) -> str:
    """Say how many firings a gateway has in hand."""
    waiting, running = pong.get("waiting"), pong.get("running")
    return f"{waiting} waiting, {running} running" if waiting or running else "idle"


def only_for(paths: Paths) -> str:
    """Return who alone can look at these places, if that isn't this user, in a sentence; "" if this user can."""
    uid = owner_of(paths)
    return "" if uid is None else f"{paths.home} is {user_name(uid)}'s, and this is {user_name(os.geteuid())}"


def look(paths: Paths, now: int, *, tries_disk: bool = True) -> Status:
    """Look at everything there is at `now`; without `tries_disk`, not whether the stores' disk takes anything."""
    status = Status(now)
    if why := only_for(paths):
        status.stores_error, status.gateway_error, status.is_closed = why, why, True
        status.attention.append(f"{why}: run `{command_line(paths, 'status', uid=owner_of(paths))}`")
        return status
    _look_at_gateway(status, paths)
    _look_at_file(status, paths)
    if why := why_refused(paths):
        status.attention.append(f"every tick is refused: {why}")
    elif tries_disk and (disk := disk_finding(paths)) is not None and disk.state == BROKEN:
        status.attention.append(f"{disk.text}: {disk.remedy.replace('    # ', ', ')}")
    try:
        _look_at_stores(status, paths)
    except BubCronError as error:
        status.stores_error = str(error)
        status.attention.append(f"{error}: see `{command_line(paths, 'doctor')}`")
    upcoming = [
        (moment, one.name)
        for one in status.reminders or ()
        if one.enabled
        and (moment := next_running(one.schedule, status.pauses.of(one.name, one.pause_until), now)) is not None
    ]
    status.next_fire = min(upcoming, default=None)
    return status


def _look_at_gateway(status: Status, paths: Paths) -> None:
    try:
        pong = ask(paths.socket, {"ping": True}, PATIENCE)
    except BubCronError as error:
        status.gateway_error = str(error)
        status.attention.append(status.gateway_error)
        return
    if pong.get("status") == PONG:
        status.gateway = {key: value for key, value in pong.items() if key != "status"}
        if status.why_not_ready and not status.is_starting:
            text = f"the gateway that answers is not ready to start firings: {status.why_not_ready}"
            status.attention.append(f"{text}; see `{command_line(paths, 'doctor')}`")
        if text := no_channel(status.gateway):
            status.attention.append(f"{text}: `bub onboard` sets one up; see `{command_line(paths, 'doctor')}`")
        return
    status.refused = True
    status.gateway_error = str(pong.get("error") or pong)
    status.attention.append(
        f"the gateway does not talk to this user: {status.gateway_error}; see `{command_line(paths, 'doctor')}`"
    )


def _look_at_file(status: Status, paths: Paths) -> None:
    try:
        status.reminders = load(paths.file)
    except (FileFaultsError, FaultyFilesError) as error:
        status.faulty_files = len(each_of(error))
        for one in each_of(error):
            status.attention.append(f"{faults_in_short(one)}: see `{command_line(paths, 'check')}`")
        return
    except BubCronError as error:
        status.is_file_missing = isinstance(error, FileMissingError)
        status.faulty_files = int(not status.is_file_missing)
        status.attention.append(str(error))
        return


def _look_at_stores(status: Status, paths: Paths) -> None:
    last = records.last_tick(paths)
    status.last_tick, status.trouble = last.instant, last.trouble
    if last.instant is None:
        install = command_line(paths, "install")
        status.attention.append(f"no tick has ever run here: `{install}` lets the machine run it")
    elif status.is_late:
        status.attention.append(f"no tick has run since {local(last.instant)}: see `{command_line(paths, 'doctor')}`")
    elif last.instant > status.now + LATE_SECONDS:
        text = f"the clock is behind the last tick, which was at {local(last.instant)}: see `timedatectl`"
        status.attention.append(text)
    status.in_force = records.files_in_force(paths)
    status.pauses = records.pauses(paths)
    if status.reminders is not None:
        gone = status.pauses.gone((one.name for one in status.reminders), status.now)
        status.attention += few(told_of_nobody(pause) for pause in gone)
    status.gaps = records.gaps(paths, status.now - DAY)
    status.outcomes = dict(sorted(records.counts(paths, status.now - DAY, status.until).items()))
    status.gated = records.gated(paths, status.now - DAY, status.until)
    _look_at_what_waits(status, paths)
    _look_at_what_was_lost(status, paths)
    # What stands in the file no more is nobody's concern any more.
    names = None if status.reminders is None else {reminder.name for reminder in status.reminders}
    status.bad = [
        record
        for name, record in sorted(records.last_records(paths, status.now - DAY, status.until).items())
        if record.is_bad and record.reason != "lost_record" and (names is None or name in names)
    ]
    status.attention += few(
        f"{told(record)}; see `{command_line(paths, 'log', str(record.reminder))}`" for record in status.bad
    )
    status.attention += few(
        f"{path} is a damaged store that was put aside: remove it once nothing of it is needed any more"
        for path in sorted(glob.glob(f"{glob.escape(paths.state)}/*.db.damaged-*"))
        if not path.endswith(("-wal", "-journal"))
    )


def _look_at_what_was_lost(status: Status, paths: Paths) -> None:
    """Name the firings whose record was lost, for a day from when that was found out; `log` shows them longer."""
    lost = [
        record
        for record in records.history(paths, outcome=UNKNOWN)
        if record.reason == "lost_record" and record.finished_at is not None and record.finished_at >= status.now - DAY
    ]
    status.attention += few(
        f"{told(record)}; see `{command_line(paths, 'log', str(record.reminder))}`" for record in lost
    )


def _look_at_what_waits(status: Status, paths: Paths) -> None:
    waiting = records.waiting(paths)
    due = [record for record in waiting if record.outcome == DUE]
    status.due = len(due)
    # Where the gateway's own store is elsewhere, only the gateway knows, and says it in its own line.
    status.accepted = len(waiting) - len(due)
    status.retrying = [record for record in waiting if record.outcome == RETRYING]
    status.attention += few(f"{retried(record)}; see `{log_of(paths, record)}`" for record in status.retrying)
    if due and status.gateway is not None and due[-1].moment < status.now - LOST_SECONDS:
        status.stuck = (
            f"{due[-1].id} is due since {local(due[-1].moment)}, and the gateway that answers has not taken it"
        )
        status.attention.append(f"{status.stuck}: see what `{command_line(paths, 'tick')}` says")
    status.attention += few(
        f"the gateway accepted {record.id}, and its store has no record of it: what became of it is not known;"
        f" `{command_line(paths, 'fire', str(record.reminder))}` sends it again"
        for record in records.lost(paths, status.now - DAY, status.now - LOST_SECONDS - 1)
    )


def few(sentences: Iterable[str]) -> list[str]:
    """Return the first few, and how many more there are."""
    found = list(sentences)
    return found if len(found) <= MOST else [*found[:MOST], f"... and {len(found) - MOST:,} more like that"]


def _iso(instant: int | None) -> str | None:
    return None if instant is None else iso(instant)
