"""How the gateway, the trigger and the firings of the last 24 hours stand, and what of it needs a human.

Kept true here: looking changes nothing; one part that can't be looked at hides no other; what needs a human is named in a
sentence that says where to look next, and goes away by itself once it works again.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from typing import Any

from bub_cron import records
from bub_cron.errors import BubCronError, FileFaultsError
from bub_cron.paths import Paths
from bub_cron.records import Record
from bub_cron.reminders import load
from bub_cron.schedule import next_fire_time
from bub_cron.trigger.client import ask
from bub_cron.wire import ACCEPTED, DUE, iso

DAY = 86400
MINUTE = 60
LATE_SECONDS = 90  # after the minute in which the next tick was to run, it is late
LOST_SECONDS = 300  # by then the inbox has what the gateway accepted


@dataclass(slots=True)
class Status:
    """How it all stands. Instants are epoch seconds; what could not be looked at is None, and `attention` says why."""

    now: int
    gateway: dict[str, Any] | None = None
    gateway_error: str | None = None
    last_tick: int | None = None
    trouble: str = ""
    reminders: int | None = None
    next_fire: tuple[int, str] | None = None  # (instant, reminder)
    outcomes: dict[str, int] = field(default_factory=dict)  # of the last 24 hours
    due: int = 0
    accepted: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)  # that ended in the last 24 hours
    attention: list[str] = field(default_factory=list)

    @property
    def next_tick(self) -> int | None:
        """The minute in which the next tick is expected."""
        return None if self.last_tick is None else self.last_tick // MINUTE * MINUTE + MINUTE

    @property
    def is_late(self) -> bool:
        return self.next_tick is not None and self.now > self.next_tick + LATE_SECONDS

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
            "reminders": self.reminders,
            "next": None
            if self.next_fire is None
            else {"fire_time": iso(self.next_fire[0]), "reminder": self.next_fire[1]},
            "outcomes": self.outcomes,
            "waiting": {"due": self.due, "accepted": self.accepted},
            "gaps": [{"from": iso(began), "until": iso(ended)} for began, ended in self.gaps],
            "attention": self.attention,
        }


def look(paths: Paths, now: int) -> Status:
    """Look at everything there is at `now`."""
    status = Status(now)
    _look_at_gateway(status, paths)
    _look_at_file(status, paths)
    try:
        _look_at_stores(status, paths)
    except BubCronError as error:
        status.attention.append(str(error))
    return status


def _look_at_gateway(status: Status, paths: Paths) -> None:
    try:
        pong = ask(paths.socket, {"ping": True})
    except BubCronError as error:
        status.gateway_error = str(error)
        status.attention.append(status.gateway_error)
        return
    if pong.get("status") == "pong":
        status.gateway = {key: value for key, value in pong.items() if key != "status"}
        return
    status.gateway_error = str(pong.get("error") or pong)
    status.attention.append(f"the gateway does not talk to this user: {status.gateway_error}")


def _look_at_file(status: Status, paths: Paths) -> None:
    try:
        reminders = load(paths.file)
    except FileFaultsError as error:
        many = "fault" if len(error.faults) == 1 else "faults"
        status.attention.append(f"{paths.file} has {len(error.faults)} {many}: see `bub-cron check`")
        return
    except BubCronError as error:
        status.attention.append(str(error))
        return
    status.reminders = len(reminders)
    upcoming = [
        (moment, reminder.name)
        for reminder in reminders
        if reminder.enabled and (moment := next_fire_time(reminder.schedule, status.now)) is not None
    ]
    status.next_fire = min(upcoming, default=None)


def _look_at_stores(status: Status, paths: Paths) -> None:
    last = records.last_tick(paths)
    status.last_tick, status.trouble = last.instant, last.trouble
    if last.instant is None:
        status.attention.append("no tick has ever run here: see `bub-cron install`")
    elif status.is_late:
        status.attention.append(f"no tick has run since {iso(last.instant)}: see `bub-cron doctor`")
    elif last.instant > status.now + LATE_SECONDS:
        status.attention.append(f"the clock is behind the last tick, which was at {iso(last.instant)}")
    status.gaps = records.gaps(paths, status.now - DAY)
    status.outcomes = dict(sorted(records.counts(paths, status.now - DAY, status.now).items()))
    open_ones = records.without_last_word(paths)
    status.due = sum(record.outcome == DUE for record in open_ones)
    status.accepted = len(open_ones) - status.due
    status.attention += [
        f"the gateway accepted {record.id}, and its inbox has no record of it: what became of it is not known"
        for record in open_ones
        if _is_lost(record, paths, status.now)
    ]
    status.attention += [
        f"{record.reminder} {record.outcome}, at {iso(record.moment)}{f': {record.error}' if record.error else ''}"
        for record in records.last_records(paths).values()
        if record.is_bad and status.now - DAY <= record.moment <= status.now
    ]
    status.attention += [
        f"{path} is a damaged store that was put aside: remove it when nothing of it is needed any more"
        for path in sorted(glob.glob(f"{glob.escape(paths.state)}/*.db.damaged-*"))
        if not path.endswith(("-wal", "-journal"))
    ]


def _is_lost(record: Record, paths: Paths, now: int) -> bool:
    """Tell whether the ledger says that the gateway has it, while the gateway's store, which can be read, has not."""
    if record.outcome != ACCEPTED or record.accepted_at is not None or record.moment > now - LOST_SECONDS:
        return False
    return records.known_to_inbox(paths.inbox, [record.id]) == set()


def _iso(instant: int | None) -> str | None:
    return None if instant is None else iso(instant)
