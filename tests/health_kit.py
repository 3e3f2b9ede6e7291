"""What status and doctor look at, faked: a gateway that answers a ping, and systemctl, loginctl and crontab on PATH."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import ledger_kit
import pytest
from fake_gateway import Message, Place, Script, at

from bub_cron import __version__
from bub_cron.paths import Paths
from bub_cron.trigger import machine
from bub_cron.trigger.crontabs import tick_command
from bub_cron.wire import PROTOCOL

NOON = at("2026-11-23T12:00:00")
FILE = "defaults: {to: 'telegram:1', timezone: UTC}\nreminders:\n  pills: {every: 1h, text: Time for your pills.}\n"
_SYSTEMCTL = """\
#!/bin/sh
manager=system
if [ "$1" = --user ]; then manager=user; shift; fi
case $1 in
show) cat "$FAKES/$manager $2" 2>/dev/null || echo LoadState=not-found ;;
is-active) cat "$FAKES/$manager $2 active" 2>/dev/null || { echo inactive; exit 3; } ;;
*) exit 1 ;;
esac
"""
_CRONTAB = '#!/bin/sh\ncat "$FAKES/tab" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; }\n'
_LOGINCTL = '#!/bin/sh\ncat "$FAKES/linger" 2>/dev/null || echo no\n'


def healthy(path: Path) -> Place:
    """Make a house in which all is well at noon: a file and ticks; a gateway once it is entered."""
    made = Place(path)
    made.write(FILE, NOON - 120)
    for now in (NOON - 120, NOON - 60):
        assert made.tick(now) == (0, "")
    return made


def answering(**about: object) -> Script:
    """Make a script that answers a ping as a gateway with one channel, telegram, does."""
    pong: Message = {
        "status": "pong", "version": __version__, "bub": "0.5.1", "protocol": PROTOCOL, "pid": 4242, "python": sys.executable,
        "since": "2026-11-23T09:00:00Z", "channels": ["telegram"], "commands": False, "ready": True, "waiting": 0, "running": 0,
        **about,
    }  # fmt: skip

    def script(request: Message) -> Sequence[Message] | None:
        return [pong] if "ping" in request else None

    return script


def as_shown(word: str) -> str:
    """Return a word as `systemctl show` has it: in double quotes if need be, with a backslash before what a shell minds."""
    if not set(word) & set("\"\\`$' "):
        return word
    return '"' + "".join(f"\\{character}" if character in '"\\`$' else character for character in word) + '"'


def record(
    place: Place,
    *fire_times: int,
    name: str = "pills",
    state: str | None = "missed",
    error: str | None = "why",
    reason: str | None = None,
) -> None:
    """Put firings into the ledger, settled in a state if one is given."""
    ledger_kit.record(
        place.paths.ledger, *fire_times, name=name, content='{"text": "x"}', state=state, error=error, reason=reason
    )


class Programs:
    """The machine's other programs, of which none knows of a tick until told."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._fakes = directory / "fakes"
        self._fakes.mkdir()
        for name, text in {"systemctl": _SYSTEMCTL, "crontab": _CRONTAB, "loginctl": _LOGINCTL}.items():
            (self._fakes / name).write_text(text)
            (self._fakes / name).chmod(0o755)
        for name in ("BUB_HOME", "BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(directory))
        monkeypatch.setenv("PATH", f"{self._fakes}:/usr/bin:/bin")
        monkeypatch.setenv("FAKES", str(self._fakes))
        monkeypatch.setattr(machine, "SYSTEM_TABS", ())

    def unit(self, manager: str, name: str, **properties: str) -> None:
        """Let `systemctl show` tell this of a unit."""
        lines = [f"{key}={value}" for key, value in {"LoadState": "loaded", **properties}.items()]
        (self._fakes / f"{manager} {name}").write_text("\n".join(lines) + "\n")

    def timer(
        self,
        paths: Paths,
        manager: str = "user",
        *,
        python: str = sys.executable,
        active: str = "active",
        **service: str,
    ) -> None:
        """Set up the timer and the service that `install` writes."""
        values = {"HOME": paths.home, "CRON_FILE": paths.file, "CRON_STATE": paths.state, "CRON_SOCKET": paths.socket}
        environment = " ".join(map(as_shown, (f"BUB_{name}={value}" for name, value in values.items())))
        started = f"{{ path={python} ; argv[]={python} -P -m bub_cron tick ; ignore_errors=no ; pid=0 }}"
        self.unit(manager, "bub-cron.timer", ActiveState=active)
        shown = {"ExecStart": started, "Environment": environment, "ActiveState": "inactive", **service}
        self.unit(manager, "bub-cron.service", **shown)

    def tab(self, text: str) -> None:
        (self._fakes / "tab").write_text(text)

    @staticmethod
    def tab_line(paths: Paths, python: str = sys.executable) -> str:
        return f"* * * * * {shlex.join(tick_command(python, paths))}\n"

    def linger(self) -> None:
        (self._fakes / "linger").write_text("yes\n")

    def active(self, manager: str, name: str) -> None:
        (self._fakes / f"{manager} {name} active").write_text("active\n")


def contents(place: Place) -> dict[str, bytes]:
    """Return all files of a place; of a WAL's shared memory the name alone."""
    found = [path for path in place.home.rglob("*") if path.is_file()]
    return {str(path): b"" if path.name.endswith("-shm") else path.read_bytes() for path in found}


def as_json(text: str) -> dict[str, object]:
    [line] = text.splitlines()
    found: dict[str, object] = json.loads(line)
    return found
