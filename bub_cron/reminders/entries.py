"""The tree of a file -> its reminders.

Invariants: every value is judged, whatever else is wrong, and each thing that is wrong is reported once, at its
place. A reminder comes out only if nothing about it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bub_cron import checkers, wire
from bub_cron.rare_fields import GATE_KEYS
from bub_cron.reminders.calendars import Calendars
from bub_cron.reminders.faults import Faults, nearest, shown
from bub_cron.reminders.keys import Entries, Keys, Values
from bub_cron.reminders.reminder import Reminder
from bub_cron.reminders.source import LIST, MAP, SCALAR, Node
from bub_cron.reminders.values import DEFAULT_KEYS, LIMITS, READERS, REMINDER_KEYS, SCHEDULES, gate_value, scalar, text
from bub_cron.reminders.when import Plans
from bub_cron.schedule import Schedule

MAX_REQUEST = wire.MAX_LINE - 1024  # bytes; the rest is for the id and the times that are added when it fires
DEFAULT_GRACE = 3600  # seconds
DEFAULT_AT_GRACE = 86400
TOP_KEYS = ("defaults", "calendars", "reminders")

# What other programs call a key of ours, where the nearest spelling would be another one's.
_ELSEWHERE = {"time": "at or cron", "when": "at or cron", "date": "at", "schedule": "cron, every or at"}
_ELSEWHERE |= {
    "from": "start",
    "interval": "every",
    "message": "text or prompt",
    "msg": "text or prompt",
    "tz": "timezone",
}


class Judge:
    """Turn a file's tree into reminders, reporting all that is wrong on the way.

    `is_cut`: a syntax error ended the tree early, so what is missing is no fault.
    """

    def __init__(self, faults: Faults, machine_zone: Callable[[], str], is_cut: bool, directory: str) -> None:
        self._keys = Keys(faults, is_cut)
        self._plans = Plans(self._keys, machine_zone)
        self._calendars = Calendars(self._keys, directory)
        self._defaults: Entries = {}
        self._readers: dict[str, Callable[[Node], Any]] = {
            **READERS, "context": self._context, "gate": self._gate, "only": self._calendars.named, "except": self._calendars.named,
        }  # fmt: skip

    def file(self, root: Node) -> list[Reminder]:
        keys = self._keys
        if not keys.is_group(root, "the file", "a group of keys (defaults, calendars, reminders)"):
            return []
        entries = self._entries(root, TOP_KEYS)
        if "calendars" in entries and keys.is_group(entries["calendars"][1], "calendars", "names, each with its keys"):
            self._calendars.take(entries["calendars"][1])
        defaults: Values = {}
        if "defaults" in entries and keys.is_group(entries["defaults"][1], "defaults", "a group of keys"):
            self._defaults = self._entries(entries["defaults"][1], DEFAULT_KEYS)
            defaults = self._values(self._defaults)
        if "reminders" not in entries:
            if not keys.is_cut:
                keys.faults.add(root, "reminders is missing; write reminders:, and under it each reminder by its name")
            return []
        node = entries["reminders"][1]
        if not keys.is_group(node, "reminders", "names, each with its keys"):
            return []
        found = (self._reminder(name, body, defaults) for name, body in keys.pairs(node))
        return [reminder for reminder in found if reminder is not None]

    def _entries(self, node: Node, known: tuple[str, ...]) -> Entries:
        return self._keys.entries(node, known, lambda key: _unknown(key, known))

    def _values(self, entries: Entries) -> Values:
        return {key: self._keys.value(value, key, self._readers[key]) for key, (_, value) in entries.items()}

    def _context(self, node: Node) -> dict[str, str] | None:
        if node.kind != MAP:
            scalar(_CONTEXT, node)
            raise ValueError(f"must be {_CONTEXT}, not {node.surprise() or node.kind}")
        context = {}
        for key, value in self._keys.pairs(node):
            word = self._keys.value(key, "context", lambda node: text(_context_word, node))
            what = "context" if word is None else f"context.{word}"
            context[word] = self._keys.value(value, what, lambda node: text(_context_text, node))
        if None in context or None in context.values():
            return None
        return wire.check_context(context)  # their number is all that is left to be wrong

    def _gate(self, node: Node) -> object:
        if node.kind != MAP:
            return wire.FIELDS["gate"](gate_value("run")(node))
        entries = self._keys.entries(
            node, GATE_KEYS, lambda key: f"unknown key {shown(key)} in gate; known are {', '.join(GATE_KEYS)}"
        )
        gate = {key: self._keys.value(value, f"gate: {key}", gate_value(key)) for key, (_, value) in entries.items()}
        is_faulty = None in gate.values() or len(gate) < len(list(node.pairs()))
        return None if is_faulty else wire.FIELDS["gate"](gate)

    # One reminder

    def _reminder(self, name: Node, node: Node, defaults: Values) -> Reminder | None:
        """Return the reminder, or None when something it can't do without is wrong."""
        shown_name = shown(name.text)
        is_named = self._keys.value(name, shown_name, _name)
        if not self._keys.is_group(node, shown_name, "a group of keys", at=name):
            return None
        entries = self._entries(node, REMINDER_KEYS)
        values = {**defaults, **self._values(entries)}
        when = self._exactly_one(name, entries, SCHEDULES, "schedule")
        what = self._exactly_one(name, entries, wire.MESSAGES, "message")
        if "to" not in values and not self._keys.is_cut:
            right = "to: telegram:123456789 (channel:chat_id), here or under defaults"
            self._keys.faults.add(name, f"{shown_name} has no target; write {right}")
        plan = self._plans.plan(name, entries, values, when)
        pause_until = self._plans.pause_until(name, values)
        if not is_named or plan is None or not what or "to" not in values or None in values.values():
            return None
        reminder = _build(name, plan, entries, when, what, {**values, "pause_until": pause_until}, self._defaults)
        self._check_size(reminder, entries[what][1])
        return reminder

    def _exactly_one(self, name: Node, entries: Entries, kinds: tuple[str, ...], noun: str) -> str:
        """Return the one kind that is there; "" once it is reported that none or several are."""
        found = [key for key in entries if key in kinds]
        if len(found) == 1:
            return found[0]
        if found:
            what = f"{shown(name.text)} has two {noun}s, {' and '.join(found)}; keep one"
            self._keys.faults.add(entries[found[1]][0], what)
        else:
            choices = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            self._keys.faults.add(name, f"{shown(name.text)} has no {noun}; give it one of {choices}")
        return ""

    def _check_size(self, reminder: Reminder, message: Node) -> None:
        """Report a reminder that would not fit a line of the protocol; JSON makes at most six bytes of a character."""
        length = len(reminder.body) + sum(len(key) + len(value) for key, value in reminder.context.items())
        if 6 * length < MAX_REQUEST // 2:
            return
        size = len(wire.encode(reminder.content()))
        if size > MAX_REQUEST:
            what = f"{reminder.kind} is too long: with the other keys it makes {size:,} bytes of {MAX_REQUEST:,}"
            self._keys.faults.add(message, what)


def _name(node: Node) -> str:
    try:
        return text(wire.REQUEST_FIELDS["reminder"], node)
    except ValueError as error:
        if node.kind == SCALAR and node.text and not checkers.is_name(node.text):
            raise ValueError(f"{error}; a name is no title, the chat gets the message alone") from error
        raise


_CONTEXT = "words, each with a text"


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


def _build(
    name: Node,
    plan: Schedule,
    entries: Entries,
    when: str,
    kind: str,
    values: Values,
    defaults: Entries,
) -> Reminder:
    """Fill in the defaults that depend on other keys; every value was checked by its reader."""
    fallbacks = {
        "session": values["to"],
        "timezone": plan.zone,
        "grace": DEFAULT_AT_GRACE if plan.kind == "at" else DEFAULT_GRACE,
        "attempts": wire.DEFAULT_COMMAND_ATTEMPTS if kind == wire.COMMAND else wire.DEFAULT_ATTEMPTS,
        "context": {},
    }
    given = {key: value for key, value in values.items() if key in DEFAULT_KEYS and key not in LIMITS}
    all_entries = {**defaults, **entries}
    return Reminder(
        name=name.text,
        schedule=plan,
        schedule_text=_written(entries[when][1]),
        kind=kind,
        body=values[kind],
        line=name.line,
        column=name.column,
        machine_zone="timezone" not in values,
        places={key: (value.line, value.column) for key, (_, value) in all_entries.items()},
        own=frozenset(entries),
        limits={key: _written(all_entries[key][1]) for key in LIMITS if key in all_entries},
        cut=entries[kind][1].cut,
        **{**fallbacks, **given},
    )
