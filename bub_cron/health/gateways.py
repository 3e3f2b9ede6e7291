"""The `bub gateway` processes of this machine, and the units that run one: why none listens where the tick looks.

Invariants: looking changes nothing; no program that another user named is run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from dataclasses import dataclass

from bub_cron.errors import user_name
from bub_cron.health.finding import BROKEN, WARNING
from bub_cron.paths import Paths, find_paths
from bub_cron.programs import output, shown_properties
from bub_cron.trigger.machine import is_same
from bub_cron.trigger.remedies import command_line, gateway_line, installed_from
from bub_cron.trigger.units import SYSTEM, USER

UNIT = "bub-gateway.service"  # what `bub gateway --install` writes
_PLUGIN = (
    "import sys; from importlib.metadata import entry_points as e;"
    " sys.exit(3 if not any(p.value.startswith('bub_cron.') for p in e(group='bub')) else 0)"
)
_QUOTED = re.compile(r'^WorkingDirectory="', re.MULTILINE)


@dataclass(slots=True)
class Cause:
    """One reason why no gateway listens, and the remedy."""

    text: str
    remedy: str
    state: str = BROKEN


def unit_trouble(*, is_absent: bool) -> Cause | None:
    """Return what is wrong with the unit of the gateway; of one that systemd takes only while no gateway listens."""
    for manager in (USER, SYSTEM):
        option = "--user " if manager == USER else ""
        found = shown_properties(manager == USER, UNIT, "LoadState", "ActiveState", "FragmentPath")
        load, active = found.get("LoadState"), found.get("ActiveState")
        if load == "bad-setting":
            return _refused(found.get("FragmentPath", ""), option)
        if load == "loaded" and is_absent and active == "failed":
            return Cause(f"{UNIT} has failed", f"systemctl {option}status {UNIT}    # says why")
        if load == "loaded" and is_absent and active not in ("active", "activating", "reloading"):
            return Cause(f"{UNIT} is not running", f"systemctl {option}enable --now {UNIT}")
    return None


def _refused(path: str, option: str) -> Cause:
    text = f"systemd refuses {UNIT}"
    if _QUOTED.search(_text_of(path)):
        text += ": Bub 0.5.1 puts quotes around WorkingDirectory=, which systemd takes for a part of the path"
        repair = f"sed -i '/^WorkingDirectory=/s/\"//g' {shlex.quote(path)}"
        return Cause(text, f"{repair}; systemctl {option}daemon-reload; systemctl {option}restart {UNIT}")
    return Cause(text, f"systemctl {option}status {UNIT}    # says which setting")


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # then `systemctl status` has to do
        return ""


# --- Processes


def why_absent(paths: Paths) -> list[Cause]:
    """Return, for each `bub gateway` of this user or of the owner of these places, why it does not listen here."""
    owners = {os.geteuid()}
    with contextlib.suppress(OSError):  # there is no such home yet
        owners.add(os.stat(paths.home).st_uid)
    return [_why(process, words, paths) for process, words in _gateways() if _owner(process) in owners]


def _gateways() -> list[tuple[int, list[str]]]:
    """Return (process id, its command line) of those that run `bub gateway`, as a script or by `python -m bub`."""
    found = []
    for entry in os.listdir("/proc"):
        words = _content(entry, "cmdline").split("\0") if entry.isdigit() else []
        place = 2 if words[1:2] == ["-m"] else 1
        if (
            "python" in os.path.basename(words[0] if words else "")
            and os.path.basename("".join(words[place : place + 1])) == "bub"
            and "gateway" in words[place + 1 :]
        ):
            found.append((int(entry), words))
    return found


def _why(process: int, words: list[str], paths: Paths) -> Cause:
    what = f"process {process} is a `bub gateway` that does not listen here"
    entries = _content(process, "environ").split("\0")
    environment = dict(entry.partition("=")[::2] for entry in entries if "=" in entry)
    if not environment or _owner(process) != os.geteuid():
        owner = _owner(process)
        if owner is None:
            return Cause(f"{what}; it has just ended", gateway_line(paths))
        return Cause(f"{what}; it is {user_name(owner)}'s", command_line(paths, "doctor", uid=owner))
    theirs = find_paths({"BUB_HOME": os.path.join(environment.get("HOME", ""), ".bub"), **environment})
    if not is_same(theirs.socket, paths.socket):
        text = f"{what}, but at {theirs.socket}: it has another BUB_HOME, or BUB_CRON_SOCKET"
        return Cause(
            text, f"{command_line(theirs, 'doctor')}    # to start one for these places: {gateway_line(paths)}", WARNING
        )
    python = words[0] if os.path.isabs(words[0]) else shutil.which(words[0], path=environment.get("PATH")) or words[0]
    if _lacks_plugin(python, environment):
        text = f"{what}: its Python, {python}, has no bub-cron"
        return Cause(
            text, f"{shlex.quote(python)} -m pip install {shlex.quote(installed_from())}    # then restart the gateway"
        )
    if "!cron" in environment.get("BUB_ENABLED_CHANNELS", "").replace(" ", "").split(","):
        return Cause(f"{what}: its BUB_ENABLED_CHANNELS has !cron", "take !cron out of it, and restart the gateway")
    text = f"{what}; it may still be starting, or its log says why, at cron.off or cron.waiting"
    return Cause(text, "journalctl --user -u bub-gateway    # or where its log is")


def _content(process: int | str, what: str) -> str:
    try:
        with open(f"/proc/{process}/{what}", "rb") as file:
            return os.fsdecode(file.read())
    except OSError:  # another user's, or gone
        return ""


def _owner(process: int) -> int | None:
    try:
        return os.stat(f"/proc/{process}").st_uid
    except OSError:  # gone
        return None


def _lacks_plugin(python: str, environment: dict[str, str]) -> bool:
    """Ask the gateway's interpreter; one that can't be asked is not said to lack it."""
    path = environment.get("PYTHONPATH", "")
    return output("env", f"PYTHONPATH={path}", python, "-B", "-c", _PLUGIN).returncode == 3
