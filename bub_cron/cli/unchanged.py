"""What the ledger has of reminders files that are unchanged since a tick read them: names, and next fire times.

Invariants: it is what the files say, as they are on disk, on this machine's zone data. Where that is not certain, the
files themselves count.
"""

from __future__ import annotations

import contextlib

from bub_cron.errors import BubCronError
from bub_cron.paths import Paths
from bub_cron.records import files_read, names_in_force, next_in_force
from bub_cron.trigger.tick import seen_tz, signature


def names_for_shell(paths: Paths) -> list[str]:
    """Return the names of the reminders; of files with a fault those of the last good versions."""
    # A shell that completes has no place for the reason why something can't be read; any command tells it.
    with contextlib.suppress(BubCronError):
        if _are_unchanged(paths, own_tz=False):
            return names_in_force(paths)
    try:
        from bub_cron.reminders import load

        return [reminder.name for reminder in load(paths.file)]
    except BubCronError:
        with contextlib.suppress(BubCronError):
            return names_in_force(paths)
    return []


def next_times(paths: Paths) -> dict[str, int]:
    """Return the next fire time of each enabled reminder that has one; {} where the files must be asked."""
    return next_in_force(paths) if _are_unchanged(paths, own_tz=True) else {}


def _are_unchanged(paths: Paths, *, own_tz: bool) -> bool:
    """Tell whether the files are those that the ledger has in force; with `own_tz`, also under this process's TZ."""
    read = files_read(paths)
    return read is not None and read.signature == signature(
        paths.file, seen_tz() if own_tz else read.tz, read.zone_files
    )
