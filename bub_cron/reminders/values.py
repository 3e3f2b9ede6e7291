"""A node -> the value of a reminder's key.

Invariants: a reader returns the value or raises ValueError with half a sentence that reads on after the key (or
ScheduleError, a whole one). What the socket takes, too, is judged by the socket's own checkers (`wire.FIELDS`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from bub_cron import checkers, schedule, wire
from bub_cron.reminders.faults import in_quotes, shown
from bub_cron.reminders.source import LIST, SCALAR, Node
from bub_cron.schedule import Schedule


def scalar(right: str, node: Node) -> str:
    """Return what is written, quoted or not; `right` is what to write instead of a list or a group of keys."""
    if node.kind != SCALAR:
        raise ValueError(f"must be {right}, not {node.kind}")
    if node.plain and not node.text:
        cut = f", for YAML takes {shown(node.cut)} for a comment; put it in quotes{in_quotes(node.cut)}"
        raise ValueError(f"is empty{cut if node.cut else ''}")
    return node.text


def text(checker: Callable[[str], str], node: Node) -> str:
    """Return what `checker` makes of a text that YAML, too, reads as one."""
    value = checker(scalar("text", node))
    surprise = node.surprise()
    if surprise:
        raise ValueError(
            f"must be text, but YAML reads {shown(value)} as {surprise}; put it in quotes{in_quotes(value)}"
        )
    return value


def _prompt(node: Node) -> str:
    value = text(wire.FIELDS[wire.PROMPT], node)
    if value.lstrip().startswith(","):
        raise ValueError("begins with a comma, so Bub would run it as a command; write it under command instead")
    return value


def _duration(node: Node, units: str = "{0}m for minutes, {0}s for seconds") -> int:
    value = scalar("a duration such as 30m", node)
    if value.isdecimal() and value.isascii():
        raise ValueError(f"needs a unit: {units.format(value[:9])}")
    return checkers.parse_duration(value)


def _attempts(node: Node) -> int:
    value = scalar("a whole number", node)
    if not node.plain or not re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
        # Neither 010 (eight, for YAML) nor 1_0 nor 1:30 is worth guessing at.
        raise ValueError("must be a whole number such as 3, in plain digits and without quotes")
    return wire.check_attempts(int(value[:9]))


def _boolean(node: Node) -> bool:
    scalar("true or false", node)
    surprise = node.surprise()
    if surprise in {"true", "false"}:
        return surprise == "true"
    raise ValueError(f"must be true or false{'' if node.plain else ' without quotes'}, not {surprise or 'text'}")


def _cron(node: Node) -> str:
    if node.kind == LIST:
        raise ValueError("takes one text, not a list; make two reminders of them")
    return scalar("text", node)


def _at(node: Node) -> list[Node]:
    """Return the nodes of an `at`; they are read once the zone is known."""
    items = node.items if node.kind == LIST else [node]
    if not items:
        raise ValueError("is empty")
    return items


def _shared(key: str) -> Callable[[Node], str]:
    return partial(text, wire.FIELDS[key])


class Period(NamedTuple):
    """An `every`, and whether it is written in whole days or weeks, which count on the wall clock."""

    every: Schedule
    in_days: bool


def _listed(key: str, node: Node) -> object:
    """Return what the socket's checker makes of a text, or of a list of texts."""
    if node.kind == LIST:
        return wire.FIELDS[key]([scalar("text", item) for item in node.items])
    return wire.FIELDS[key](scalar("text, or a list of texts", node))


def _tokens(node: Node) -> object:
    return wire.FIELDS["max_tokens"](scalar("a number of tokens such as 60k", node))


def _mark_late(node: Node) -> object:
    return checkers.NEVER if node.text == checkers.NEVER else _duration(node)


def gate_value(key: str) -> Callable[[Node], object]:
    """Return the reader of a value in a `gate`."""
    readers: dict[str, Callable[[Node], object]] = {"run": _words, "timeout": _duration, "changed": _boolean}
    return readers[key]


def _words(node: Node) -> str | list[str]:
    if node.kind == LIST:
        return [item.text if item.kind == SCALAR else scalar("text", item) for item in node.items]
    return scalar("a shell line, or a list of a program and its arguments", node)


def _every(node: Node) -> Period:
    seconds = _duration(node, "{0}m for minutes, {0}h for hours")
    units = {character for character in node.text if character.isalpha()}
    if units & {"w", "d"} and units - {"w", "d"}:
        raise ValueError("mixes days, which count on the wall clock, with hours, which don't; write 36h or 2d")
    return Period(schedule.parse_every(seconds), units <= {"w", "d"})


def _times(node: Node) -> int:
    value = scalar("a whole number", node)
    if not node.plain or not re.fullmatch("[1-9][0-9]{0,8}", value) or int(value) > schedule.MAX_TIMES:
        raise ValueError(f"must be a whole number from 1 to {schedule.MAX_TIMES:,}, without quotes")
    return int(value)


def _dated(right: str, node: Node) -> Node:
    """Return the node of a `start`, `until` or `pause_until`; it is read once the zone is known."""
    scalar(right, node)
    return node


SCHEDULES = ("cron", "every", "at", "rrule")
LIMITS = ("start", "until", "times", "only", "except")
READERS: Mapping[str, Callable[[Node], object]] = {
    "cron": _cron,
    "every": _every,
    "at": _at,
    "rrule": partial(scalar, "text"),
    "start": partial(_dated, "a date and time such as 2026-12-01 08:30"),
    "until": partial(_dated, "a date such as 2026-12-31"),
    "times": _times,
    wire.PROMPT: _prompt,
    wire.TEXT: _shared(wire.TEXT),
    wire.COMMAND: _shared(wire.COMMAND),
    "to": _shared("to"),
    "also": partial(_listed, "also"),
    "session": _shared("session"),
    "timezone": partial(text, schedule.require_zone),
    "enabled": _boolean,
    "pause_until": partial(_dated, "a date such as 2026-12-31, or a date and time"),
    "grace": _duration,
    "catch_up": partial(text, checkers.one_of("latest", "all")),
    "overlap": _shared("overlap"),
    "delivery": _shared("delivery"),
    "attempts": _attempts,
    "timeout": _duration,
    "mark_late": _mark_late,
    "reply": _shared("reply"),
    "quiet": _boolean,
    "tools": partial(_listed, "tools"),
    "max_tokens": _tokens,
    "budget": _shared("budget"),
    "alert": _shared("alert"),
    "ping": _shared("ping"),
    "model": _shared("model"),
}
"""All but those that `entries` reads: `context` and `gate`, which may have a fault for each of their entries, and calendars."""

REMINDER_KEYS = (*SCHEDULES, *LIMITS, *(key for key in READERS if key not in SCHEDULES + LIMITS), "gate", "context")
DEFAULT_KEYS = tuple(key for key in REMINDER_KEYS if key not in SCHEDULES + wire.MESSAGES)
