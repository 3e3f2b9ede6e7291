"""Whether this process could write a file, and if not, why: one sentence for a person.

Invariants: looking changes nothing. A file is written whole, beside its place, and renamed; so its directory decides, and
one that is missing is made. A file that belongs to somebody else is never written.
"""

from __future__ import annotations

import os
import stat

from bub_cron.errors import user_name


def why_not_writable(path: str) -> str:
    """Return why the file at an absolute path can't be written, in one sentence; "" if it can."""
    directory = os.path.dirname(path)
    try:
        return _of_file(path) or _of_directory(directory)
    except NotADirectoryError:
        return f"{directory} is not a directory"
    except PermissionError:
        return f"{user_name(os.geteuid())} may not look into {directory}"
    except OSError as error:
        return f"{path} can't be looked at: {error.strerror}"


def _of_file(path: str) -> str:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file"
    if os.geteuid() not in (0, found.st_uid):
        return f"{path} belongs to {user_name(found.st_uid)}, and this is {user_name(os.geteuid())}"
    return ""


def _of_directory(directory: str) -> str:
    there = directory
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    why = _closed(there)
    return f"{directory} is not there and can't be made: {why}" if why and there != directory else why


def _closed(directory: str) -> str:
    found = os.stat(directory)
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is not a directory"
    if os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        return ""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return f"{directory} is on a read-only file system"
    if found.st_uid != os.geteuid():
        return f"{directory} belongs to {user_name(found.st_uid)}, and {user_name(os.geteuid())} may not write there"
    return f"{directory} may not be written by its owner (mode {stat.S_IMODE(found.st_mode):04o})"
