"""The entries of a crontab that run the tick: their text, and where they stand. Pure: what is here runs no program.

Invariants: what cron and its shell read back is the path that went in, whatever it holds; no byte outside of our entries
changes.
"""

from __future__ import annotations

import os
import re
import shlex

from bub_cron.errors import UnusablePathError
from bub_cron.trigger.units import SIGNED, TICK_PING, TickPing, check_paths, serves, signed, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.paths import Paths

LONGEST_COMMAND = 998  # of Debian's cron, in bytes: it refuses a longer one
_RUNS_TICK = re.compile(r"^[^#\n]*\bbub[-_]cron\b.*\btick\b")


def crontab_entry(python: str, paths: Paths, ping: TickPing | None = None, name: str = "") -> str:
    """Return the lines of a crontab that run the tick each minute; with a name, beside those of another.

    Raises `UnusablePathError` for paths that a crontab can't hold.
    """
    check_paths(python, *values(paths).values())
    if "=" in python:
        raise UnusablePathError(f"{python}: env(1) takes a path with = for an assignment; install it elsewhere")
    words = tick_command(python, paths)
    if ping is not None:
        words = ["/bin/sh", "-c", f'"$@"; {ping.script("$?")}', ping.program, *words]
    command = shlex.join(words)
    # cron makes a newline of a percent sign, and takes the backslash from before a percent sign or a backslash.
    escaped = _escaped_for_cron(command)
    if len(os.fsencode(escaped)) > LONGEST_COMMAND:
        raise UnusablePathError(
            f"the paths are too long for a crontab, whose commands may have {LONGEST_COMMAND} bytes; shorten them, or use"
            " a systemd timer"
        )
    return signed(f"{f'{TICK_PING}={ping.address}\n' if ping is not None else ''}* * * * * {escaped}\n", name)


def tick_command(python: str, paths: Paths) -> list[str]:
    """Return the command that runs one tick with these paths, whatever the environment and the working directory."""
    assignments = [f"{name}={value}" for name, value in values(paths).items()]
    return ["/usr/bin/env", *assignments, python, "-P", "-m", "bub_cron", "tick"]


def _escaped_for_cron(command: str) -> str:
    return command.replace("\\", "\\\\").replace("%", "\\%")


def written(home: str) -> str:
    """Return a BUB_HOME as an entry holds it."""
    return serves(_escaped_for_cron(shlex.join([f"BUB_HOME={home}", "BUB_CRON_FILE="]))) or home


class Entry:
    """One entry of ours in a crontab: it stands in `lines[start:end]`, `text` is what is there, and `name` that of `--name`."""

    __slots__ = ("end", "name", "start", "text")

    def __init__(self, start: int, end: int, text: str, name: str) -> None:
        self.start = start
        self.end = end
        self.text = text
        self.name = name


def entries(crontab: str) -> list[Entry]:
    """Return our entries: a line with our mark, and the line after it if that runs a tick, with the address between them."""
    lines = _lines(crontab)
    found = []
    for at, line in enumerate(lines):
        if signature := SIGNED.fullmatch(line.rstrip("\n")):
            after = [line.lstrip("# ") for line in lines[at + 1 : at + 3]]
            has_address = int(bool(after) and after[0].startswith(f"{TICK_PING}="))
            runs_tick = any(map(_RUNS_TICK.match, after[has_address : has_address + 1]))
            end = at + 2 + has_address if runs_tick else at + 1
            found.append(Entry(at, end, "".join(lines[at:end]), signature[1] or ""))
    return found


def runs_tick(line: str) -> bool:
    """Tell whether a line of a crontab runs a tick."""
    return _RUNS_TICK.match(line) is not None


def foreign_ticks(crontab: str) -> list[str]:
    """Return the lines that run a tick and are not ours."""
    ours = {at for entry in entries(crontab) for at in range(entry.start, entry.end)}
    lines = enumerate(_lines(crontab))
    return [line.rstrip("\n") for at, line in lines if at not in ours and _RUNS_TICK.match(line)]


def with_entry(crontab: str, entry: str, name: str = "") -> str:
    """Return the crontab with `entry` in the place of the first of ours of that name, or at the end; others of it go."""
    there = [one for one in entries(crontab) if one.name == name]
    if there:
        lines = _lines(without(crontab, there[1:]))
        lines[there[0].start : there[0].end] = [entry]
        return "".join(lines)
    # The last line may lack its end; without it, it and our first would be one.
    return crontab + ("" if crontab.endswith("\n") or not crontab else "\n") + entry


def without(crontab: str, gone: list[Entry]) -> str:
    """Return the crontab without some of its entries."""
    left = {at for entry in gone for at in range(entry.start, entry.end)}
    return "".join(line for at, line in enumerate(_lines(crontab)) if at not in left)


def _lines(text: str) -> list[str]:
    """Return the lines with their ends, at newlines alone: to cron, other separators are characters like any."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
