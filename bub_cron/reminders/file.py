"""One file, or its bytes -> its reminders, or all of its faults. `files.py` reads all files of a place.

Invariants:
- Opening what is no regular file neither blocks nor reads without end.
- A file that others may write is refused.
- What changed while it was read is read again, so that half of a file that is just being written counts for nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from bub_cron import schedule
from bub_cron.errors import FileFaultsError, FileMissingError, FileUnreadableError, user_name
from bub_cron.paths import others_write
from bub_cron.reminders.entries import Judge
from bub_cron.reminders.faults import EnoughError, Faults
from bub_cron.reminders.reminder import Reminder
from bub_cron.reminders.source import INVISIBLE, MAX_BYTES, decode, read

_READS = 5  # of a file that changes all the while


def load_file(path: str, machine_zone: Callable[[], str] = schedule.machine_zone) -> list[Reminder]:
    """Read the reminders of one file, in its order; `machine_zone` tells the zone of those that name none.

    Raises FileMissingError, FileUnreadableError (also for what is no regular file, or never holds still) or
    FileFaultsError.
    """
    for _ in range(_READS):
        source, before = read_source(path)
        reminders, faults = _parse_or_faults(source, path, machine_zone)
        if seen(path) == before:
            if faults is not None:
                raise faults
            return reminders
    raise FileUnreadableError(f"{path} is being written: it changed each time that it was read", path)


def read_source(path: str) -> tuple[bytes, tuple[int, ...]]:
    """Return a file's bytes, and what was `seen` of it before they were read.

    Raises FileMissingError or FileUnreadableError.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO that nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise FileUnreadableError(f"{path} is not a regular file", path)
            _refuse_what_others_write(path, file.fileno(), found)
            return file.read(MAX_BYTES + 1), _identity(found)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissingError(f"{path} does not exist; `bub-cron init` writes one to start from") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileUnreadableError(f"{path} can't be read: {reason}", path) from error


def _refuse_what_others_write(path: str, descriptor: int, found: os.stat_result) -> None:
    """Refuse a file into which others than its user and root could write: it speaks in chats, and may run commands.

    Root reads what belongs to the owner of its directory, too: there nobody else could have put it.
    """
    if found.st_uid not in {0, os.geteuid()}:
        directory = os.stat(os.path.dirname(os.path.realpath(path)))
        given = directory.st_uid == found.st_uid and not others_write(
            directory, os.path.dirname(os.path.realpath(path))
        )
        if os.geteuid() != 0 or not given:
            right = f"chown it to the user who runs the tick ({user_name(os.geteuid())}), or to root"
            raise FileUnreadableError(f"{path} belongs to {user_name(found.st_uid)}, so it is ignored: {right}", path)
    if others_write(found, descriptor):
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
        raise FileUnreadableError(
            f"{path} may be written by others ({mode}), so it is ignored: chmod go-w {path}", path
        )


def _parse_or_faults(
    source: bytes, path: str, machine_zone: Callable[[], str]
) -> tuple[list[Reminder], FileFaultsError | None]:
    try:
        return parse(source, path, machine_zone=machine_zone), None
    except FileFaultsError as error:
        return [], error


def seen(path: str) -> tuple[int, ...] | None:
    """Return what tells one version of a file from the next; None if it can't be looked at."""
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def parse(source: bytes, path: str, *, machine_zone: Callable[[], str] = schedule.machine_zone) -> list[Reminder]:
    """Return the reminders in the bytes of a file, in its order; raise FileFaultsError with all of its faults.

    `path` is for the faults' text and each reminder's `file`, and what a calendar reads stands beside it. `machine_zone` is
    asked at most once, and only if a reminder needs it.
    """
    faults = Faults()
    reminders: list[Reminder] = []
    text = ""
    try:
        text = decode(source, faults)
        if not faults.found:
            root, is_cut = read(text, faults)
            judge = Judge(faults, machine_zone, is_cut, os.path.dirname(path))
            reminders = [one._replace(file=path) for one in judge.file(root)]
    except EnoughError:
        pass  # the last fault says so
    if faults.found:
        # What can't be printed must not reach a terminal; one character for one, so that columns stay true.
        raise FileFaultsError(path, faults.found, INVISIBLE.sub("\ufffd", text))
    return reminders
