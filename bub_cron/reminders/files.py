"""A reminders file and its drop-ins -> all of their reminders.

Invariants:
- Each file stands by itself: a fault of one hides nothing of another.
- A name that an earlier file has is a fault of the later one.
- Only where there is neither the file nor a drop-in is anything missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bub_cron import schedule
from bub_cron.errors import (
    BubCronError,
    Fault,
    FaultyFilesError,
    FileFaultsError,
    FileMissingError,
    FileUnreadableError,
)
from bub_cron.paths import drop_in_directory, drop_ins
from bub_cron.reminders.file import load_file
from bub_cron.reminders.reminder import Reminder


class ReminderFile(NamedTuple):
    """One file as it was read: its reminders, or, in `error`, why it has none.

    Where the drop-ins could not be listed, one of these stands for all of them; its `path` is their directory.
    """

    path: str
    reminders: list[Reminder]
    error: BubCronError | None


def load(path: str) -> list[Reminder]:
    """Read the reminders of a file and of its drop-ins, in the order of the files.

    Raises FileMissingError, FileUnreadableError, FileFaultsError, or FaultyFilesError if more than one file is at fault.
    """
    reminders: list[Reminder] = []
    errors: list[BubCronError] = []
    places: dict[str, str] = {}
    for file in read_files(path):
        error = file.error or repeated_names(file, places)
        if error is not None:
            errors.append(error)
            continue
        reminders += file.reminders
        places |= {reminder.name: f"{reminder.file}:{reminder.line}" for reminder in file.reminders}
    if errors:
        raise errors[0] if len(errors) == 1 else FaultyFilesError(errors)
    return reminders


def read_files(path: str, machine_zone: Callable[[], str] = schedule.machine_zone) -> list[ReminderFile]:
    """Read a file and its drop-ins, each by itself; FileMissingError if there is neither.

    `machine_zone` tells the zone of the reminders that name none.

    What is missing is left out, so the first one need not be the file itself. Names that are repeated from file to file
    are not looked for: see `repeated_names`.
    """
    files: list[ReminderFile] = []
    missing = None
    try:
        files.append(_read(path, machine_zone))
    except FileMissingError as error:
        missing = error
    try:
        others = drop_ins(path)
    except OSError as error:
        directory = drop_in_directory(path)
        unreadable = FileUnreadableError(f"{directory} can't be read: {error.strerror}", directory)
        return [*files, ReminderFile(directory, [], unreadable)]
    for drop_in in others:
        try:
            files.append(_read(drop_in, machine_zone))
        except FileMissingError:
            if drop_in in drop_ins(path):  # a link to nowhere; else it was removed just now
                files.append(ReminderFile(drop_in, [], FileUnreadableError(f"{drop_in} leads to nothing", drop_in)))
    if not files and missing is not None:
        raise missing
    return files


def _read(path: str, machine_zone: Callable[[], str]) -> ReminderFile:
    try:
        return ReminderFile(path, load_file(path, machine_zone), None)
    except (FileFaultsError, FileUnreadableError) as error:
        error.path = path
        return ReminderFile(path, [], error)


def repeated_names(file: ReminderFile, places: Mapping[str, str]) -> FileFaultsError | None:
    """Return the fault that a file has by names which an earlier one has already; None if it has no such name.

    `places` says where the names of the earlier files stand.
    """
    faults = [
        Fault(one.line, one.column, f"{one.name} stands in {places[one.name]} already; give one of them another name")
        for one in file.reminders
        if one.name in places
    ]
    return FileFaultsError(file.path, faults) if faults else None
