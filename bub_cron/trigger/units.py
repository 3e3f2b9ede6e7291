"""The text of the systemd units that run the tick, and how a text of ours is known. Pure: what is here touches no file.

Invariants:
- What systemd reads back from a unit is the path that went in, whatever it holds; a path that it can't hold is refused.
- Each text that is ours carries a checksum of itself, so that what someone changed by hand is told from what an older
  version, or other paths, had us write.
- The address of a tick's ping is in no command line, since cron logs these, and others may see them. It goes through the
  environment and a pipe. Who makes the POST is a process of its own: the tick loads nothing for it.

The files in `systemd/` are these units with `BY_HAND` for paths; a test holds them equal.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import NamedTuple

from bub_cron.errors import UnusablePathError
from bub_cron.paths import VARIABLES
from bub_cron.rare_fields import check_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bub_cron.paths import Paths

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER, SYSTEM = "user", "system"
SERVICE, TIMER = "bub-cron.service", "bub-cron.timer"
SETTINGS = ("TZ", "PYTHONTZPATH", "BUB_CRON_KEEP_DAYS", "BUB_CRON_KEEP_MIB", "BUB_CRON_TRUST_DIRS")
ABSENT, SAME, OURS, CHANGED = "absent", "same", "ours", "changed"
TICK_PING = "BUB_CRON_TICK_PING"
_ADDRESS = (
    r"https?://[A-Za-z0-9._~:/@+,;=%-]+"  # neither a shell, nor curl, nor cron, nor systemd sees more in it than text
)


class Names(NamedTuple):
    """The names of the units of one `install`: the tick's, and the templates of reminders with a timer of their own."""

    service: str
    timer: str
    fire_service: str
    fire_timer: str


def names(name: str = "") -> Names:
    """Return the names of the units of `install`, or of `install --name NAME`, which stand beside those."""
    base = f"bub-cron-{name}" if name else "bub-cron"
    return Names(f"{base}.service", f"{base}.timer", f"{base}@.service", f"{base}@.timer")


class TickPing(NamedTuple):
    """Who is told how each tick ended: the `address`, to which `/EXIT_STATUS` is put, and the `program` that makes the POST.

    That is curl, or a Python. Both read the address from standard input.
    """

    address: str
    program: str

    def script(self, status: str) -> str:
        """Return what a shell runs, with the program as its $0; `status` is a word for it, such as `$?`."""
        if os.path.basename(self.program) == "curl":
            return f'echo "url=${TICK_PING}/{status}" | "$0" -qgfs -m 10 -o /dev/null -d "" -K -'
        code = "import sys,urllib.request as u;u.urlopen(sys.stdin.readline().strip(),bytes(),10)"
        return f'echo "${TICK_PING}/{status}" | "$0" -P -c "{code}" 2>/dev/null'


def check_ping(text: str) -> str:
    """Return the address of a tick's ping, checked; ValueError says in a half sentence what is wrong."""
    address = check_address(text).rstrip("/")
    if not re.fullmatch(_ADDRESS, address):
        raise ValueError("may have letters, digits and . _ ~ : / @ + , ; = % - only: the exit status comes behind it")
    return address


def ping_of(text: str) -> str | None:
    """Return the address that a unit or an entry of ours pings; None if none."""
    found = re.search(rf"\b{TICK_PING}=({_ADDRESS})", text)
    return found and found[1].replace("%%", "%")


class Baked:
    """What a unit is told of this machine: `environment` and `command` as unit lines hold them, quoted already.

    `account`, `writable` (the directory of the stores) and `own_tmp` (whether it may do without the machine's /tmp) are
    for the system manager alone. `after` is what is run after the tick, "" for nothing.
    """

    __slots__ = ("account", "after", "command", "environment", "own_tmp", "writable")

    def __init__(
        self,
        environment: list[str],
        command: str,
        account: str = "",
        writable: str = "",
        own_tmp: bool = True,
        after: str = "",
    ) -> None:
        self.environment = environment
        self.command = command
        self.account = account
        self.writable = writable
        self.own_tmp = own_tmp
        self.after = after


# What stands in `systemd/`, for those who copy the files rather than run `bub-cron install`.
BY_HAND = {
    USER: Baked(["PATH=%h/.local/bin:/usr/local/bin:/usr/bin:/bin"], "/usr/bin/env bub-cron"),
    SYSTEM: Baked(
        ["PATH=/opt/bub/bin:/usr/local/bin:/usr/bin:/bin", "BUB_HOME=/var/lib/bub"],
        "/usr/bin/env bub-cron",
        account="bub",
        writable="/var/lib/bub/cron",
    ),
}

_TICK = """\
[Unit]
Description=Submit due Bub reminders
Documentation=https://bub.build
# Where both are to start, at boot, the gateway goes first. The tick doesn't need it to be there: what is due waits.
After=bub-gateway.service

[Service]
Type=oneshot
# A tick that fails says why in `systemctl status`, each time; its journal has it once an hour.
NotifyAccess=main
SyslogIdentifier=bub-cron
# systemd's own lines about a start and its end are of level info, three a minute: none. What a tick says, and failures, stay.
SyslogLevel=notice
LogLevelMax=notice
{where}ExecStart={command} tick
{after}# It talks to the local socket, and makes the pings of what it ended itself: for at most some seconds.
TimeoutStartSec=55
{hardening}"""

_TICK_TIMER = """\
[Unit]
Description=Submit due Bub reminders every minute
Documentation=https://bub.build

[Timer]
# In UTC: a calendar of the local zone stands still in the hour that is repeated when clocks go back.
OnCalendar=*:* UTC
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""

_FIRE = """\
[Unit]
Description=Fire the Bub reminder %i
Documentation=https://bub.build
After=bub-gateway.service

[Service]
Type=oneshot
SyslogIdentifier=bub-cron
{where}ExecStart={command} fire %i
# No TimeoutStartSec: it stays until the reminder has its final outcome, which the reminder's own timeout and attempts bound.
{hardening}"""

_FIRE_TIMER = """\
[Unit]
Description=Fire the Bub reminder %i from a timer of its own
Documentation=https://bub.build

[Timer]
# For NAME, with `enabled: false` in reminders.yaml so that the tick leaves it alone: `systemctl edit bub-cron@NAME.timer`
# and there, below [Timer], an empty OnCalendar= to drop this one and then what it is to be (OnBootSec=, OnUnitActiveSec=,
# ...); then `systemctl enable --now bub-cron@NAME.timer`. Nothing waits for an absent gateway here: fire fails with 69.
OnCalendar=*-*-* 09:00:00
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""

_DESCRIPTION = re.compile("^(Description=.*)", re.MULTILINE)

# What a user manager can do without privileges: all of it is seccomp.
_HARDENING = {
    USER: """\
UMask=0077
NoNewPrivileges=true
LockPersonality=true
MemoryDenyWriteExecute=true
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""
}
# The tick makes POSTs for reminders with a `ping` that it ends itself.
_PINGS = ("RestrictAddressFamilies=AF_UNIX\n", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n")
# No RemoveIPC=: it would take away what the gateway holds, which runs as the same user.
# No PrivateNetwork=: with Unix sockets alone it guards nothing more, and costs a network namespace a minute.
# ProtectHome= is no more than read-only, for the interpreter and the reminders may stand in a home.
_HARDENING[SYSTEM] = (
    _HARDENING[USER]
    + """\
CapabilityBoundingSet=
PrivateDevices=true
PrivateTmp=true
ProcSubset=pid
ProtectClock=true
ProtectControlGroups=true
ProtectHome=read-only
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
ProtectSystem=strict
"""
)


def baked(python: str, paths: Paths, account: str = "", ping: TickPing | None = None) -> Baked:
    """Return what a unit is told: the interpreter and all four paths in force, and for a system unit whose it is.

    Raises `UnusablePathError` for a path that a unit can't hold.
    """
    check_paths(python, *values(paths).values())
    if set(python) & set("\"'\\"):
        raise UnusablePathError(
            f"{python}: systemd runs no program whose path has quotes or backslashes; install it elsewhere"
        )
    needed = (python, PACKAGE, *values(paths).values())
    after = ""
    if ping is not None:
        # A signal's name, or nothing at all, is no exit status.
        script = f'test "$EXIT_CODE" = exited || EXIT_STATUS=fail; {ping.script("$EXIT_STATUS")}'
        words = f"/bin/sh -c '{script}' {_quoted(ping.program)}".replace("$", "$$")
        after = f"Environment={_quoted(f'{TICK_PING}={ping.address}')}\nExecStopPost=-{words}\n"
    return Baked(
        environment=[_quoted(f"{name}={value}") for name, value in values(paths).items()],
        # The colon: no variables are put into it, so that a dollar sign is one.
        command=f"{':' if '$' in python else ''}{_quoted(python)} -P -m bub_cron",
        account=account.replace("%", "%%"),
        writable=_quoted(paths.state),
        own_tmp=not any(_below(path, "/tmp", "/var/tmp") for path in needed),  # noqa: S108
        after=after,
    )


def unit_files(manager: str, told: Baked, name: str = "") -> dict[str, str]:
    """Return the units by name, for the `user` or the `system` manager."""
    service, timer, fire_service, fire_timer = names(name)
    where = f"User={told.account}\n" if manager == SYSTEM else ""
    where += "".join(f"Environment={assignment}\n" for assignment in told.environment)
    hardening = _HARDENING[manager] if told.own_tmp else _HARDENING[manager].replace("PrivateTmp=true\n", "")
    stores = f"# The stores, and nothing else.\nReadWritePaths={told.writable}\n" if manager == SYSTEM else ""
    texts = {
        service: _TICK.format(
            where=where, command=told.command, after=told.after, hardening=hardening.replace(*_PINGS) + stores
        ),
        timer: _TICK_TIMER,
        fire_service: _FIRE.format(where=where, command=told.command, hardening=hardening),
        fire_timer: _FIRE_TIMER.replace("bub-cron@", fire_timer.removesuffix(".timer")),
    }
    return {unit: _DESCRIPTION.sub(rf"\1 ({name})", text) for unit, text in texts.items()} if name else texts


def values(paths: Paths) -> dict[str, str]:
    """Return the environment that a tick is to have: the paths, and what else it goes by, where that is set here."""
    values = dict(zip(VARIABLES, (paths.home, paths.file, paths.state, paths.socket), strict=True))
    return values | {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}


def _below(path: str, *directories: str) -> bool:
    return any(path == directory or path.startswith(f"{directory}/") for directory in directories)


def check_paths(*paths: str) -> None:
    for path in paths:
        if not path.isprintable():
            raise UnusablePathError(
                f"{path!r}: a unit or a crontab can't hold a path with control characters, or bytes that are not UTF-8;"
                " move it to a plainer one"
            )


def _quoted(text: str) -> str:
    """Return text as one word of a unit's line: `%` begins a specifier there, and quotes and backslashes quote."""
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII) else f'"{escaped}"'


# --- What is ours, and what was changed

SIGNED = re.compile(r"# Written by bub-cron install(?: --name ([\w.-]+))?, sha256 ([0-9a-f]{16})\b.*")


def signed(text: str, name: str = "") -> str:
    """Return text below a line that names its checksum, and the name of an entry in a crontab that has one."""
    named = f" --name {name}" if name else ""
    return f"# Written by bub-cron install{named}, sha256 {_checksum(text)}: once you change it, it is yours.\n{text}"


def verdict(found: str | None, wanted: str) -> str:
    """Return how what was found stands to what is wanted (signed): absent, same, ours (to be replaced) or changed."""
    if found is None:
        return ABSENT
    return SAME if found == wanted else OURS if is_as_written(found) else CHANGED


def is_as_written(text: str) -> bool:
    """Tell whether some version of `bub-cron install` wrote just this."""
    first, _, rest = text.partition("\n")
    found = SIGNED.fullmatch(first)
    return found is not None and found[2] == _checksum(rest)


def was_written_as(found: str, wanted: str) -> bool:
    """Tell whether what was changed by hand was once just this (signed)."""
    return SIGNED.match(found) is not None and found.partition("\n")[0] == wanted.partition("\n")[0]


_SERVES = re.compile(r"\bBUB_HOME=(.*?)(?='? '?BUB_CRON_FILE=|\"?$)", re.MULTILINE)


def serves(text: str) -> str | None:
    """Return the BUB_HOME that a unit or an entry of ours is for, as it is written there; None if it names none."""
    found = _SERVES.search(text)
    return found[1] if found else None


def written(home: str) -> str:
    """Return a BUB_HOME as a unit holds it."""
    return serves(f"Environment={_quoted(f'BUB_HOME={home}')}") or home


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
