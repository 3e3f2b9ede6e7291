"""The names of the reminders for a shell that completes them, at little cost.

Invariants: they are those of the files as they are on disk. What the ledger has in force is taken only where it was read
from the very same files; else the files are read.
"""

from __future__ import annotations

import contextlib

from bub_cron.errors import BubCronError
from bub_cron.paths import Paths
from bub_cron.records import files_read, names_in_force
from bub_cron.trigger.tick import signature


def names_for_shell(paths: Paths) -> list[str]:
    """Return the names of the reminders; of files with a fault those of the last good versions."""
    # A shell that completes has no place for the reason why something can't be read; any command tells it.
    with contextlib.suppress(BubCronError):
        read = files_read(paths)
        if read is not None and signature(paths.file, read.tz, read.zone_files) == read.signature:
            return names_in_force(paths)
    try:
        from bub_cron.reminders import load

        return [reminder.name for reminder in load(paths.file)]
    except BubCronError:
        with contextlib.suppress(BubCronError):
            return names_in_force(paths)
    return []
