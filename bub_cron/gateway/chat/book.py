"""What the tools do with the reminders of a chat: add, list, change, remove, fire, log.

Invariants:
- A chat sees and changes its own reminders alone; any other name "is not there". Those of the user's own files are seen and
  fired, and never changed.
- Every value is judged by the parser of the file, with its words. Each refusal says what would be right.
- A turn that a reminder started adds, changes and fires nothing.
- What was told to be stored is on disk.

All but `fire` block, for they read and write files: they are called in a thread.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from bub_cron import checkers, records, schedule, wire
from bub_cron.errors import BubCronError, FileFaultsError, FileMissingError, StoreError
from bub_cron.gateway.chat.callers import Caller, RefusedError
from bub_cron.paths import Paths, chat_file
from bub_cron.pauses import Pauses, in_force
from bub_cron.reminders import Reminder, ReminderFile, read_files, suspicions
from bub_cron.reminders.chat_file import MADE, ChatFile, default_zone, edit

MOST_IN_CHAT = 50
LEAST_PROMPT_SECONDS = 300
LATE_TICK_SECONDS = 180
_KEEP_SPENT_SECONDS = 7 * 86400
_FAR = 253402214400  # 9999-12-31, where calendars end
_LOOK_AHEAD = 300  # fire times that are looked at for how often a prompt would run
_MOST_LOGGED = 10
_COMMAND_HINT = "; write it under command instead"  # which no chat may set
_NONE = "none"  # clears a key

SCHEDULES = ("after", "at", "every", "cron", "rrule")
MESSAGES = ("text", "prompt")
LIMITS = ("start", "until", "times")


class Book:
    """The reminders of the chats of one gateway.

    `setting` is `BUB_CRON_CHAT`; `no_way` tells why nothing can be delivered to a target; `refusal` why the gateway doesn't
    run a request; `accept` takes requests into the inbox; `now` gives epoch seconds.
    """

    def __init__(
        self,
        paths: Paths,
        setting: str,
        *,
        no_way: Callable[[str], str | None],
        refusal: Callable[[wire.Request], str | None],
        accept: Callable[[Sequence[wire.Request]], Awaitable[Sequence[object]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._path = chat_file(paths.file)
        self._setting = setting
        self._no_way = no_way
        self._refusal = refusal
        self._accept = accept
        self._now = now

    # --- The tools

    def add(self, caller: Caller, name: str, given: Mapping[str, Any]) -> str:
        """Store a reminder of the caller's chat and say what was stored; the same one twice is one."""
        self._require_may_change(caller)
        if no_way := self._no_way(caller.to):
            raise RefusedError(f"nothing can be delivered to this chat, {caller.to}: {no_way}")
        _require_one(given, SCHEDULES, "schedule")
        _require_one(given, MESSAGES, "message")
        now = int(self._now())
        zone = self._zone(given)
        values = {"to": caller.to, "timezone": zone, **_file_values(given, zone, now)}

        def change(file: ChatFile) -> str:
            files = self._files()
            there = {**file.reminders, **self._others(file, files)}
            unseen = self._names_of_faulty_files(files)
            is_taken = name in there or name in unseen
            free = _free_name(str(values.get("text") or values.get("prompt")), {*there, *unseen})
            new_name = free if is_taken or not name else name
            file.put(new_name, values, f"{MADE}by {caller.who} in {caller.to} on {_clock(now, zone)}")
            reminder = _judged(file, new_name)
            to_come = [one for one in there.values() if not _is_over(one, now)]
            if same := _same(reminder, to_come, "after" in given):
                file.remove(new_name)
                return self._told(f"It is there already, as {same.name}; nothing was added.", same, now)
            if is_taken:
                where = "" if name in there and there[name].to == caller.to else " elsewhere"
                raise RefusedError(
                    f"the name {name} is taken{where}; give another one, or use reminder.change if that reminder is meant"
                )
            self._require_allowed(reminder, now)
            self._drop_spent(file, now)
            in_chat = sum(one.to == caller.to and not _is_over(one, now) for one in file.reminders.values())
            if in_chat >= MOST_IN_CHAT:
                raise RefusedError(f"this chat has {MOST_IN_CHAT} reminders, which is the most; remove some first")
            return self._told(f"Added {new_name}.", reminder, now)

        return self._edit(change)

    def change(self, caller: Caller, name: str, given: Mapping[str, Any]) -> str:
        """Change the given keys of a reminder of the caller's chat, and say what it is now."""
        self._require_may_change(caller)
        if not given:
            raise RefusedError("nothing to change was given; give what changes, as to reminder.add")
        _require_at_most_one(given, SCHEDULES, "schedule")
        _require_at_most_one(given, MESSAGES, "message")
        now = int(self._now())

        def change(file: ChatFile) -> str:
            self._others(file, self._files())
            old = self._require_own(caller, name, file)
            zone = self._zone(given) if "timezone" in given else old.timezone
            values: dict[str, Any] = {}
            for group in (SCHEDULES, MESSAGES):
                if any(key in given for key in group):
                    values |= dict.fromkeys(key for key in group if key != "after")
            if any(key in given for key in SCHEDULES):
                values |= dict.fromkeys(LIMITS)
            values |= {"timezone": zone, **_file_values(given, zone, now)}
            file.change(name, values, f"# changed by {caller.who} on {_clock(now, zone)}")
            reminder = _judged(file, name)
            self._require_allowed(reminder, now)
            return self._told(f"Changed {name}.", reminder, now)

        return self._edit(change)

    def remove(self, caller: Caller, name: str) -> str:
        """Remove a reminder of the caller's chat."""

        def change(file: ChatFile) -> str:
            reminder = self._require_own(caller, name, file)
            file.remove(name)
            return f"Removed {name} ({_quoted(reminder)}). It no longer fires."

        return self._edit(change)

    def overview(self, caller: Caller) -> str:
        """Say which reminders the caller's chat has."""
        now = int(self._now())
        pauses, faulty = self._pauses(), []
        found: list[Reminder] = []
        for file in self._files():
            if file.error is not None:
                faulty.append(
                    f"{file.path} has faults, so what it holds may be missing here; `bub-cron check` shows them."
                )
            found += [reminder for reminder in file.reminders if reminder.to == caller.to]
        lines = [self._line(reminder, pauses, now) for reminder in found]
        count = f"{len(found)} reminder{'s' * (len(found) != 1)}" if found else "No reminders"
        zone = found[0].timezone if found else self._zone({})
        head = f"{count} in this chat ({caller.to}). Other chats' are not shown. Now: {_clock(now, zone)}."
        return "\n".join([head, *lines, *faulty, *self._tick_warning(now)])

    def log(self, caller: Caller, name: str = "") -> str:
        """Say what became of the latest firings of the caller's chat, or of one of its reminders."""
        if name:
            self._require_seen(caller, name)
        try:
            newest = records.history(self._paths, reminder=name or None, most=20 * _MOST_LOGGED)
        except StoreError as error:
            raise RefusedError(f"the log can't be read: {error}") from error
        found = [record for record in newest if record.to == caller.to and record.reminder][:_MOST_LOGGED]
        if not found:
            return f"{name} has not fired yet." if name else "Nothing has fired in this chat yet."
        lines = [
            f"- {one.fire_time} {one.reminder}: {one.outcome}{f' ({one.why})' if one.why else ''}" for one in found
        ]
        return "\n".join([
            f"The latest firings in this chat, newest first; times are UTC, now is {wire.iso(self._now())}:",
            *lines,
        ])

    def request_to_fire(self, caller: Caller, name: str) -> wire.Request:
        """Return the request that fires a reminder of the caller's chat now."""
        if caller.by_reminder:
            raise RefusedError("a reminder started this turn, and such a turn can't fire reminders")
        reminder = self._require_seen(caller, name)
        now = self._now()
        fields = {
            **reminder.content(),
            "id": f"fire-{name}-{uuid.uuid4().hex[:12]}",
            "overlap": "queue",
            "expires": now + reminder.grace,
            "wait": False,
        }
        return _request(fields, now)

    async def fire(self, request: wire.Request) -> str:
        """Have a request accepted, and say so."""
        if refusal := self._refusal(request):
            raise RefusedError(refusal)
        (accepted,) = await self._accept([request])
        if isinstance(accepted, BubCronError):
            raise RefusedError(f"the gateway did not take it: {accepted}")
        when = "now" if request.kind == wire.TEXT else "once this turn has ended"
        return f"Accepted: {request.reminder} fires {when}, in this chat. reminder.log tells what became of it."

    # --- What may be done

    def _require_may_change(self, caller: Caller) -> None:
        if caller.by_reminder:
            raise RefusedError("a reminder started this turn, and such a turn can't add or change reminders")

    def _require_own(self, caller: Caller, name: str, file: ChatFile) -> Reminder:
        """Return a reminder that the caller's chat may change."""
        reminder = file.reminders.get(name)
        if reminder is None or reminder.to != caller.to:
            elsewhere = self._require_seen(caller, name)
            raise RefusedError(
                f"{name} stands in {elsewhere.file}, the user's own file: it can be changed there, not from chat"
            )
        return reminder

    def _require_seen(self, caller: Caller, name: str) -> Reminder:
        """Return a reminder that the caller's chat may see."""
        seen = [one for file in self._files() for one in file.reminders if one.to == caller.to]
        for reminder in seen:
            if reminder.name == name:
                return reminder
        names = ", ".join(reminder.name for reminder in seen)
        raise RefusedError(f"there is no reminder {name} in this chat; there {f'are: {names}' if names else 'is none'}")

    def _require_allowed(self, reminder: Reminder, now: int) -> None:
        """Refuse what the file would take and a chat does not."""
        upcoming = list(islice(schedule.fire_times(reminder.schedule, now, _FAR), _LOOK_AHEAD))
        if not upcoming:
            raise RefusedError(
                f"{schedule.describe(reminder.schedule)} is past: it would never fire; now is {_clock(now, reminder.timezone)}"
            )
        if reminder.kind != wire.PROMPT:
            return
        if self._setting == "text":
            raise RefusedError(
                "prompts are turned off in chat here (BUB_CRON_CHAT=text); give a text, which is sent as it is"
            )
        if any(later - earlier < LEAST_PROMPT_SECONDS for earlier, later in pairwise(upcoming)):
            raise RefusedError(
                f"a prompt runs a model each time, so one made in chat may run every {LEAST_PROMPT_SECONDS // 60} minutes"
                " at most; choose a longer interval, or a text"
            )
        if refusal := self._refusal(_request({**reminder.content(), "id": "judged"}, now)):
            raise RefusedError(refusal)

    # --- The files

    def _edit(self, change: Callable[[ChatFile], str]) -> str:
        try:
            return edit(self._path, change)
        except FileFaultsError as error:
            raise RefusedError(
                f"{_faults(error)}; nothing can be changed from chat until somebody has corrected {self._path}"
            ) from error

    def _files(self) -> list[ReminderFile]:
        try:
            return read_files(self._paths.file)
        except FileMissingError:
            return []

    def _others(self, file: ChatFile, files: Iterable[ReminderFile]) -> dict[str, Reminder]:
        """Return the reminders of all other files by name; refuse where one of them has a name that this file has, too."""
        others: dict[str, Reminder] = {}
        for other in files:
            if other.path != self._path:
                others |= {reminder.name: reminder for reminder in other.reminders}
        for name in file.reminders:
            if name in others:
                raise RefusedError(
                    f"the name {name} stands in {others[name].file} and in {self._path}, so one of them is not used; "
                    f"somebody has to rename one, or run `bub-cron remove {name}`"
                )
        return others

    def _names_of_faulty_files(self, files: Iterable[ReminderFile]) -> set[str]:
        """Return the names that are in force while a file can't be read, for its last good version has some of them."""
        if all(file.error is None for file in files):
            return set()
        try:
            return set(records.names_in_force(self._paths))
        except StoreError:
            return set()  # a name that is taken all the same makes the file faulty, and `list` and `doctor` tell it

    def _drop_spent(self, file: ChatFile, now: int) -> None:
        """Drop what was made in chat and has fired for the last time more than a week ago."""
        for name, reminder in file.reminders.items():
            if (
                file.is_made_in_chat(name)
                and schedule.next_fire_time(reminder.schedule, now - _KEEP_SPENT_SECONDS) is None
            ):
                file.remove(name)

    def _zone(self, given: Mapping[str, Any]) -> str:
        zone = given.get("timezone") or default_zone(self._paths.file)
        try:
            return schedule.require_zone(str(zone)) if zone else schedule.machine_zone()
        except (ValueError, BubCronError) as error:
            raise RefusedError(f"timezone: {error}") from error

    # --- What is told

    def _told(self, head: str, reminder: Reminder, now: int) -> str:
        zone = reminder.timezone
        after = now if reminder.pause_until is None else max(now, reminder.pause_until - 1)
        times = [_clock(moment, zone) for moment in islice(schedule.fire_times(reminder.schedule, after, _FAR), 3)]
        lines = [
            head,
            f"Schedule: {schedule.describe(reminder.schedule)}.",
            f"Next: {'; '.join(times) or 'never again'}. Now: {_clock(now, zone)}.",
            "It runs a model with this prompt each time: " + _quoted(reminder)
            if reminder.kind == wire.PROMPT
            else "Sent word for word, no model runs: " + _quoted(reminder),
        ]
        lines += [f"Note: {doubt.message}." for doubt in suspicions([reminder], now)]
        if not reminder.enabled:
            lines.append("It is disabled: it fires once it is enabled again.")
        if reminder.pause_until is not None and reminder.pause_until > now:
            lines.append(f"It is paused until {_clock(reminder.pause_until, zone)}.")
        lines += self._tick_warning(now) or [
            "Tell the user the name, the schedule with its zone, and when it fires next."
        ]
        return "\n".join(lines)

    def _line(self, reminder: Reminder, pauses: Pauses, now: int) -> str:
        following = schedule.next_fire_time(reminder.schedule, now)
        said = [schedule.describe(reminder.schedule)]
        pause = in_force(pauses.of(reminder.name, reminder.pause_until), now)
        if not reminder.enabled:
            said.append("disabled")
        elif pause is not None:
            said.append(pause.sentence(lambda instant: _clock(instant, reminder.timezone)))
        else:
            said.append("over" if following is None else f"next {_clock(following, reminder.timezone)}")
        said.append(("runs a model: " if reminder.kind == wire.PROMPT else "text: ") + _quoted(reminder))
        if reminder.file != self._path:
            said.append(f"in the user's own file {reminder.file}, can't be changed from chat")
        return f"- {reminder.name}: {'; '.join(said)}"

    def _pauses(self) -> Pauses:
        try:
            return records.pauses(self._paths)
        except StoreError:
            return Pauses()  # what the warning about ticks tells, too

    def _tick_warning(self, now: int) -> list[str]:
        """Return what the user has to know where no tick runs."""
        try:
            last = records.last_tick(self._paths).instant
        except StoreError as error:
            return [f"WARNING: it can't be told whether reminders fire here: {error}"]
        if last is not None and now - last <= LATE_TICK_SECONDS:
            return []
        when = "no tick has run here yet" if last is None else f"the last tick was {_ago(now - last)} ago"
        return [
            f"WARNING, tell the user: {when}, so nothing will fire until one runs (on the machine: `bub-cron install` sets"
            " the timer up, `bub-cron doctor` tells what is wrong)."
        ]


def _file_values(given: Mapping[str, Any], zone: str, now: int) -> dict[str, Any]:
    """Return the keys for the file: `after` becomes `at`, and "none" becomes None, which clears a key."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key == "after":
            values["at"] = _after(str(value), zone, now)
        elif key == "at" and isinstance(value, str) and "," in value:
            values["at"] = [part.strip() for part in value.split(",") if part.strip()]
        elif key != "timezone":
            values[key] = None if str(value).lower() == _NONE and key in (*LIMITS, "pause_until") else value
    return values


def _after(value: str, zone: str, now: int) -> str:
    """Return the local time a duration from now, on the next whole minute; with its offset where the clock shows it twice."""
    try:
        instant = -(-(now + checkers.parse_duration(value)) // 60) * 60
    except ValueError as error:
        raise RefusedError(f"after {error}") from error
    local = datetime.fromtimestamp(instant, ZoneInfo(zone))
    written = f"{local:%Y-%m-%d %H:%M}"
    is_first = int(local.replace(fold=0).timestamp()) == instant
    return written if is_first else f"{written}{local:%:z}"


def _require_one(given: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    _require_at_most_one(given, keys, what)
    if not any(key in given for key in keys):
        hint = (
            "text is sent as it is, a prompt runs a model each time"
            if keys is MESSAGES
            else "after counts from now: 20m"
        )
        raise RefusedError(f"there is no {what}; give one of {', '.join(keys)} ({hint})")


def _require_at_most_one(given: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    found = [key for key in keys if key in given]
    if len(found) > 1:
        raise RefusedError(f"there are {len(found)} {what}s, {' and '.join(found)}; give one of them")


def _judged(file: ChatFile, name: str) -> Reminder:
    try:
        return file.judged()[name]
    except FileFaultsError as error:
        raise RefusedError("; ".join(fault.message.replace(_COMMAND_HINT, "") for fault in error.faults)) from error


def _faults(error: FileFaultsError) -> str:
    first = error.faults[0]
    return f"{error.path}, line {first.line}: {first.message}"


def _request(fields: Mapping[str, Any], now: float) -> wire.Request:
    request = wire.parse_request(wire.encode(fields), now=now, new_id=lambda: "")
    if not isinstance(request, wire.Request):
        raise TypeError(f"{fields!r} is no request")
    return request


def _same(new: Reminder, there: Iterable[Reminder], is_after: bool) -> Reminder | None:
    """Return the reminder that is the same as a new one: of two with `after`, also one that a minute's end set apart."""
    for one in there:
        if (one.to, one.kind, one.body) == (new.to, new.kind, new.body) and (
            one.schedule == new.schedule or (is_after and one.schedule.kind == "at" and _is_near(one, new))
        ):
            return one
    return None


def _is_near(one: Reminder, new: Reminder) -> bool:
    moments = [schedule.next_fire_time(each.schedule, 0) for each in (one, new)]
    return None not in moments and abs(moments[0] - moments[1]) <= 60  # type: ignore[operator]


def _is_over(reminder: Reminder, instant: int) -> bool:
    return schedule.next_fire_time(reminder.schedule, instant) is None


def _free_name(message: str, taken: Collection[str]) -> str:
    """Make a name of a message's first words."""
    words = re.findall("[a-z0-9]+", message.lower())
    name = ""
    for word in words:
        if len(name) + len(word) > 24:
            break
        name = f"{name}-{word}" if name else word
    name = name or "reminder"
    numbers = iter(range(2, len(taken) + 3))
    unique = name
    while unique in taken:
        unique = f"{name}-{next(numbers)}"
    return unique


def _clock(instant: float, zone: str) -> str:
    return f"{datetime.fromtimestamp(instant, ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}"


def _ago(seconds: int) -> str:
    size, unit = next(
        ((size, unit) for size, unit in ((86400, "day"), (3600, "hour")) if seconds >= size), (60, "minute")
    )
    count = seconds // size
    return f"{count} {unit}{'s' * (count != 1)}"


def _quoted(reminder: Reminder) -> str:
    text = " ".join(reminder.body.split())
    return f'"{text if len(text) <= 200 else text[:200] + "..."}"'
