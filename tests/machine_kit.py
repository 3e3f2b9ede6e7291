"""A machine inside the machine: namespaces of its own, with users, homes and, if asked for, a systemd as process 1.

Invariants: whatever systemd, cron or a user writes lands in file systems of the namespace's own (/tmp, /run, /home,
/root, /srv, /etc/systemd, the users, the timers' stamps, the crontabs, the journal), and is gone with it; nothing of the
machine's own setup is started. A systemd without a /tmp of its own would empty the machine's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from demo import expose_plugin
from gateway_kit import PATIENCE, SCRIPTS, until

ROOT = Path(__file__).parent.parent
USERS = {"alice": 61001, "bub": 61002}
_OWN = (
    *("/tmp", "/var/tmp", "/run", "/home", "/root", "/srv"),  # noqa: S108
    *("/etc/systemd/system", "/etc/systemd/user", "/etc/cron.d", "/var/spool/cron"),
    *("/var/lib/systemd", "/var/log/journal"),
)
_SCRIPT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
n=0
for needed in {needed}; do
    n=$((n + 1)); mkdir -p "/run/kept/$n"; mount --bind "$needed" "/run/kept/$n"
done
for own in {own}; do
    if [ "$own" != /run ] && [ -d "$own" ]; then mount -t tmpfs -o mode=755 tmpfs "$own"; fi
done
n=0
for needed in {needed}; do
    n=$((n + 1)); mkdir -p "$needed"; mount --bind "/run/kept/$n" "$needed"; umount "/run/kept/$n"
done
chmod 1777 /tmp /var/tmp
for list in passwd group shadow; do cp "/etc/$list" "/run/$list"; done
{users}
chmod 640 /run/shadow
for list in passwd group shadow; do mount --bind "/run/$list" "/etc/$list"; done
if [ -f /etc/crontab ]; then mount --bind /dev/null /etc/crontab; fi
mkdir -p /var/spool/cron/crontabs; chmod 1730 /var/spool/cron/crontabs
if grep -q ^crontab: /etc/group; then chgrp crontab /var/spool/cron/crontabs; fi
for own in /tmp /run /etc/systemd/system; do
    if [ -d "$own" ]; then grep -q " $own .* - tmpfs tmpfs " /proc/self/mountinfo; fi
done
"""
_OWN_ETC = """\
cp -a /etc /run/etc
mount --rbind /run/etc /etc
"""
# Masked: whatever of the machine's own setup would be pulled in, and might reach beyond the namespaces.
_SYSTEMD = """\
for unit in /lib/systemd/system/sysinit.target.wants/* systemd-tmpfiles-clean.timer systemd-tmpfiles-clean.service; do
    case $unit in *systemd-journald.service) ;; *) ln -sf /dev/null "/etc/systemd/system/${unit##*/}" ;; esac
done
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=other
exec /lib/systemd/systemd --system --unit=timers.target
"""


def need(*programs: str) -> None:
    """Skip the test where it can't run; fail it where BUB_CRON_REQUIRE_REAL says that it has to."""
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [program for program in programs if shutil.which(program) is None and not Path(program).exists()]
    if (
        not missing
        and subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode
    ):
        missing.append("namespaces of its own")
    if missing:
        reason = f"this runs for real, and needs {', '.join(missing)}"
        if os.environ.get("BUB_CRON_REQUIRE_REAL"):
            pytest.fail(f"BUB_CRON_REQUIRE_REAL is set, but {reason}")
        pytest.skip(reason)


class Machine:
    """Namespaces of their own, kept by their process 1: a systemd, or one that sleeps."""

    def __init__(self, *, systemd: bool, also_own: tuple[str, ...] = ()) -> None:
        """Start it; with `also_own`, more directories are empty ones of its own, and so is a copy of /etc then."""
        self._cgroup = _own_cgroup() if systemd else None
        script = _SCRIPT.format(
            needed=shlex.join(dict.fromkeys(os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT))),
            own=shlex.join((*_OWN, *also_own)),
            users="\n".join(_user_lines(name, uid) for name, uid in USERS.items()),
        )
        script += _OWN_ETC if also_own else ""
        script += _SYSTEMD if systemd else "exec sleep 1800\n"
        spaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--ipc"]
        with tempfile.TemporaryFile("w") as file:
            file.write(script)
            file.flush()
            file.seek(0)
            self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
            enter = ["sh", "-c", f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"', "sh"] if self._cgroup else []
            self._keeper = subprocess.Popen(
                [*enter, "unshare", *(["--cgroup"] if self._cgroup else []), *spaces, "bash", "-s"],
                stdin=file, stdout=self.said, stderr=self.said,
            )  # fmt: skip
        # Its process 1 becomes what the script ends with, once all is mounted.
        self.pid = until(lambda: self._first_process("systemd" if systemd else "sleep"), "the machine's process 1")
        if systemd:
            until(lambda: self.run("systemctl", "is-active", "timers.target", check=None).returncode == 0, "systemd up")
            self.run("systemctl", "start", "dbus.service", "systemd-logind.service")

    def _first_process(self, name: str) -> int | None:
        if self._keeper.poll() is not None:
            self.said.seek(0)
            raise AssertionError(f"the machine did not start: {self.said.read()}")
        try:
            children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
            found = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == name]
        except FileNotFoundError:
            return None
        return found[0] if found else None

    def close(self) -> None:
        self._keeper.kill()  # its child goes with it, and with that, as process 1, all inside
        self._keeper.wait()
        self.said.close()
        if cgroup := self._cgroup:
            until(lambda: "populated 0" in (cgroup / "cgroup.events").read_text(), "the machine's end")
            for group in sorted(cgroup.rglob("*/"), reverse=True):
                if group.is_dir():
                    group.rmdir()
            cgroup.rmdir()

    def inside(self, path: str | Path) -> Path:
        """Return where a file of the machine is seen from outside of it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def command(self, *command: str | Path, user: str = "root", also: dict[str, str] | None = None) -> list[str]:
        """Return the command that runs `command` inside, as a user who has just logged in."""
        uid = USERS.get(user, 0)
        home = "/root" if user == "root" else f"/home/{user}"
        environment = {
            "HOME": home,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            **({"XDG_RUNTIME_DIR": f"/run/user/{uid}"} if uid else {}),
            **(also or {}),
        }
        words = ["nsenter", "-t", str(self.pid), "-a", "--", "env", "-i", f"--chdir={home}"]
        words += [f"{name}={value}" for name, value in environment.items()]
        if uid:
            words += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups"]
        return [*words, *map(str, command)]

    def run(
        self,
        *command: str | Path,
        user: str = "root",
        also: dict[str, str] | None = None,
        text: str = "",
        check: int | None = 0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; fail unless it exits with `check`."""
        done = subprocess.run(
            self.command(*command, user=user, also=also),
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )
        if check is not None:
            assert done.returncode == check, f"{command} exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done


def _user_lines(name: str, uid: int) -> str:
    home = f"/home/{name}"
    return "\n".join([
        f"echo '{name}:x:{uid}:{uid}::{home}:/bin/sh' >> /run/passwd",
        f"echo '{name}:x:{uid}:' >> /run/group",
        f"echo '{name}:*:19000:0:99999:7:::' >> /run/shadow",
        f"mkdir {home} && chown {uid}:{uid} {home} && chmod 700 {home}",
    ])


def _own_cgroup() -> Path | None:
    """Make a control group for one machine, so that two systemds don't take each other's services for their own."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            made = Path(where) / f"bub-cron-test-{os.getpid()}-{time.monotonic_ns()}"
            with contextlib.suppress(OSError):  # read-only: then it shares the machine's
                made.mkdir()
                return made
    return None


class Chat:
    """A user's BUB_HOME on a machine, with a reminder each minute, and the chat of the gateway that serves it."""

    def __init__(self, machine: Machine, user: str, home: str) -> None:
        self.machine = machine
        self.user = user
        self.home = home
        plugin = f"/home/{user}/plugin"
        folders = expose_plugin(Path(__file__).parent / "testchat", machine.inside(plugin) / "site")
        out = f"/home/{user}/chat.jsonl"
        self._out = machine.inside(out)
        self.gateway_environment = {
            "PYTHONPATH": os.pathsep.join(folders).replace(str(machine.inside("/")).rstrip("/"), ""),
            "TESTCHAT_OUT": out,
            "BUB_MODEL": "openai:none",
            "BUB_API_KEY": "none",
        }
        machine.run("mkdir", "-p", home, user=user)
        self.write_file("reminders:\n  minute: {every: 1m, to: 'testchat:1', text: A minute has begun.}\n")
        machine.run("chown", "-R", f"{user}:", plugin, f"{home}/reminders.yaml")

    def write_file(self, text: str) -> None:
        self.machine.inside(f"{self.home}/reminders.yaml").write_text(text)

    def bub_cron(self, *arguments: str, user: str | None = None, check: int | None = 0, **also: str) -> str:
        """Run the real command as the user (or another), and return all it says."""
        done = self.machine.run(SCRIPTS / "bub-cron", *arguments, user=user or self.user, also=also, check=check)
        return done.stdout + done.stderr

    def times(self) -> list[float]:
        """Return when each message arrived."""
        if not self._out.exists():
            return []
        entries: list[dict[str, Any]] = [json.loads(line) for line in self._out.read_text().splitlines()]
        return [entry["time"] for entry in entries if "content" in entry]

    def _first_since(self, since: float) -> float | None:
        return next((at for at in self.times() if at >= since), None)

    def starts(self) -> int:
        """Return how often a gateway has started the chat."""
        return self._out.read_text().count('"started"') if self._out.exists() else 0

    def wait_for_gateway(self, starts: int) -> None:
        until(lambda: self.starts() >= starts, f"gateway {starts} of {self.user}")
        socket = self.machine.inside(f"{self.home}/cron/cron.sock")
        until(socket.exists, f"the socket of {self.user}")

    def wait_for_message_in_time(self, what: str, boundaries: int = 3) -> float:
        """Return how late after its minute a message came that came within 3 s; a busy machine gets more minutes."""
        lateness: list[float] = []
        for _ in range(boundaries):
            minute = int(time.time()) // 60 * 60 + 60
            found = until(functools.partial(self._first_since, minute), f"{what}, after {minute}", 60 + PATIENCE)
            lateness.append(found - minute)
            if lateness[-1] < 3:
                return lateness[-1]
        raise AssertionError(f"{what}: late by {lateness} seconds")
