"""Take the reminders files into the ledger, as they are and on the ground as it is.

The ground is what the files don't say: the machine's zone, the zone data, and the days of countries and iCalendar files.

Invariants:
- It is all or nothing, in one transaction. A file with a fault keeps its own last good version in force; the others count.
- What is put in force is what is on disk at that moment, so of two ticks at once the slower never puts an older version
  back in force.
- An entry whose schedule is unchanged as written keeps its place in time, whatever else of it was edited, and whichever
  file it is moved to. An entry that is new, rescheduled or enabled again counts from its file's last save, but not from
  before the previous tick, and without a previous tick from now, so that no old time ever fires.
- A change of the ground is no edit. Until this tick the old rules hold; from it on the new ones; in between, the wall
  clock jumps, and fixed times that it jumps over, or repeats, are treated as at any change of clocks.
- Of a calendar whose days change, the old ones hold until this tick.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from sqlite3 import Row

from bub_cron import errors
from bub_cron.errors import BubCronError, FileMissingError, FileUnreadableError, ScheduleError
from bub_cron.paths import text_of
from bub_cron.reminders import Reminder, ReminderFile, repeated_names
from bub_cron.reminders import read_files as read_files
from bub_cron.schedule import (
    Schedule,
    decode,
    encode,
    fire_times,
    machine_zone,
    next_fire_time,
    sources,
    sources_of,
    zones,
)
from bub_cron.trigger import days, firings, pausing
from bub_cron.trigger import tick as ticks
from bub_cron.trigger.ledger import REMINDERS, Ledger
from bub_cron.trigger.recording import kept_zones, position, record_between
from bub_cron.trigger.telling import Trouble
from bub_cron.trigger.tick import signature

_READS = 5  # of files that change all the while
_GONE_SECONDS = 0.2  # some editors move a file aside before they write the new one


class _Read:
    """The files, the zone data and the calendars' days as they were read, and the signatures from before that."""

    __slots__ = (
        "before",
        "data",
        "files",
        "files_before",
        "missing",
        "moved_days",
        "old_days",
        "zone_files",
    )

    def __init__(self, ledger: Ledger, path: str, tz: str, now: int) -> None:
        zones.use({})
        self.old_days = days.kept_days(ledger)
        sources.remember(one for one in self.old_days if not sources.is_stale(one))
        self.files_before = signature(path, tz, ())
        self.missing: FileMissingError | None = None
        self.files: list[ReminderFile] = []
        try:
            self.files = read_files(path, machine_zone=lambda: _machine_zone(tz))
        except FileMissingError as error:
            self.missing = error
        plans = [reminder.schedule for file in self.files for reminder in file.reminders]
        used = set().union(*map(sources_of, plans), _sources_in_force(ledger))
        self.moved_days = days.read_again(self.old_days, used, now)

    def paths(self) -> set[str]:
        return {text_of(file.path) for file in self.files}

    def read_zones(self, path: str, tz: str, names: set[str]) -> bool:
        """Read the data of zones; return whether it is that by which the files were read."""
        parsed = {name: zones.load_zone(name).data for name in self._named()}
        names = names | parsed.keys()
        looked = {name: zones.places(name) for name in names}
        self.zone_files = sorted({place for places in looked.values() for place in places} | sources.paths())
        self.before = signature(path, tz, self.zone_files)
        self.data = {}
        for name in names:
            with contextlib.suppress(OSError):  # it has gone: the data that the ledger has kept stays in force
                self.data[name] = zones.read(name)
        return parsed.items() <= self.data.items()

    def _named(self) -> set[str]:
        return {reminder.schedule.zone for file in self.files for reminder in file.reminders}


def take_in(ledger: Ledger, path: str, tz: str, now: int) -> list[Trouble]:
    """Read the files and put them in force; `tz` is the TZ that counts.

    What is wrong with a file goes into the ledger, for each tick to tell. Returns what else there is to say.
    """
    for turn in range(_READS):
        read = _Read(ledger, path, tz, now)
        known = ledger.db.execute("SELECT DISTINCT file, schedule, enabled FROM reminders").fetchall()
        if turn == 0 and read.missing is None and not {row["file"] for row in known} <= read.paths():
            time.sleep(_GONE_SECONDS)
            continue
        names = set(kept_zones(ledger))
        with contextlib.suppress(ScheduleError):
            names.add(_machine_zone(tz))
        if not read.read_zones(path, tz, names):
            continue
        with ledger.transaction():
            if signature(path, tz, ()) != read.files_before or signature(path, tz, read.zone_files) != read.before:
                continue
            return _Taking(ledger, path, tz, read, now).put_in_force()
    unreadable = FileUnreadableError(
        f"{path} is being written: it, or a drop-in, changed each time that it was read", path
    )
    with ledger.transaction():
        ledger.set_files(signature=None, faulty=[(text_of(path), text_of(str(unreadable)), unreadable.exit_status)])
    return []


def _machine_zone(tz: str) -> str:
    """Return the machine's zone, where `tz` is the TZ that counts."""
    return machine_zone({"TZ": tz}, ticks.ROOT)


class _Taking:
    """One taking in, within one transaction."""

    def __init__(self, ledger: Ledger, path: str, tz: str, read: _Read, now: int) -> None:
        self._ledger = ledger
        self._path = path
        self._tz = tz
        self._read = read
        self._now = now
        tick = ledger.tick_row()
        self._last_tick: int | None = tick["last_tick"]
        self._former: str | None = tick["file"]
        self._known: dict[str, Row] = {row["name"]: ledger.sound_reminder(row) for row in ledger.db.execute(REMINDERS)}
        self._pauses = pausing.read(ledger)
        self._newly_paused: set[str] = set()  # in the file
        self._old_data = kept_zones(ledger)
        self._new_data = {**self._old_data, **read.data}
        self._changed: dict[tuple[str, str], zones.ChangedZone] = {}

    def put_in_force(self) -> list[Trouble]:
        """Put the good files in force, each as a whole, and keep the last good version of the others."""
        ledger, read = self._ledger, self._read
        faulty: list[tuple[str, str, int]] = []
        troubles: list[Trouble] = []
        places: dict[str, str] = {}  # of each name, so far
        moved: dict[str, Reminder] = {}  # what is new, rescheduled, or switched on or off
        kept: set[str] = set()
        if read.missing is not None:
            faulty.append((text_of(self._path), text_of(str(read.missing)), read.missing.exit_status))
            kept = set(self._known)
        for file in read.files:
            error: BubCronError | None = file.error or repeated_names(file, places)
            if error is not None:
                faulty.append((text_of(file.path), text_of(str(error)), error.exit_status))
                older = {name for name, row in self._known.items() if _is_below(row["file"], file.path)} - places.keys()
                kept |= older
                places |= dict.fromkeys(older, file.path)
                continue
            for reminder in file.reminders:
                places[reminder.name] = f"{file.path}:{reminder.line}"
                self._put(reminder, moved)
        for name in kept:
            self._keep(self._known[name], troubles)
        gone = self._known.keys() - places.keys() - kept
        saved = {text_of(file.path): self._since(file.path) for file in read.files}
        for name in gone:
            self._record_until(self._known[name], saved.get(self._known[name]["file"], self._now))
        firings.mark_edited(ledger, self._edited(moved, gone))
        ledger.db.executemany("DELETE FROM reminders WHERE name = ?", ((name,) for name in gone))
        self._keep_zones()
        days.keep(ledger)
        days.drop_unused(ledger, _sources_in_force(ledger))
        # One that could not be read is tried again each time: a changed mode may not change what is seen of it.
        again = any(isinstance(file.error, FileUnreadableError) for file in read.files)
        ledger.set_files(signature=None if again else read.before, faulty=faulty)
        ledger.db.execute(
            "UPDATE tick SET zone_files = ?, tz = ?", ("\n".join(map(text_of, read.zone_files)), self._tz)
        )
        return troubles + self._pauses_of_nobody(places.keys() | kept) + self._taken_over()

    def _pauses_of_nobody(self, names: set[str]) -> list[Trouble]:
        """Tell, once per change of the files, of pauses whose reminder is gone from them: it may have been renamed."""
        return [
            Trouble(
                0,
                f"the reminder {pause.reminder} is not in the files any more, and it is {pause.sentence()}: if it was"
                f" renamed, pause it by its new name; `bub-cron resume {pause.reminder}` ends this pause",
            )
            for pause in self._pauses.gone(names, self._now)
        ]

    def _taken_over(self) -> list[Trouble]:
        """Note to which reminders file the state directory belongs, and say so if that is another one now."""
        if self._read.missing is not None:
            return []
        path, former = text_of(self._path), self._former
        self._ledger.db.execute("UPDATE tick SET file = ?", (path,))
        if former is None or former == path or os.path.realpath(former) == os.path.realpath(self._path):
            return []
        text = (
            f"this state directory belonged to {former}; {self._path} has taken it over, and only its reminders are in"
            " force now: give each reminders file a state directory of its own (BUB_CRON_STATE)"
        )
        return [Trouble(errors.EX_DATAERR, text)]

    def _keep_zones(self) -> None:
        used = {
            decode_zone(row["schedule"]) for row in self._ledger.db.execute("SELECT DISTINCT schedule FROM reminders")
        }
        self._ledger.db.execute("DELETE FROM zones")
        self._ledger.db.executemany(
            "INSERT INTO zones (name, data) VALUES (?, ?)",
            [(name, data) for name, data in self._new_data.items() if name in used],
        )

    # --- One reminder

    def _put(self, reminder: Reminder, moved: dict[str, Reminder]) -> None:
        """Put a reminder of a good file in force, and note it in `moved` if it counts anew."""
        before = self._known.get(reminder.name)
        encoded = encode(reminder.schedule)
        same = before is not None and self._is_same(before, encoded, reminder)
        since, next_at, done_until = None, None, None
        if before is not None and same and bool(before["enabled"]) == reminder.enabled:
            since, next_at, done_until = before["since"], before["next_at"], before["done_until"]
            if reminder.enabled and self._ground_moved(before, reminder.schedule.zone):
                next_at = self._cross(before, encoded)
            elif reminder.enabled and self._read.moved_days & sources_of(reminder.schedule):
                next_at = self._cross_days(before)
            elif reminder.pause_until != before["pause_until"]:
                next_at = self._change_pause(before, reminder)
        else:
            moved[reminder.name] = reminder
            since = self._since(reminder.file)
            if before is not None:
                self._record_until(before, since)
            if reminder.enabled:
                next_at = next_fire_time(reminder.schedule, since)
                self._record_past(reminder, since, before)
        content = json.dumps(reminder.content(), ensure_ascii=False)
        row = (
            reminder.name, text_of(reminder.file), encoded, int(reminder.machine_zone), content, int(reminder.enabled),
            reminder.grace, reminder.catch_up, since, next_at, done_until, reminder.pause_until,
        )  # fmt: skip
        if before is None or row != tuple(before):
            self._ledger.db.execute("REPLACE INTO reminders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _change_pause(self, before: Row, reminder: Reminder) -> int | None:
        """Record what came before another `pause_until` was saved as the old one has it; return the next fire time."""
        saved, next_at = self._since(reminder.file), before["next_at"]
        self._record_until(before, saved)
        if reminder.pause_until is not None and self._now < reminder.pause_until:
            self._newly_paused.add(reminder.name)
        return next_fire_time(reminder.schedule, saved) if next_at is not None and next_at <= saved else next_at

    def _keep(self, row: Row, troubles: list[Trouble]) -> None:
        """Keep a reminder of a faulty file in force, where the ground has moved under it."""
        zone = new_zone = decode_zone(row["schedule"])
        if row["machine_zone"]:
            with contextlib.suppress(ScheduleError):  # then it stays where it was
                new_zone = _machine_zone(self._tz)
        if not row["enabled"]:
            return
        encoded = in_zone(row["schedule"], zone, new_zone)
        try:
            if self._ground_moved(row, new_zone):
                next_at = self._cross(row, encoded)
            elif self._read.moved_days & _sources_of(encoded):
                next_at = self._cross_days(row)
            else:
                return
        except ScheduleError as error:
            troubles.append(Trouble(error.exit_status, f"the reminder {row['name']} can't be scheduled: {error}"))
            return
        self._ledger.db.execute(
            "UPDATE reminders SET schedule = ?, next_at = ? WHERE name = ?", (encoded, next_at, row["name"])
        )

    def _is_same(self, before: Row, encoded: str, reminder: Reminder) -> bool:
        """Tell whether a schedule is the one that it was as written: the same but for a zone that is another on paper only."""
        if before["schedule"] == encoded:
            return True
        old, new = decode_zone(before["schedule"]), reminder.schedule.zone
        if reminder.schedule.kind == "at" and old == new:
            # An older version stored instants, not local times.
            return self._instants(before["schedule"], self._old_data) == self._instants(encoded, self._old_data)
        if in_zone(before["schedule"], old, new) != encoded:
            return False
        both_machine = before["machine_zone"] and reminder.machine_zone
        return bool(both_machine) or (old in self._old_data and self._old_data[old] == self._new_data.get(new))

    def _ground_moved(self, before: Row, zone: str) -> bool:
        old = self._old_data.get(decode_zone(before["schedule"]))
        return old is not None and zone in self._new_data and old != self._new_data[zone]

    def _cross(self, before: Row, encoded: str) -> int | None:
        """Record what a schedule had by the old rules until the ground moved, and since; return its next fire time."""
        zone, old = decode_zone(encoded), decode_zone(before["schedule"])
        changed = self._changed_zone(old, zone)
        with zones.standing_for(zone, changed):
            schedule = decode(encoded)
            # What the wall clock jumps over is no fire time by the old rules: it comes before their next one.
            after = position(before, self._now, at_most=changed.at - 1)
            if after < self._now:
                record_between(self._ledger, schedule, before, after, self._now, pauses=self._pauses, now=self._now)
            return next_fire_time(schedule, self._now)

    def _cross_days(self, before: Row) -> int | None:
        """Record what a schedule had by the days that its calendars had until now; return its next fire time."""
        with sources.standing(self._read.old_days):
            after = position(before, self._now)
            if after < self._now:
                schedule = decode(before["schedule"])
                record_between(self._ledger, schedule, before, after, self._now, pauses=self._pauses, now=self._now)
        return next_fire_time(decode(before["schedule"]), self._now)

    def _changed_zone(self, old: str, new: str) -> zones.ChangedZone:
        """Return the zone whose rules change this minute.

        If a tick has run in this minute, by the old rules, and the wall clock goes back, then in the next minute: what
        it recorded is not to be repeated.
        """
        key = (old, new)
        if key not in self._changed:
            minute = self._now // 60 * 60
            before, after = zones.Zone(self._old_data[old]), zones.Zone(self._new_data[new])
            goes_back = after.offset(self._now) < before.offset(self._now)
            ran = self._last_tick is not None and self._last_tick >= minute
            self._changed[key] = zones.ChangedZone(before, after, minute + 60 * (goes_back and ran))
        return self._changed[key]

    def _record_until(self, before: Row, until: int) -> None:
        """Record what the old schedule of a reminder had between the previous tick and the file's save.

        They are edited away at once, but not without a row.
        """
        if not before["enabled"] or before["next_at"] is None or before["next_at"] > until:
            return
        name = decode_zone(before["schedule"])
        try:
            with (
                zones.standing_for(name, zones.Zone(self._old_data[name]))
                if name in self._old_data
                else contextlib.nullcontext()
            ):
                record_between(
                    self._ledger,
                    decode(before["schedule"]),
                    before,
                    position(before, until),
                    until,
                    pauses=self._pauses,
                    now=self._now,
                )
        except ScheduleError:
            return  # its zone has gone; the ticks have said so, and the edit may be what fixes it

    def _record_past(self, reminder: Reminder, since: int, before: Row | None) -> None:
        """Record the instants of a new or changed `at` entry that were past when its file was saved.

        Those that an older version of the entry had are not touched: they have had their outcome.
        """
        if reminder.schedule.kind != "at":
            return
        had = self._instants(before["schedule"], self._new_data) if before is not None else frozenset()
        past = [instant for instant in fire_times(reminder.schedule, -1, since) if instant not in had]
        content = json.dumps(reminder.content(), ensure_ascii=False)
        firings.record(
            self._ledger, reminder.name, past, content=content, grace=reminder.grace, now=self._now, past=True
        )

    def _instants(self, encoded: str, data: dict[str, bytes]) -> frozenset[int]:
        """Return the instants of an `at`, by some zone data; none if it is of another kind."""
        name = decode_zone(encoded)
        try:
            with zones.standing_for(name, zones.Zone(data[name])) if name in data else contextlib.nullcontext():
                schedule = decode(encoded)
                return frozenset(fire_times(schedule, -1, zones.LAST)) if schedule.kind == "at" else frozenset()
        except ScheduleError:
            return frozenset()

    def _since(self, path: str) -> int:
        """Return from when on a file's new entries count."""
        if self._last_tick is None:
            return self._now
        try:
            saved = int(os.stat(path).st_mtime)
        except OSError:
            saved = self._now  # it has gone since it was read
        return max(min(saved, self._now), min(self._last_tick, self._now))

    def _edited(self, moved: dict[str, Reminder], gone: set[str]) -> list[str]:
        """Return the due firings whose reminder is gone, disabled, paused or rescheduled.

        Of an `at` list each instant was written by its own: what the new list still holds is not rescheduled.
        """
        return [
            row["id"]
            for row in self._ledger.db.execute("SELECT id, reminder, fire_time FROM firings WHERE state = 'due'")
            if row["reminder"] in gone
            or row["reminder"] in self._newly_paused
            or (row["reminder"] in moved and not _still(moved[row["reminder"]], row["fire_time"]))
        ]


def _still(reminder: Reminder, fire_time: int) -> bool:
    schedule: Schedule = reminder.schedule
    return reminder.enabled and schedule.kind == "at" and fire_time in fire_times(schedule, fire_time - 1, fire_time)


def _is_below(file: str, path: str) -> bool:
    """Tell whether a file is the one at `path`, or in the directory that is there."""
    return file == text_of(path) or file.startswith(f"{text_of(path)}/")


def _sources_of(encoded: str) -> set[str]:
    # Nothing is decoded that has no calendar.
    return sources_of(decode(encoded)) if encoded.startswith("limited ") else set()


def _sources_in_force(ledger: Ledger) -> set[str]:
    found: set[str] = set()
    for row in ledger.db.execute("SELECT DISTINCT schedule FROM reminders WHERE schedule LIKE 'limited %'"):
        with contextlib.suppress(ScheduleError):  # the tick that computes its fire times says so
            found |= _sources_of(row["schedule"])
    return found


def decode_zone(encoded: str) -> str:
    """Return the zone of an encoded schedule, without loading it; UTC where it has none."""
    words = encoded.split(" ")
    if words[0] == "limited":
        return words[1]
    return words[-1] if len(words) > 2 else "UTC"


def in_zone(encoded: str, old: str, new: str) -> str:
    """Return an encoded schedule with another zone for its own."""
    return " ".join([new if word == old else word for word in encoded.split(" ")])
