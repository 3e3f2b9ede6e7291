"""What runs the tick on this machine: systemd timers and crontab lines, and with which interpreter and paths.

Invariants: looking changes nothing; what one of the machine's programs doesn't tell is left out, not guessed.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
from dataclasses import dataclass

from bub_cron.errors import NoSuchManagerError
from bub_cron.paths import VARIABLES, Paths, find_paths
from bub_cron.programs import crontab, first_line, shown_properties
from bub_cron.trigger import units

_ENVIRONMENT_FILE = re.compile(r"^-?(.*?) \(ignore_errors=\w+\)$", re.MULTILINE)
_PATH = re.compile(r"path=(.*?) ;")
_SHOWN_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_CRON_FIELDS = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+")
_CRONS = frozenset({"cron", "crond", "fcron"})


@dataclass(slots=True)
class Trigger:
    """One thing that runs the tick."""

    what: str  # for a person: "your bub-cron.timer"
    manager: str  # user, system or crontab
    runs: bool  # it is switched on
    places: Paths
    python: str | None  # None where it runs a script that doesn't tell its interpreter
    off: str  # what to say where it is not switched on,
    mend: str  # and the command that switches it on
    account: str = ""  # who runs it, "" for this user
    failure: str = ""  # what its last tick said, if it failed

    def serves(self, paths: Paths) -> bool:
        """Tell whether it runs the tick for these very places."""
        theirs = self.places
        return (theirs.file, theirs.state, theirs.socket) == (paths.file, paths.state, paths.socket)


def find_triggers() -> list[Trigger]:
    """Return what runs the tick here, as far as this user can see."""
    found = [_of_systemd(manager) for manager in (units.USER, units.SYSTEM)]
    return [trigger for trigger in found if trigger is not None] + _of_crontab()


def _of_systemd(manager: str) -> Trigger | None:
    is_users = manager == units.USER
    timer = shown_properties(is_users, units.TIMER, "LoadState", "ActiveState")
    if timer.get("LoadState", "not-found") == "not-found":
        return None
    service = shown_properties(
        is_users,
        units.SERVICE,
        "LoadState",
        "ExecStart",
        "Environment",
        "EnvironmentFiles",
        "ActiveState",
        "StatusText",
        "User",
    )
    started = _PATH.search(service.get("ExecStart", ""))
    account = "" if is_users else service.get("User") or "root"
    option = "--user " if is_users else ""
    sudo = "" if is_users or os.geteuid() == 0 else "sudo "
    what = f"{'your' if is_users else 'the system'}{'' if is_users else chr(39) + 's'} {units.TIMER}"
    return Trigger(
        what=what,
        manager=manager,
        runs=timer.get("ActiveState") == "active",
        places=_places(
            {
                **_ours(_shown_words(service.get("Environment", ""))),
                **_of_environment_files(_ENVIRONMENT_FILE.findall(service.get("EnvironmentFiles", ""))),
            },
            account,
        ),
        python=_python(started[1]) if started else None,
        off=f"{what} is off ({timer.get('ActiveState') or timer['LoadState']})",
        mend=f"{sudo}systemctl {option}enable --now {units.TIMER}",
        account=account,
        failure=service.get("StatusText", "") if service.get("ActiveState") == "failed" else "",
    )


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
    # cron itself sets what stands in lines of its own, for the commands below them.
    around = _assigned(text)
    about = ("#", f"{units.TICK_PING}=")  # our mark, and the address of a ping
    lines = [line for entry in units.entries(text) for line in entry.text.splitlines() if not line.startswith(about)]
    return [_of_line(line, around) for line in [*lines, *units.foreign_ticks(text)]]


def _of_line(line: str, around: dict[str, str]) -> Trigger:
    command = _CRON_FIELDS.sub("", line, count=1)
    # cron takes the backslash from before a percent sign or a backslash; the shell does the rest.
    words = _words(re.sub(r"\\([%\\])", r"\1", command))
    programs = [python for word in words if word.startswith("/") and (python := _python(word)) is not None]
    return Trigger(
        what="your crontab",
        manager="crontab",
        runs=_cron_runs(),
        places=_places({**around, **_ours(words)}, ""),
        python=programs[0] if programs else None,
        off="your crontab has the tick, but no cron daemon is seen to run",
        mend="sudo systemctl enable --now cron    # or what starts cron on this machine",
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # quotes that don't close: no command line that we should understand
        return []


def _shown_words(text: str) -> list[str]:
    """Return the words that `systemctl show` lists: bare ones, and in double quotes those with a backslash before some."""
    return [re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in _SHOWN_WORD.findall(text)]


def _ours(words: list[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words if "=" in word)
    return {name: value for name, _, value in pairs if name in VARIABLES}


def _places(environment: dict[str, str], account: str) -> Paths:
    """Return where a tick with this environment looks, of this user or of the account that systemd runs it as."""
    home = os.path.expanduser("~")
    if account:
        try:
            home = pwd.getpwnam(account).pw_dir
        except KeyError:  # then systemd can't run it either, and says so
            home = "/"
    return find_paths({"BUB_HOME": os.path.join(home, ".bub"), **environment})


def _python(program: str) -> str | None:
    """Return the interpreter of a program: itself, or the one that a script of that name has in its first line."""
    if "python" in os.path.basename(program):
        return program
    if os.path.basename(program) != "bub-cron":
        return None
    try:
        with open(program, "rb") as file:
            first = os.fsdecode(file.readline(256)).strip()
    except OSError:
        return None
    return first[2:] if first.startswith("#!/") and "python" in os.path.basename(first) else None


def _cron_runs() -> bool:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                    if file.read().strip() in _CRONS:
                        return True
            except OSError:  # it has ended meanwhile, or may not be seen
                continue
    # systemd-cron has no daemon, but this.
    return first_line("systemctl", "is-active", "cron.target") == "active"
