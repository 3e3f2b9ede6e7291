"""reminders.yaml and its drop-ins -> `Reminder`; every fault with its line.

Invariants:
- A file is taken whole or not at all, and is only ever read.
- Whoever mends it sees all of its faults at once. Only a syntax error that leaves the meaning open ends the reading.
- Whatever the bytes, nothing but `FileFaultsError` comes out of `parse`.

What a tick doesn't need (the schema, the suspicions) is imported where it is used.
"""

from __future__ import annotations

from bub_cron.reminders.file import parse
from bub_cron.reminders.files import ReminderFile, load, read_files, repeated_names
from bub_cron.reminders.reminder import Notice, Reminder
from bub_cron.reminders.source import MAX_BYTES
from bub_cron.reminders.starter import STARTER

# fmt: off
__all__ = [
    "MAX_BYTES", "STARTER", "Notice", "Reminder", "ReminderFile", "json_schema", "load", "parse", "read_files",
    "repeated_names", "suspicions",
]
# fmt: on


def suspicions(reminders: list[Reminder], now: int) -> list[Notice]:
    """Return what is legal but may not be meant, sorted by line; `now` is seconds since the epoch.

    Reminders that are not enabled are left out.
    """
    from bub_cron.reminders import notices

    return notices.suspicions(reminders, now)


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of the file, from which a YAML language server completes and checks.

    It can't say everything that `parse` does: whether a schedule ever fires, a zone exists, a request fits its line.
    """
    from bub_cron.reminders import schema

    return schema.json_schema()
