"""Who runs the tick on this machine: the one model that install, uninstall and doctor go by.

A tick is run by a timer of this user's systemd or of the system's, or by a line of a crontab or of /etc/cron.d; each with
an interpreter, paths and a zone of its own.

Invariants: looking changes nothing; what one of the machine's programs doesn't tell is left out, not guessed; two paths are
the same if they lead to the same place.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from bub_cron.errors import NoSuchManagerError
from bub_cron.paths import VARIABLES, Paths, find_paths
from bub_cron.programs import crontab, first_line, shown_properties
from bub_cron.trigger import crontabs, units
from bub_cron.trigger.units import SYSTEM, USER

CRONTAB, CRON_D = "crontab", "cron.d"
SYSTEM_UNITS = "/etc/systemd/system"
BOOTED = "/run/systemd/system"  # there is a directory where systemd is process 1: sd_booted(3)
SYSTEM_TABS = ("/etc/crontab", "/etc/cron.d/*")  # their lines name a user before the command
FLAGS = ("file", "state", "socket")
_READ = (*VARIABLES, "TZ", units.TICK_PING)
_MANAGER_RUNS = {"initializing", "starting", "running", "degraded", "maintenance", "stopping"}
_ENVIRONMENT_FILE = re.compile(r"^-?(.*?) \(ignore_errors=\w+\)$", re.MULTILINE)
_STARTED = re.compile(r"path=(.*?) ;(?: argv\[\]=(.*?) ;)?")
_SHOWN_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_SHELL_PART = re.compile(r"'[^']*'|\\.|\$(?:(\w+)|\{(\w+)\})")
_TAB_ASSIGNMENT = re.compile(r"""\s*(["']?)([A-Za-z_]\w*)\1\s*=\s*(.*)""")
_CRON_FIELDS = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+")
_CRONS = frozenset({"cron", "crond", "fcron"})


@dataclass(slots=True)
class Trigger:
    """One thing that runs the tick."""

    what: str  # for a person: "your bub-cron.timer"
    manager: str  # USER, SYSTEM, CRONTAB or CRON_D
    is_active: bool
    places: Paths
    python: str | None  # None where it runs a script that doesn't tell its interpreter
    why_inactive: str  # what to say where it is not active,
    remedy: str  # and what activates it
    account: str = ""  # who runs it, "" for this user
    name: str = ""  # that of `install --name`
    is_ours: bool = True  # `install` made it
    failure: str = ""  # what its last tick said, if it failed
    environment: dict[str, str] = field(
        default_factory=dict
    )  # what it sets of what a tick reads: TZ, the address of a ping

    def serves(self, paths: Paths) -> bool:
        """Tell whether it runs the tick for these very places."""
        return all(is_same(getattr(self.places, name), getattr(paths, name)) for name in FLAGS)


def is_same(path: str, other: str) -> bool:
    """Tell whether two paths lead to the same place."""
    return path == other or os.path.realpath(path) == os.path.realpath(other)


def find_triggers() -> list[Trigger]:
    """Return what runs the tick here, as far as this user can see."""
    found = [_of_timer(manager, timer) for manager in (USER, SYSTEM) for timer in timers(manager)]
    return [*filter(None, found), *_of_crontab(), *_of_system_tabs()]


# --- The managers


def unit_directory(manager: str) -> str:
    """Return where the units of a manager go."""
    if manager == SYSTEM:
        return SYSTEM_UNITS
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # systemd, too, takes no other
        config = os.path.expanduser("~/.config")
    return os.path.join(config, "systemd", "user")


def timers(manager: str) -> list[str]:
    """Return the names of the timers that may be of `install`: the usual one, and those with a name."""
    named = glob.glob(os.path.join(glob.escape(unit_directory(manager)), "bub-cron-*.timer"))
    return [units.TIMER, *sorted(map(os.path.basename, named))]


def systemctl(manager: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that asks or tells a manager something."""
    return ("systemctl", *(("--user",) if manager == USER else ()), *arguments)


def user_manager_runs() -> bool:
    """Tell whether this user's own systemd answers."""
    return first_line("systemctl", "--user", "is-system-running") in _MANAGER_RUNS


def lingers() -> bool:
    """Tell whether this user's own systemd runs without a login."""
    name = _own_name() or str(os.geteuid())
    return first_line("loginctl", "show-user", name, "--property=Linger", "--value") == "yes"


def cron_runs() -> bool:
    """Tell whether a cron daemon is seen to run."""
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


def start_of_cron() -> str:
    """Return what starts a cron daemon here."""
    return "sudo systemctl enable --now cron" if os.path.isdir(BOOTED) else "sudo service cron start"


# --- Units


def _of_timer(manager: str, timer: str) -> Trigger | None:
    is_users = manager == USER
    shown = shown_properties(is_users, timer, "LoadState", "ActiveState")
    if shown.get("LoadState", "not-found") == "not-found":
        return None
    wanted = ("LoadState", "ExecStart", "Environment", "EnvironmentFiles", "ActiveState", "StatusText", "User")
    service = shown_properties(is_users, timer.replace(".timer", ".service"), *wanted)
    account = "" if is_users else service.get("User") or "root"
    environment = _read(_shown_words(service.get("Environment", "")))
    environment |= _of_environment_files(_ENVIRONMENT_FILE.findall(service.get("EnvironmentFiles", "")))
    started = _STARTED.search(service.get("ExecStart", ""))
    words = _shown_words((started and started[2]) or "")
    if timer != units.TIMER and "tick" not in words:
        return None  # it is for something else
    what = f"your {timer}" if is_users else f"the system's {timer}"
    sudo = "" if is_users or os.geteuid() == 0 else "sudo "
    return Trigger(
        what=what,
        manager=manager,
        is_active=shown.get("ActiveState") == "active",
        places=_places(environment, words, account, "~" if is_users else "/"),
        python=_python(started[1]) if started else None,
        why_inactive=f"{what} is off ({shown.get('ActiveState') or shown['LoadState']})",
        remedy=f"{sudo}systemctl {'--user ' if is_users else ''}enable --now {timer}",
        account=account,
        name=timer.removeprefix("bub-cron").removesuffix(".timer")[1:],
        failure=service.get("StatusText", "") if service.get("ActiveState") == "failed" else "",
        environment=environment,
    )


def _of_environment_files(files: list[str]) -> dict[str, str]:
    """Return what the files set of ours; the later ones win, and all of them over the unit's own lines."""
    found: dict[str, str] = {}
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                pairs = (line.partition("=") for line in file.read().splitlines() if "=" in line)
        except OSError:
            continue  # it isn't there, or not for this user to read
        found |= {name.strip(): _unquoted(value.strip()) for name, _, value in pairs if name.strip() in _READ}
    return found


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _shown_words(text: str) -> list[str]:
    """Return the words that `systemctl show` lists: bare ones, and in double quotes those with a backslash before some."""
    return [re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in _SHOWN_WORD.findall(text)]


# --- Crontabs


def _of_crontab() -> list[Trigger]:
    if shutil.which("crontab") is None:
        return []
    try:
        return list(_of_tab(crontab(), "your crontab", CRONTAB))
    except NoSuchManagerError:
        return []


def _of_system_tabs() -> list[Trigger]:
    found: list[Trigger] = []
    for path in sorted(path for pattern in SYSTEM_TABS for path in glob.glob(pattern)):
        if "." in os.path.basename(path):
            continue  # cron leaves these out
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                found += _of_tab(file.read(), path, CRON_D)
        except OSError:
            continue  # not for this user to read
    return found


def _of_tab(text: str, what: str, manager: str) -> Iterator[Trigger]:
    ours = {number: entry.name for entry in crontabs.entries(text) for number in range(entry.start, entry.end)}
    around: dict[str, str] = {}  # cron itself sets what stands in lines of its own, for the commands below them
    for number, line in enumerate(text.split("\n")):
        # Of a comment we understand what was an entry of ours.
        bare = line.lstrip("# ") if number in ours else line
        if crontabs.runs_tick(bare):
            found = _of_line(bare, around, what, manager, is_comment=bare != line)
            found.name, found.is_ours = ours.get(number, ""), number in ours
            yield found
        elif assigned := _TAB_ASSIGNMENT.fullmatch(line):
            around[assigned[2]] = _unquoted(assigned[3].strip())


def _of_line(line: str, around: dict[str, str], what: str, manager: str, *, is_comment: bool) -> Trigger:
    command, account = _CRON_FIELDS.sub("", line, count=1), ""
    if manager == CRON_D:
        account, _, command = command.partition(" ")
        if account == _own_name():
            account = ""
    # cron takes the backslash from before a percent sign or a backslash; the shell does the rest.
    command = re.sub(r"\\([%\\])", r"\1", command)
    words = _words(_expanded(command, {"HOME": _home(account), **around}))
    programs = [python for word in words if word.startswith("/") and (python := _python(word)) is not None]
    environment = {name: value for name, value in around.items() if name in _READ} | _read(words)
    why, remedy = f"{what} has the tick, but no cron daemon is seen to run", f"{start_of_cron()}    # or what starts it"
    if is_comment:
        editor = "crontab -e" if manager == CRONTAB else f"sudoedit {shlex.quote(what)}"
        why = f"the entry that `install` made in {what} is commented out"
        remedy = f"{editor}    # and take away the # before that line"
    return Trigger(
        what=what,
        manager=manager,
        is_active=not is_comment and cron_runs(),
        places=_places(environment, words, account),
        python=programs[0] if programs else None,
        why_inactive=why,
        remedy=remedy,
        account=account,
        environment=environment,
    )


def _expanded(command: str, variables: dict[str, str]) -> str:
    """Put in the variables that a shell would, as far as they are known here."""
    return _SHELL_PART.sub(lambda part: variables.get(part[1] or part[2] or "", part[0]), command)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # quotes that don't close: no command line that we should understand
        return []


# --- What a tick goes by


def _read(words: list[str]) -> dict[str, str]:
    """Return the assignments among words, of what a tick reads."""
    pairs = (word.partition("=") for word in words if "=" in word)
    return {name: value for name, _, value in pairs if name in _READ}


def _places(environment: dict[str, str], words: list[str], account: str, start: str = "~") -> Paths:
    """Return where a tick of an account ("" for this user's) with this environment and command line looks.

    Relative paths begin at `start`.
    """
    home = _home(account)

    def absolute(path: str) -> str:
        path = home + path[1:] if path == "~" or path.startswith("~/") else path
        return os.path.join(home if start == "~" else start, path)

    given = {name: absolute(environment[name]) for name in VARIABLES if environment.get(name)}
    flags = {name: absolute(value) for name in FLAGS if (value := _flag(words, name))}
    return find_paths({"BUB_HOME": os.path.join(home, ".bub"), **given}, **flags)


def _flag(words: list[str], name: str) -> str | None:
    """Return the value of an option in a command line, `--state X` or `--state=X`; the last one counts."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == f"--{name}":
            found = following
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def _home(account: str) -> str:
    if not account:
        return os.path.expanduser("~")
    try:
        return pwd.getpwnam(account).pw_dir
    except KeyError:  # then neither systemd nor cron can run it, and says so
        return "/"


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's
        return ""


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
