"""The directory of the stores, the stores themselves, and the room on their disk.

Invariants: looking changes nothing, and leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator

from bub_cron import records
from bub_cron.errors import BubCronError, DamagedStoreError
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.paths import Paths, why_unsafe
from bub_cron.trigger.remedies import command_line

_ROOM = 64 * 1024  # bytes that a store needs room for
_SCARCE = 20 * 1024 * 1024
# What a file system that knows no files without a name says.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


def why_refused(paths: Paths) -> str:
    """Return why every tick is refused here, in a sentence: others could replace the stores; "" if none is."""
    there = paths.state
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        if there != paths.state and os.stat(there).st_mode & stat.S_ISVTX:
            return ""  # in such a one, as /tmp is, the tick makes its own
        return why_unsafe(there) or ""
    except OSError as error:
        return f"{there}: {error.strerror}"


def store_findings(paths: Paths) -> Iterator[Finding]:
    """Look at the directory of the stores, and into both."""
    if why := why_refused(paths):
        what, _, remedy = why.partition("; run: ")
        yield Finding(
            "stores", BROKEN, f"every tick is refused: {what}", remedy or f"ls -ld {shlex.quote(paths.state)}"
        )
    for path in (paths.ledger, paths.inbox):
        finding = _store(path, paths)
        if not why or finding.state != OK:
            yield finding


def _store(path: str, paths: Paths) -> Finding:
    name, is_ledger = os.path.basename(path), path == paths.ledger
    try:
        size = os.path.getsize(path)
        records.check(path)
    except FileNotFoundError:
        return Finding("stores", OK, f"no {name} yet: {'a tick' if is_ledger else 'the gateway'} makes it")
    except DamagedStoreError as error:
        again = command_line(paths, "tick") if is_ledger else "restart the gateway"
        return Finding("stores", BROKEN, str(error), f"{again}    # puts it aside, and keeps what can be read of it")
    except (BubCronError, OSError) as error:
        return Finding(
            "stores", BROKEN, str(error), f"ls -l {shlex.quote(path)}    # this user has to be able to read it"
        )
    return Finding("stores", OK, f"{name}, {size / 1024:,.0f} KiB")


def disk_finding(paths: Paths) -> Finding | None:
    """Look whether the stores can be written; None while their directory is not there."""
    if not os.path.isdir(paths.state):
        return None
    where = shlex.quote(paths.state)
    try:
        room = os.statvfs(paths.state)
        free = room.f_bavail * room.f_frsize
        _write_nothing(paths.state)
    except OSError as error:
        text = f"nothing can be written in {paths.state}: {error.strerror}"
        remedies = {
            errno.EROFS: f"findmnt -T {where}    # mount it for writing",
            errno.EACCES: f"chmod u+rwx {where}",
            errno.EDQUOT: "quota    # make room, or ask for more",
        }
        return Finding("disk", BROKEN, text, remedies.get(error.errno or 0, f"df -h {where}    # make room"))
    text = f"{free / 1024**2:,.0f} MiB free for the stores"
    return (
        Finding("disk", OK, text)
        if free >= _SCARCE
        else Finding("disk", WARNING, text, f"df -h {where}    # make room")
    )


def _write_nothing(directory: str) -> None:
    """Write as much as a store needs, to a file without a name, which leaves nothing behind whatever happens."""
    try:
        probe = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        room = os.statvfs(directory)
        if error.errno not in _NO_TMPFILE:
            raise
        if room.f_bavail * room.f_frsize < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        return
    try:
        if os.write(probe, bytes(_ROOM)) < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(probe)
    finally:
        os.close(probe)
