"""A real `bub gateway` process with bub-cron, the chats of testchat, and a stand-in model; and the real commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demo import expose_plugin
from stand_in_model import Answer, StandInModel

from bub_cron.wire import iso

SCRIPTS = Path(sys.executable).parent
PATIENCE = 120.0  # seconds until a test gives up on what should come at once; machines can be busy


def until[T](look: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """Return what `look` returns once that is true; fail with `what` if it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not seen within {seconds:g} s: {what}")


class House:
    """A BUB_HOME of its own, with everything that uses it. Nothing outside of it is read or written."""

    def __init__(self, answer: Answer) -> None:
        # A short path: a socket's may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="bub-cron-"))
        self.model = StandInModel(answer).start()
        self.out = self.home / "chat.jsonl"
        self.inbox = self.home / "chat.sock"
        self.release = self.home / "release"
        self.socket = self.home / "cron" / "cron.sock"
        self.reminders = self.home / "reminders.yaml"
        self._gateways: list[Gateway] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BUB_")}
        plugin = expose_plugin(Path(__file__).parent / "testchat", self.home / "site")
        self.environment = {
            **kept,
            **self.model.environment(),
            "HOME": str(self.home),
            "BUB_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(plugin),
            "TESTCHAT_OUT": str(self.out),
            "TESTCHAT_INBOX": str(self.inbox),
            "TESTCHAT_RELEASE": str(self.release),
        }

    def gateway(
        self,
        also: dict[str, str] | None = None,
        *,
        wait: bool = True,
        by: Sequence[str] = (),
        **environment: str,
    ) -> Gateway:
        """Start a gateway with more in its environment, by the program `by`; with `wait`, return once it is ready."""
        gateway = Gateway(self, {**(also or {}), **environment}, by=by)
        self._gateways.append(gateway)
        if wait:
            gateway.wait_until_ready()
        return gateway

    def close(self) -> None:
        for gateway in self._gateways:
            gateway.kill()
        self.model.stop()
        shutil.rmtree(self.home)

    # --- The commands

    def command(
        self, *arguments: str, check: int | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `bub-cron`; with `check`, fail unless it exits with that status."""
        done = subprocess.run(
            [SCRIPTS / "bub-cron", *arguments],
            env={**self.environment, **environment}, capture_output=True, text=True, timeout=PATIENCE * 2,
        )  # fmt: skip
        if check is not None:
            assert done.returncode == check, f"{arguments} exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def write_due(self, reminders: dict[str, str], **environment: str) -> None:
        """Save a file whose reminders (name -> the rest of the entry) are all due now, once, at the last full minute.

        A tick just before that minute is run as well, with its clock set back: entries count from the tick before.
        `environment` may name other places for both.
        """
        file = Path(environment.get("BUB_CRON_FILE", self.reminders))
        minute = int(time.time()) // 60 * 60
        lines = [f'  {name}: {{at: "{iso(minute)}", {rest}}}' for name, rest in reminders.items()]
        file.write_text("\n".join(["reminders:", *lines, ""]))
        os.utime(file, (minute - 20, minute - 20))
        code = "import sys; from bub_cron.trigger import tick; from bub_cron.paths import find_paths\n"
        code += "sys.exit(tick.run(find_paths(), float(sys.argv[1])))"
        command = [sys.executable, "-c", code, str(minute - 30)]
        subprocess.run(command, env={**self.environment, **environment}, check=True, timeout=PATIENCE)

    def log(self, *arguments: str) -> list[dict[str, Any]]:
        lines = self.command("log", "--json", "-n", "1000", *arguments, check=0).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def outcomes(self) -> dict[str, str]:
        """Return what each id came to."""
        return {entry["id"]: entry["outcome"] for entry in self.log()}

    # --- The chat

    def chat(self) -> list[dict[str, Any]]:
        """Return everything that the chat wrote down."""
        if not self.out.exists():
            return []
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def messages(self) -> list[tuple[str, str]]:
        """Return the messages that arrived: (chat id, text)."""
        return [(entry["chat_id"], entry["content"]) for entry in self.chat() if "content" in entry]

    def messages_to(self, chat_id: str) -> list[str]:
        return [text for chat, text in self.messages() if chat == chat_id]


class Gateway:
    """One `bub gateway` process."""

    def __init__(
        self,
        house: House,
        environment: dict[str, str],
        command: tuple[str, ...] = ("gateway",),
        by: Sequence[str] = (),
    ) -> None:
        self._house = house
        self.log = house.home / f"gateway-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*by, SCRIPTS / "bub", *command],
                env={**house.environment, **environment}, cwd=house.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_for_log(self, text: str) -> None:
        def look() -> bool:
            assert self.process.poll() is None, f"the gateway ended: {self.log.read_text()}"
            return text in self.log.read_text()

        until(look, f"{text!r} in the gateway's log")

    def wait_until_ready(self) -> None:
        self.wait_for_log("cron.ready")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        self.process.send_signal(with_signal)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def connect(self) -> Poke:
        return Poke(self._house.socket)

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Send one request and return all answers to it."""
        with self.connect() as poke:
            poke.send(**request)
            poke.half_close()
            return poke.rest()


class Poke:
    """A connection by hand, as `nc -NU` makes one."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Poke:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, **request: Any) -> None:
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._file.readline())
        return answer

    def rest(self) -> list[dict[str, Any]]:
        """Return the answers until the gateway closes the connection."""
        return [json.loads(line) for line in self._file]
