"""Ask this machine's other programs: systemctl, loginctl, crontab.

Invariants: a program that isn't there, or doesn't end, is an answer like any other; they are asked to speak English.
"""

from __future__ import annotations

import os
import subprocess

from bub_cron.errors import NoSuchManagerError

_SECONDS = 90


def output(*command: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a command in English; one that isn't there, or doesn't end, counts as failed, with status 127 or 124."""
    try:
        return subprocess.run(
            command, input=encoded(text), capture_output=True, timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )  # fmt: skip
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, b"", f"{command[0]}: {error.strerror}".encode())
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, b"", f"it did not end within {_SECONDS} s".encode())


def first_line(*command: str) -> str:
    """Return the first line of what a command printed, whatever its exit status."""
    return decoded(output(*command).stdout).strip().partition("\n")[0]


def run_by(account: str, *command: str) -> tuple[str, ...]:
    """Return the command that runs another as a user ("" for this one), where root is to leave no more to it than that."""
    own = not account or os.geteuid() != 0 or account == "root"
    return command if own else ("runuser", "-u", account, "--", *command)


def shown_properties(is_users: bool, unit: str, *properties: str) -> dict[str, str]:
    """Return some properties of a unit, of this user's own systemd or of the system's; {} where that does not answer."""
    option = ("--user",) if is_users else ()
    done = output("systemctl", *option, "show", unit, f"--property={','.join(properties)}")
    shown: dict[str, str] = {}
    for line in decoded(done.stdout).splitlines():
        name, is_one, value = line.partition("=")
        if is_one:  # of a list, there is a line for each
            shown[name] = f"{shown[name]}\n{value}" if name in shown else value
    return shown


def decoded(output: bytes) -> str:
    """Return what a program printed as text that can be turned into the same bytes again."""
    return output.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes of a text that `decoded` may have made."""
    return text.encode("utf-8", "surrogateescape")


def crontab() -> str:
    """Return this user's crontab, "" if there is none; `NoSuchManagerError` if crontab(1) refuses or is not there."""
    done = output("crontab", "-l")
    said = decoded(done.stderr)
    if done.returncode == 0:
        return decoded(done.stdout)
    if "no crontab for" in said or "can't open" in said:  # Debian and most others; busybox
        return ""
    raise NoSuchManagerError(f"`crontab -l` failed: {' '.join(said.split()) or f'exit status {done.returncode}'}")
