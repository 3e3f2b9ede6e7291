"""A real `bub gateway` of a place's own, with the plugin of plugin/, and what one asks of it.

Invariants: with and without bub-cron it is started in the same way, with the same other plugin (start_bub.py); its
output goes to a file, as under systemd it goes to the journal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.measure import cpu_of
from benchmarks.places import Place
from bub_cron.trigger.client import Connection
from bub_cron.wire import iso

HERE = Path(__file__).parent
START = [sys.executable, str(HERE / "start_bub.py")]
PATIENCE = 120.0  # seconds until a benchmark gives up
INSTANT = {"BENCH_MODEL": "hook", "BUB_MODEL": "openai:none", "BUB_API_KEY": "none"}  # no model is ever asked


def bub_environment(place: Place, model: dict[str, str], *, cron: bool = True) -> dict[str, str]:
    """Return what a Bub process is started with; `model` is `INSTANT`, or a stand-in model's `environment()`."""
    without = {} if cron else {"BENCH_WITHOUT_CRON": "1"}
    own = {"PYTHONPATH": str(HERE / "plugin"), "BENCH_CONTROL": str(place.home / "control.sock")}
    return {**place.environment, **model, **own, **without}


class Gateway:
    """One gateway process, ready. Use as a context manager."""

    def __init__(self, place: Place, model: dict[str, str], *, cron: bool = True, **environment: str) -> None:
        self.place = place
        self._cron = cron
        self._log = place.home / "gateway.log"
        self._control = place.home / "control.sock"
        self._control.unlink(missing_ok=True)
        self._sent = 0
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*START, "gateway"], env={**bub_environment(place, model, cron=cron), **environment},
                cwd=place.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> Gateway:
        word = "cron.ready" if self._cron else "started listening"
        deadline = time.monotonic() + PATIENCE
        while word not in self._log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"the gateway did not come up: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used so far."""
        return cpu_of(self.process.pid)

    def resident_kib(self) -> int:
        """Return what is resident of it now, shared libraries too."""
        return int(self._status("VmRSS"))

    def switches(self) -> int:
        """Return how often its threads have waited for something so far: each is a time that it was woken up."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int(_field(task / "status", "voluntary_ctxt_switches")) for task in tasks)

    def _status(self, field: str) -> str:
        return _field(Path(f"/proc/{self.process.pid}/status"), field)

    # --- The harness

    def command(self, command: str, **given: Any) -> Any:
        """Have the plugin's harness carry a command out, and return its answer."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(str(self._control))
            control.sendall(json.dumps({"command": command, **given}).encode() + b"\n")
            with control.makefile("rb") as answers:
                return json.loads(answers.readline())

    def run_directly(self, count: int, at_once: int, chats: int) -> None:
        """Run turns by calls of `process_inbound`, until all have ended and their replies are sent."""
        before = self.command("sent")
        if self.command("direct", count=count, at_once=at_once, chats=chats) - before != count:
            raise RuntimeError("not every direct turn's reply was sent")

    # --- The socket

    def run_firings(self, lines: list[bytes]) -> None:
        """Submit firings as a tick does, and return once all are delivered and have their final outcome on disk."""
        before = self.command("sent")
        self.submit(lines)
        self.command("wait_for_sent", count=before + len(lines))
        self.wait_until_idle()

    def submit(self, lines: list[bytes]) -> None:
        """Submit firings; RuntimeError unless all are accepted."""
        answers: list[dict[str, Any]] = []
        with Connection(self.place.paths.socket) as connection:
            connection.exchange(lines, answers.append)
        if others := [answer for answer in answers if answer["status"] not in ("accepted", "running", "delivered")]:
            raise RuntimeError(f"{len(others)} of {len(lines)} were not accepted, such as {others[0]}")

    def wait_until_idle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while (pong := self.ping())["waiting"] + pong["running"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gateway does not come to rest: {pong}")
            time.sleep(0.005)

    def ping(self) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        with Connection(self.place.paths.socket) as connection:
            connection.exchange([b'{"ping": true}\n'], answers.append)
        return answers[0]


def firing_lines(count: int, label: str, *, kind: str = "prompt", chats: int = 1) -> list[bytes]:
    """Return requests as a tick writes them; `label` makes their ids unlike those of others."""
    now = time.time()
    return [
        json.dumps({
            "id": f"{label}-{number}@{iso(now)}", "fire_time": iso(now), "expires": iso(now + 3600), "wait": False,
            "reminder": f"{label}-{number}", "to": f"benchchat:chat-{number % chats}",
            kind: f"Anything urgent in the inbox? {number}",
        }).encode() + b"\n"
        for number in range(count)
    ]  # fmt: skip


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise RuntimeError(f"{path} has no {name}")


def settle() -> None:
    """Let what a gateway still does after its start come to an end."""
    time.sleep(float(os.environ.get("BENCH_SETTLE_SECONDS", "2")))
