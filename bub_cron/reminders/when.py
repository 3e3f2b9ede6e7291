"""The keys that say when a reminder fires -> its schedule.

Invariants: what depends on the zone is read once that is known; of two schedules each is judged by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from bub_cron import schedule
from bub_cron.reminders.keys import Entries, Keys, Values
from bub_cron.reminders.source import Node
from bub_cron.reminders.values import LIMITS, SCHEDULES, scalar
from bub_cron.schedule import Schedule

# `H` makes a schedule depend on its reminder's name. The letter alone counts: thu, march and @hourly are common to all.
_HASHED = re.compile(r"(?<![A-Za-z@])H(?![A-Za-z])", re.IGNORECASE)
_LIMITS = frozenset(LIMITS)
_DATE = "a date and time such as 2026-12-01 08:30"


class Plans:
    """Read the schedules of one file's reminders."""

    def __init__(self, keys: Keys, machine_zone: Callable[[], str]) -> None:
        self._keys = keys
        self._machine_zone = machine_zone
        self._asked_machine = False
        self._machines: str | None = None
        self._parse_cron = cache(schedule.parse_cron)  # of 10,000 reminders most share a few
        self._dates: dict[tuple[int, str], str | None] = {}  # by the node (one of the defaults is read often) and zone
        self._pauses: dict[tuple[int, str], int | None] = {}

    def plan(self, name: Node, entries: Entries, values: Values, when: str) -> Schedule | None:
        """Return the schedule that the key `when` gives within its limits; None once its fault is reported."""
        plans = {kind: self._base(kind, entries[kind][1], values, name) for kind in SCHEDULES if kind in entries}
        base = plans.get(when)
        if _LIMITS.isdisjoint(values):
            return base
        limits: dict[str, Any] = {key: values.get(key) for key in LIMITS}
        if base is None or any(limits[key] is None for key in LIMITS if key in values):
            return None
        if not any(limits.values()):
            return base
        zone = self._zone(values, name)
        start = self._date("start", limits["start"], zone)
        until = self._date("until", limits["until"], zone)
        if (start is None and limits["start"]) or (until is None and limits["until"]):
            return None
        place = next((entries[key][1] for key in ("times", "until", "only", "except", "start") if key in entries), name)
        return self._keys.value(  # type: ignore[no-any-return]
            place,
            "",
            lambda _: schedule.limit(
                base, zone, start=start, until=until, times=limits["times"],
                only=limits["only"] or (), excepted=limits["except"] or (),
            ),
        )  # fmt: skip

    def pause_until(self, name: Node, values: Values) -> int | None:
        """Return the instant before which the file lets a reminder not run; None without one, or once its fault is reported."""
        node = values.get("pause_until")
        if node is None:
            return None
        zone = self._zone(values, name)
        place = id(node), zone
        if place not in self._pauses:
            self._pauses[place] = self._keys.value(
                node, "pause_until", lambda node: schedule.parse_pause_until(node.text, zone)
            )
        return self._pauses[place]

    def _base(self, kind: str, node: Node, values: Values, name: Node) -> Schedule | None:
        value = values[kind]
        if value is None:
            return None
        if kind == "every":
            return self._every(value, values, name)
        zone = self._zone(values, name)
        if kind == "cron":
            spread = name.text if _HASHED.search(value) else ""
            return self._read(node, lambda _: self._parse_cron(value, zone, spread))
        if kind == "rrule":
            if "start" not in values:
                self._keys.faults.add(node, "rrule counts from a start; write start: as well, its first date and time")
                return None
            start = self._date("start", values["start"], zone)
            return None if start is None else self._read(node, lambda _: schedule.parse_rrule(value, start, zone))
        one_by_one = [self._read(item, lambda item: schedule.parse_at([scalar(_DATE, item)], zone)) for item in value]
        if None in one_by_one:
            return None
        return self._read(node, lambda _: schedule.parse_at([item.text for item in value], zone))

    def _every(self, period: Any, values: Values, name: Node) -> Schedule | None:
        if values.get("start") is None:
            return period.every  # type: ignore[no-any-return]
        zone = self._zone(values, name)
        start = self._date("start", values["start"], zone)
        return None if start is None else schedule.parse_every_from(period.every, period.in_days, start, zone)

    def _date(self, key: str, node: Node | None, zone: str) -> str | None:
        if node is None:
            return None
        place = id(node), zone
        if place not in self._dates:
            read = schedule.parse_start if key == "start" else schedule.parse_until
            self._dates[place] = self._keys.value(node, key, lambda node: read(node.text, zone))
        return self._dates[place]

    def _read(self, node: Node, reader: Callable[[Node], Schedule]) -> Schedule | None:
        return self._keys.value(node, "at", reader)  # type: ignore[no-any-return]

    def _zone(self, values: Values, name: Node) -> str:
        """The reminder's zone. A bad one has had its fault; the times may still have theirs."""
        return (values["timezone"] if "timezone" in values else self._zone_of_machine(name)) or "UTC"

    def _zone_of_machine(self, name: Node) -> str | None:
        if not self._asked_machine:
            self._asked_machine = True
            self._machines = self._keys.value(name, "", lambda _: self._machine_zone())
        return self._machines
