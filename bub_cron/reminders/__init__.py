"""reminders.yaml and its drop-ins -> `Reminder`; every fault with its line.

Invariants:
- A file is taken whole or not at all, and is only ever read.
- Whoever fixes it sees all of its faults at once. Only a syntax error that leaves the meaning open ends the reading.
- Whatever the bytes, nothing but `FileFaultsError` comes out of `parse`.

yaml, and what a tick doesn't need (the schema, the suspicions), are imported where they are used: a shell that completes a
name needs none of it.
"""

from __future__ import annotations

from bub_cron.reminders.reminder import Notice, Reminder
from bub_cron.reminders.starter import STARTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.reminders.file import parse
    from bub_cron.reminders.files import ReminderFile, read_files, repeated_names
    from bub_cron.reminders.source import MAX_BYTES

# fmt: off
__all__ = [
    "MAX_BYTES", "STARTER", "Notice", "Reminder", "ReminderFile", "json_schema", "load", "parse", "read_files",
    "repeated_names", "suspicions",
]
# fmt: on
_LATER = {
    "MAX_BYTES": "source",
    "ReminderFile": "files",
    "parse": "file",
    "read_files": "files",
    "repeated_names": "files",
}  # fmt: skip

if not TYPE_CHECKING:  # or mypy would take any name for one of ours

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def load(path: str) -> list[Reminder]:
    """Read the reminders of a file and of its drop-ins, in the order of the files.

    Raises FileMissingError, FileUnreadableError, FileFaultsError, or FaultyFilesError if more than one file is at fault.
    """
    from bub_cron.reminders import files

    return files.load(path)


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
