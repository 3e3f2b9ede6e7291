"""Fire times -> an iCalendar file (RFC 5545). Pure: no clock is read.

Invariants: a fire time has the same UID each time, so a calendar that takes the file again changes what it has and doubles
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from icalendar import Calendar, Event


class Entry(NamedTuple):
    """One fire time as a calendar shows it; `revised` is the instant at which what it says was last changed."""

    uid: str
    instant: int
    revised: int
    summary: str
    description: str


def write(entries: Iterable[Entry], name: str, product: str) -> bytes:
    """Return the entries as an iCalendar file: each a moment that takes no time of its day."""
    calendar = Calendar()
    calendar.add("prodid", f"-//bub-cron//{product}//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", name)
    for entry in entries:
        event = Event()
        event.add("uid", entry.uid)
        event.add("dtstamp", datetime.fromtimestamp(entry.revised, UTC))
        event.add("dtstart", datetime.fromtimestamp(entry.instant, UTC))
        event.add("summary", entry.summary)
        event.add("description", entry.description)
        event.add("transp", "TRANSPARENT")  # nobody is busy for it
        calendar.add_component(event)
    written: bytes = calendar.to_ical()
    return written
