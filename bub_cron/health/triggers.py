"""What runs the tick on this machine: systemd timers and crontab lines, and with which interpreter and paths.

Kept true here: looking changes nothing; what one of the machine's programs doesn't tell is left out, not guessed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from bub_cron.errors import NoSuchManagerError
from bub_cron.paths import VARIABLES, Paths, find_paths
from bub_cron.programs import crontab, decoded, output
from bub_cron.trigger import units

_TIMER = ("LoadState", "ActiveState", "UnitFileState")
_SERVICE = ("ExecStart", "Environment", "EnvironmentFiles", "ActiveState", "StatusText", "User")
_ENVIRONMENT_FILE = re.compile(r"^-?(.*?) \(ignore_errors=\w+\)$", re.MULTILINE)
_PATH = re.compile(r"path=(.*?) ;")
_CRON_FIELDS = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+")
_CRONS = frozenset({"cron", "crond", "cronie", "fcron", "busybox", "systemd-cron"})


@dataclass(slots=True)
class Trigger:
    """One thing that runs the tick."""

    what: str  # for a person: "your systemd's bub-cron.timer"
    manager: str  # user, system or crontab
    runs: bool  # it is switched on
    environment: dict[str, str]  # those of our variables that it sets
    python: str | None  # None where it runs a script whose interpreter it doesn't name
    failure: str = ""  # what its last tick that failed said
    mend: str = ""  # the command that switches it on

    def serves(self, paths: Paths) -> bool:
        """Tell whether it runs the tick for these very places."""
        theirs = find_paths({"HOME": os.path.expanduser("~"), **self.environment})
        return (theirs.file, theirs.state, theirs.socket) == (paths.file, paths.state, paths.socket)


def find_triggers() -> list[Trigger]:
    """Return what runs the tick here, as far as this user can see."""
    found = []
    for manager in (units.USER, units.SYSTEM):
        if (trigger := _of_systemd(manager)) is not None:
            found.append(trigger)
    return found + _of_crontab()


def _of_systemd(manager: str) -> Trigger | None:
    timer = _shown(manager, units.TIMER, _TIMER)
    if timer.get("LoadState") in (None, "", "not-found"):
        return None
    service = _shown(manager, units.SERVICE, _SERVICE)
    started = _PATH.search(service.get("ExecStart", ""))
    program = started[1] if started else ""
    option = "--user " if manager == units.USER else ""
    sudo = "" if manager == units.USER or os.geteuid() == 0 else "sudo "
    return Trigger(
        what=f"{'your' if manager == units.USER else 'the system'}{chr(39) + 's' if manager != units.USER else ''} {units.TIMER}",
        manager=manager,
        runs=timer.get("ActiveState") == "active",
        environment={
            **_ours(_words(service.get("Environment", ""))),
            **_of_environment_files(_ENVIRONMENT_FILE.findall(service.get("EnvironmentFiles", ""))),
        },
        python=program if "python" in os.path.basename(program) else None,
        failure=service.get("StatusText", "") if service.get("ActiveState") == "failed" else "",
        mend=f"{sudo}systemctl {option}enable --now {units.TIMER}",
    )


def _shown(manager: str, unit: str, properties: tuple[str, ...]) -> dict[str, str]:
    option = ("--user",) if manager == units.USER else ()
    done = output("systemctl", *option, "show", unit, f"--property={','.join(properties)}")
    shown: dict[str, str] = {}
    for line in decoded(done.stdout).splitlines():
        name, is_one, value = line.partition("=")
        if is_one:  # of a list, there is a line for each
            shown[name] = f"{shown[name]}\n{value}" if name in shown else value
    return shown


def _of_environment_files(files: list[str]) -> dict[str, str]:
    """Return what the files set of ours; the later ones win, and all of them over the unit's own lines."""
    found: dict[str, str] = {}
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found |= _assigned(file.read())
        except OSError:
            continue  # it isn't there, or not for this user to read
    return found


def _assigned(text: str) -> dict[str, str]:
    """Return what lines that are assignments set of ours, in a file of systemd's or a crontab."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs if name.strip() in VARIABLES}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _of_crontab() -> list[Trigger]:
    if shutil.which("crontab") is None:
        return []
    try:
        text = crontab()
    except NoSuchManagerError:
        return []
    lines = [line for entry in units.entries(text) for line in entry.text.splitlines()]
    ours = [line for line in lines if not line.startswith("#")]
    return [_of_line(line, _assigned(text)) for line in [*ours, *units.foreign_ticks(text)]]


def _of_line(line: str, assigned: dict[str, str]) -> Trigger:
    command = _CRON_FIELDS.sub("", line, count=1)
    # cron takes the backslash from before a percent sign; the shell does the rest.
    words = _words(command.replace("\\%", "%"))
    python = next((word for word in words if word.startswith("/") and "python" in os.path.basename(word)), None)
    return Trigger(
        what="your crontab",
        manager="crontab",
        runs=_cron_runs(),
        environment={**assigned, **_ours(words)},
        python=python,
        mend="sudo systemctl enable --now cron    # or what starts cron on this machine",
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # quotes that don't close: no command line that we should understand
        return []


def _ours(words: list[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words if "=" in word)
    return {name: value for name, _, value in pairs if name in VARIABLES}


def _cron_runs() -> bool:
    return any(name in _CRONS for _, name in processes("comm"))


def processes(what: str) -> list[tuple[int, str]]:
    """Return (process id, content of /proc/ID/`what`) of the processes that this user can look at."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/{what}", "rb") as file:
                    found.append((int(entry), file.read().decode("utf-8", "replace").rstrip("\n")))
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
    return found
