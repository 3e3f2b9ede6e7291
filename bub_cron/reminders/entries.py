"""The tree of a file -> its reminders.

Invariants: every value is judged, whatever else is wrong, and each thing that is wrong is reported once, at its
place. A reminder comes out only if nothing about it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from bub_cron import schedule, wire
from bub_cron.errors import ScheduleError
from bub_cron.reminders.faults import Faults, nearest, shown
from bub_cron.reminders.reminder import Reminder
from bub_cron.reminders.source import BROKEN, LIST, MAP, SCALAR, Node
from bub_cron.reminders.values import DEFAULT_KEYS, READERS, REMINDER_KEYS, SCHEDULES, scalar, text
from bub_cron.schedule import Schedule

MAX_REQUEST = wire.MAX_LINE - 1024  # bytes; the rest is for the id and the times that are added when it fires
DEFAULT_GRACE = 3600  # seconds
DEFAULT_AT_GRACE = 86400
TOP_KEYS = ("defaults", "reminders")

# What other programs call a key of ours, where the nearest spelling would be another one's.
_ELSEWHERE = {"time": "at or cron", "when": "at or cron", "date": "at", "schedule": "cron, every or at"}
_ELSEWHERE |= {"interval": "every", "message": "text or prompt", "msg": "text or prompt", "tz": "timezone"}

# `H` makes a schedule depend on its reminder's name. The letter alone counts: thu, march and @hourly are common to all.
_HASHED = re.compile(r"(?<![A-Za-z@])H(?![A-Za-z])", re.IGNORECASE)

_Values = dict[str, Any]  # by key, as the readers return them; None once the fault of a value is reported
_Entries = dict[str, tuple[Node, Node]]  # by key: its node and its value's


class Judge:
    """Turn a file's tree into reminders, reporting all that is wrong on the way.

    `is_cut`: a syntax error ended the tree early, so what is missing is no fault.
    """

    def __init__(self, faults: Faults, machine_zone: Callable[[], str], is_cut: bool) -> None:
        self._faults = faults
        self._is_cut = is_cut
        self._machine_zone = machine_zone
        self._asked_machine = False
        self._machines: str | None = None
        self._parse_cron = cache(schedule.parse_cron)  # of 10,000 reminders most share a few
        self._default_places: dict[str, tuple[int, int]] = {}
        self._readers = {**READERS, "context": self._context}

    def file(self, root: Node) -> list[Reminder]:
        if not self._is_group(root, "the file", "a group of keys (defaults, reminders)"):
            return []
        entries = self._entries(root, TOP_KEYS)
        defaults: _Values = {}
        if "defaults" in entries and self._is_group(entries["defaults"][1], "defaults", "a group of keys"):
            given = self._entries(entries["defaults"][1], DEFAULT_KEYS)
            defaults = self._values(given)
            self._default_places = _places(given)
        if "reminders" not in entries:
            if not self._is_cut:
                self._faults.add(root, "reminders is missing; write reminders:, and under it each reminder by its name")
            return []
        node = entries["reminders"][1]
        if not self._is_group(node, "reminders", "names, each with its keys"):
            return []
        found = (self._reminder(name, body, defaults) for name, body in self._pairs(node))
        return [reminder for reminder in found if reminder is not None]

    # Keys and values

    def _is_group(self, node: Node, what: str, right: str, at: Node | None = None) -> bool:
        """Tell whether `node` holds keys, or nothing at all (all commented out); report, at `at`, if something else."""
        if node.kind == MAP or node.surprise() == "nothing":
            return True
        if node.kind != BROKEN:
            self._faults.add(at or node, f"{what} must be {right}, not {node.kind}")
        return False

    def _pairs(self, node: Node) -> list[tuple[Node, Node]]:
        """Return the keys and values of a group; report keys that are no words, or repeated."""
        pairs = []
        places: dict[str, Node] = {}
        for key, value in node.pairs():
            if key.kind == SCALAR:
                pairs.append((key, value))
                first = places.setdefault(key.text, key)
                if first is not key:
                    what = f"{shown(key.text)} stands here twice, also on line {first.line}; keep one"
                    self._faults.add(key, what)
            elif key.kind != BROKEN:
                self._faults.add(key, f"a key must be a word, not {key.kind}")
        return pairs

    def _entries(self, node: Node, known: tuple[str, ...]) -> _Entries:
        entries: _Entries = {}
        for key, value in self._pairs(node):
            if key.text in known:
                entries.setdefault(key.text, (key, value))
            else:
                self._faults.add(key, _unknown(key.text, known))
        return entries

    def _values(self, entries: _Entries) -> _Values:
        return {key: self._value(value, key, self._readers[key]) for key, (_, value) in entries.items()}

    def _value(self, node: Node, what: str, reader: Callable[[Node], Any]) -> Any:
        """Return what `reader` makes of a node, or None once its fault is reported."""
        if node.kind == BROKEN:
            return None
        try:
            return reader(node)
        except ScheduleError as error:
            self._faults.add(node, str(error))
        except ValueError as error:
            self._faults.add(node, f"{what} {error}")
        return None

    def _context(self, node: Node) -> dict[str, str] | None:
        if node.kind != MAP:
            scalar(_CONTEXT, node)
            raise ValueError(f"must be {_CONTEXT}, not {node.surprise() or node.kind}")
        context = {}
        for key, value in self._pairs(node):
            word = self._value(key, "context", lambda node: text(_context_word, node))
            what = "context" if word is None else f"context.{word}"
            context[word] = self._value(value, what, lambda node: text(_context_text, node))
        if None in context or None in context.values():
            return None
        return wire.check_context(context)  # their number is all that is left to be wrong

    # One reminder

    def _reminder(self, name: Node, node: Node, defaults: _Values) -> Reminder | None:
        """Return the reminder, or None when something it can't do without is wrong."""
        shown_name = shown(name.text)
        is_named = self._value(name, shown_name, _name)
        if not self._is_group(node, shown_name, "a group of keys", at=name):
            return None
        entries = self._entries(node, REMINDER_KEYS)
        values = {**defaults, **self._values(entries)}
        when = self._exactly_one(name, entries, SCHEDULES, "schedule")
        what = self._exactly_one(name, entries, wire.MESSAGES, "message")
        if "to" not in values and not self._is_cut:
            right = "to: telegram:123456789 (channel:chat_id), here or under defaults"
            self._faults.add(name, f"{shown_name} has no target; write {right}")
        # Of two schedules neither is the one meant, but each is judged by itself.
        plans = {key: self._schedule(key, entries[key][1], values, name) for key in SCHEDULES if key in entries}
        plan = plans.get(when)
        if not is_named or plan is None or not what or "to" not in values or None in values.values():
            return None
        reminder = _build(name, plan, entries, when, what, values, self._default_places)
        self._check_size(reminder, entries[what][1])
        return reminder

    def _exactly_one(self, name: Node, entries: _Entries, kinds: tuple[str, ...], noun: str) -> str:
        """Return the one kind that is there; "" once it is reported that none or several are."""
        found = [key for key in entries if key in kinds]
        if len(found) == 1:
            return found[0]
        if found:
            what = f"{shown(name.text)} has two {noun}s, {' and '.join(found)}; keep one"
            self._faults.add(entries[found[1]][0], what)
        else:
            choices = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            self._faults.add(name, f"{shown(name.text)} has no {noun}; give it one of {choices}")
        return ""

    def _schedule(self, kind: str, node: Node, values: _Values, name: Node) -> Schedule | None:
        value = values[kind]
        if value is None or kind == "every":
            return value  # type: ignore[no-any-return]
        # A bad zone has had its fault; the times may still have theirs.
        zone = (values["timezone"] if "timezone" in values else self._zone_of_machine(name)) or "UTC"
        if kind == "cron":
            spread = name.text if _HASHED.search(value) else ""
            return self._read_schedule(node, lambda _: self._parse_cron(value, zone, spread))
        one_by_one = [
            self._read_schedule(item, lambda item: schedule.parse_at([scalar(_DATE, item)], zone)) for item in value
        ]
        if None in one_by_one:
            return None
        return self._read_schedule(node, lambda _: schedule.parse_at([item.text for item in value], zone))

    def _read_schedule(self, node: Node, reader: Callable[[Node], Schedule]) -> Schedule | None:
        return self._value(node, "at", reader)  # type: ignore[no-any-return]

    def _zone_of_machine(self, name: Node) -> str | None:
        if not self._asked_machine:
            self._asked_machine = True
            self._machines = self._value(name, "", lambda _: self._machine_zone())
        return self._machines

    def _check_size(self, reminder: Reminder, message: Node) -> None:
        """Report a reminder that would not fit a line of the protocol; JSON makes at most six bytes of a character."""
        length = len(reminder.body) + sum(len(key) + len(value) for key, value in reminder.context.items())
        if 6 * length < MAX_REQUEST // 2:
            return
        size = len(wire.encode(reminder.content()))
        if size > MAX_REQUEST:
            what = f"{reminder.kind} is too long: with the other keys it makes {size:,} bytes of {MAX_REQUEST:,}"
            self._faults.add(message, what)


def _name(node: Node) -> str:
    try:
        name = text(wire.REQUEST_FIELDS["reminder"], node)
    except ValueError as error:
        if node.kind == SCALAR and node.text and not wire.is_name(node.text):
            raise ValueError(f"{error}; a name is no title, the chat gets the message alone") from error
        raise
    if name[0] in "-.":
        raise ValueError("must begin with a letter, a digit or _")
    return name


_CONTEXT = "words, each with a text"
_DATE = "a date and time such as 2026-12-01 08:30"


def _unknown(key: str, known: tuple[str, ...]) -> str:
    if key == "<<":
        return "<< (a merge of keys) is not taken; write the keys out, or use defaults"
    if key in REMINDER_KEYS:
        where = "under defaults or to a reminder" if key in DEFAULT_KEYS else "to a reminder"
        return f"{key} belongs {where}, not here"
    if known is not TOP_KEYS and key.lower() in _ELSEWHERE:
        return f"unknown key {shown(key)}; write {_ELSEWHERE[key.lower()]}"
    where = "; a reminder goes under reminders:, indented" if known is TOP_KEYS else f"; known are {', '.join(known)}"
    return f"unknown key {shown(key)}{nearest(key, known) or where}"


def _context_word(word: str) -> str:
    wire.check_context({word: ""})
    return word


def _context_text(value: str) -> str:
    try:
        return wire.check_context({"x": value})["x"]
    except ValueError as error:
        raise ValueError(str(error).removeprefix("has a bad value: x ")) from error


def _written(node: Node) -> str:
    return ", ".join(item.text for item in node.items) if node.kind == LIST else node.text


def _places(entries: _Entries) -> dict[str, tuple[int, int]]:
    return {key: (value.line, value.column) for key, (_, value) in entries.items()}


def _build(
    name: Node,
    plan: Schedule,
    entries: _Entries,
    when: str,
    kind: str,
    values: _Values,
    default_places: dict[str, tuple[int, int]],
) -> Reminder:
    """Fill in the defaults that depend on other keys; every value was checked by its reader."""
    fallbacks = {
        "session": values["to"],
        "timezone": plan.zone,
        "grace": DEFAULT_AT_GRACE if plan.kind == "at" else DEFAULT_GRACE,
        "attempts": wire.DEFAULT_COMMAND_ATTEMPTS if kind == wire.COMMAND else wire.DEFAULT_ATTEMPTS,
        "context": {},
    }
    given = {key: value for key, value in values.items() if key in DEFAULT_KEYS}
    return Reminder(
        name=name.text,
        schedule=plan,
        schedule_text=_written(entries[when][1]),
        kind=kind,
        body=values[kind],
        line=name.line,
        column=name.column,
        places={**default_places, **_places(entries)},
        cut=entries[kind][1].cut,
        **{**fallbacks, **given},
    )
