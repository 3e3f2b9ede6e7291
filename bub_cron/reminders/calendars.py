"""The `calendars` of a file -> `Calendar`s by their names.

Invariants: a calendar comes out only if nothing about it, nor about those in its `except`, was wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bub_cron import checkers, schedule
from bub_cron.errors import ScheduleError
from bub_cron.reminders.faults import nearest, shown
from bub_cron.reminders.keys import Entries, Keys
from bub_cron.reminders.source import BROKEN, LIST, SCALAR, Node
from bub_cron.reminders.values import text
from bub_cron.schedule import Calendar

KEYS = ("dates", "weekdays", "country", "subdivision", "ics", "except")
_RIGHT = ", ".join(KEYS)
_EPOCH = 719_163  # the proleptic ordinal of 1970-01-01


class Calendars:
    """The calendars of one file; `named` finds those that a value names."""

    def __init__(self, keys: Keys, directory: str) -> None:
        self._keys = keys
        self._directory = directory
        self._bodies: dict[str, tuple[Node, Node]] = {}
        self._found: dict[str, Calendar | None] = {}
        self._open: list[str] = []  # those that are being read, each in the `except` of the one before it

    def take(self, node: Node) -> None:
        """Read all calendars of the file and report what is wrong with them."""
        for name, body in self._keys.pairs(node):
            if not checkers.is_name(name.text):
                self._keys.faults.add(
                    name, f"{shown(name.text)} must be a name: letters, digits, - _ . only, at most 64"
                )
            else:
                self._bodies.setdefault(name.text, (name, body))
        for known in self._bodies:
            self._calendar(known)

    def named(self, node: Node) -> tuple[Calendar, ...] | None:
        """Return the calendars that a value names, one or a list; None once a fault is reported."""
        items = node.items if node.kind == LIST else [node]
        if not items:
            raise ValueError("is empty")
        found = [self._keys.value(item, "a calendar", self._one) for item in items]
        return None if None in found else tuple(found)

    def _one(self, node: Node) -> Calendar | None:
        name = text(str, node)
        if name not in self._bodies:
            where = f"; known are {', '.join(self._bodies)}" if self._bodies else "; write it under calendars:"
            raise ValueError(f"{shown(name)} is not known here{nearest(name, self._bodies) or where}")
        if name in self._open:
            raise ValueError(f"{shown(name)} is in its own except, by way of {' and '.join(self._open)}")
        return self._calendar(name)

    def _calendar(self, name: str) -> Calendar | None:
        if name not in self._found:
            self._open.append(name)
            self._found[name] = self._read(*self._bodies[name])
            self._open.pop()
        return self._found[name]

    def _read(self, name: Node, body: Node) -> Calendar | None:
        keys = self._keys
        what = f"the calendar {shown(name.text)}"
        if body.kind == BROKEN or not keys.is_group(body, what, f"a group of keys ({_RIGHT})", at=name):
            return None
        before = len(keys.faults.found)
        entries = keys.entries(body, KEYS, _unknown)
        if (
            len(keys.faults.found) == before
            and not {*entries} & {"dates", "weekdays", "country", "ics"}
            and not keys.is_cut
        ):
            keys.faults.add(name, f"{what} names no day; give it dates, weekdays, a country or an ics")
        values = {
            "ranges": self._each(entries, "dates", lambda node: _ranges(keys, node)),
            "weekdays": self._each(entries, "weekdays", _weekdays),
            "sources": self._sources(entries),
            "excepted": self._each(entries, "except", self.named),
        }
        if len(keys.faults.found) > before or None in values.values():
            return None
        return schedule.Calendar(name.text, **{key: value for key, value in values.items() if value})

    def _each(self, entries: Entries, key: str, reader: Callable[[Node], Any]) -> Any:
        return self._keys.value(entries[key][1], key, reader) if key in entries else ()

    def _sources(self, entries: Entries) -> tuple[str, ...] | None:
        sources = []
        if "country" in entries:
            place = self._each(entries, "subdivision", lambda node: text(str, node)) or None
            sources.append(self._each(entries, "country", lambda node: schedule.country_source(text(str, node), None)))
            if place and sources[0]:
                country = entries["country"][1].text
                sources[0] = self._each(entries, "subdivision", lambda _: schedule.country_source(country, place))
        elif "subdivision" in entries:
            self._keys.faults.add(entries["subdivision"][0], "subdivision needs a country; write country: as well")
        if "ics" in entries:
            sources.append(self._each(entries, "ics", self._ics))
        return None if None in sources else tuple(sources)

    def _ics(self, node: Node) -> str:
        path = os.path.abspath(os.path.join(self._directory, text(str, node)))
        return schedule.require_readable(f"ics {path}")


def _weekdays(node: Node) -> int:
    if node.kind != SCALAR:
        raise ValueError(f"must be text, such as mon-fri, not {node.kind}")
    try:
        return schedule.parse_cron(f"0 0 * * {''.join(node.text.split())}", "UTC", "").weekdays
    except ScheduleError as error:
        raise ValueError(f"must be as in a cron, such as mon-fri: {error}") from error


def _ranges(keys: Keys, node: Node) -> tuple[tuple[int, int], ...] | None:
    items = node.items if node.kind == LIST else [node]
    if not items:
        raise ValueError("is empty")
    found = [keys.value(item, "dates", _range) for item in items]
    return None if None in found else tuple(sorted(set(found)))


def _range(node: Node) -> tuple[int, int]:
    if node.kind != SCALAR:
        raise ValueError(f"must be days such as 2026-12-24, or 2026-12-24..2027-01-02, not {node.kind}")
    first, dots, last = node.text.partition("..")
    begin = _day(first)
    end = _day(last) if dots else begin
    if end < begin:
        raise ValueError(f"{shown(node.text)} runs backwards; write the first day first")
    return begin, end


def _day(written: str) -> int:
    from datetime import date

    return date.fromisoformat(schedule.parse_day("dates", written)).toordinal() - _EPOCH


def _unknown(key: str) -> str:
    return f"unknown key {shown(key)}{nearest(key, KEYS) or f'; a calendar has {_RIGHT}'}"
