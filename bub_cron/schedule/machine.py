"""The machine's own zone.

Invariants: UTC is never assumed in silence, and what names no known zone is a fault, not passed over.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from bub_cron.errors import ScheduleError
from bub_cron.schedule.zones import require_zone


def machine_zone(environ: Mapping[str, str] = os.environ, root: str = "/") -> str:
    """Find the machine's own zone: `TZ`, else where /etc/localtime points to, else the line in /etc/timezone.

    An empty `TZ` counts as none. `root` is the directory that stands for `/`. Raises ScheduleError if nothing says
    which zone it is, or if what says it names no known zone.
    """
    if not hasattr(environ, "get"):
        raise ScheduleError(f"an environment is a mapping, not a value of type {type(environ).__name__}")
    for source, name in _sources(environ, root):
        if name:
            try:
                return require_zone(name)
            except ScheduleError as fault:
                raise ScheduleError(f"the machine's zone, as {source} says: {fault}; or set `timezone:`") from fault
    raise ScheduleError("the machine's time zone can't be found; set `timezone:` to a name such as Europe/Berlin")


def _sources(environ: Mapping[str, str], root: str) -> Iterator[tuple[str, str]]:
    """Yield who says it, and the zone's name or ""."""
    said = str(environ.get("TZ") or "").strip().removeprefix(":")
    if said != "/etc/localtime":  # some set this only to spare the C library a look at the file
        yield "TZ", _below_zoneinfo(said) or said
    with suppress(OSError, ValueError):  # ValueError: NUL in the path
        yield "/etc/localtime", _below_zoneinfo(os.readlink(f"{root}/etc/localtime"))
    with suppress(OSError, ValueError), open(f"{root}/etc/timezone", "rb") as file:
        yield "/etc/timezone", file.read(1000).decode("utf-8", "replace").strip().partition("\n")[0]


def _below_zoneinfo(path: str) -> str:
    """The zone's name in a path below a zone database; "" if it is none."""
    _, found, name = f"/{path}".rpartition("/zoneinfo/")
    return name.removeprefix("posix/") if found else ""
