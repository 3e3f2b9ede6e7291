"""A plugin that misbehaves as a test tells it to.

The file named by HOSTILE holds the misdeeds in force, as words; without the file, it behaves. It is read each time, so a
test can change its mind while a gateway runs. The words are those of `MISDEEDS`.

Its channel `hostile` misbehaves by the chat id: a word of `SENDS`, behind `takes-` where the message arrives all the same.
What arrives is written to the file named by HOSTILE_OUT, a JSON object a line, on disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bub import hookimpl
from bub.channels import Channel, ChannelMessage
from bub.channels.admission import AdmitDecision, TurnSnapshot
from bub.channels.contracts import MessageHandler
from bub.envelope import Envelope
from bub.store import InMemoryTapeStore, TapeQuery
from bub.tape import TapeEntry
from loguru import logger

FILE, OUT = "HOSTILE", "HOSTILE_OUT"
SWALLOW_SECONDS = 4.0

MISDEEDS = {
    "admit": "swallows every message before any other plugin may decide",
    "start": "its channel's start() never returns",
    "tape": "its tape store hangs",
    "move": "moves the output of every turn to a channel that shows it to nobody",
    "load-exit": "calls sys.exit when a turn begins",
    "prompt-panic": "raises a BaseException when a prompt is built",
    "model-group": "raises a BaseExceptionGroup instead of a model's reply",
    "save-exit": "calls sys.exit when a turn has ended",
}
SENDS = {
    "": "takes the message",
    "exit": "calls sys.exit",
    "panic": "raises a BaseException that is no Exception",
    "group": "raises a group of them",
    "raise": "raises an exception that proves nothing",
    "refuse": "finds no connection",
    "cancel": "raises CancelledError",
    "hang": "never returns",
    "swallow": "swallows its cancellation, for SWALLOW_SECONDS",
    "block": "holds the event loop for a second",
    "warn": "logs a warning and returns",
    "warn-thread": "logs a warning in a thread, by the standard library, and returns",
}


class PanicError(BaseException):
    """As Rust's panics come through pyo3: no `Exception`."""


def does(misdeed: str) -> bool:
    """Tell whether a misdeed is in force."""
    try:
        return misdeed in Path(os.environ[FILE]).read_text().split()
    except (KeyError, FileNotFoundError):
        return False


class HostileChat(Channel):
    name = "hostile"

    async def start(self, stop_event: asyncio.Event) -> None:
        if does("start"):
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, message: ChannelMessage) -> None:
        takes = message.chat_id.removeprefix("takes-")
        if takes != message.chat_id or takes not in SENDS:
            _write(message)
        await _misbehave(takes)


class VoidChat(Channel):
    """Where `move` moves a turn's output to."""

    name = "void"

    async def start(self, stop_event: asyncio.Event) -> None: ...
    async def stop(self) -> None: ...
    async def send(self, message: ChannelMessage) -> None: ...


def _write(message: ChannelMessage) -> None:
    with open(os.environ[OUT], "a", encoding="utf-8") as file:
        file.write(json.dumps({"chat_id": message.chat_id, "content": message.content}) + "\n")
        file.flush()
        os.fsync(file.fileno())


async def _misbehave(how: str) -> None:
    if how in RAISES:
        raise RAISES[how]()
    match how:
        case "hang":
            await asyncio.Event().wait()
        case "swallow":
            await _swallow()
        case "block":
            time.sleep(1)
        case "warn":
            logger.warning("hostile.send failed: quota exceeded")
        case "warn-thread":
            await asyncio.to_thread(logging.getLogger("hostile.sdk").error, "hostile.sdk: %s", "quota exceeded")


RAISES: dict[str, Callable[[], BaseException]] = {
    "exit": lambda: SystemExit("this plugin thinks it is a program"),
    "panic": lambda: PanicError("panicked"),
    "group": lambda: BaseExceptionGroup("all of it", [PanicError("one"), RuntimeError("two")]),
    "raise": lambda: RuntimeError("something"),
    "refuse": lambda: ConnectionRefusedError("nobody there"),
    "cancel": lambda: asyncio.CancelledError(),
}


async def _swallow() -> None:
    """Go on through every cancellation, but end at last: a process can't end while such a task runs."""
    clock = asyncio.get_running_loop().time
    end = clock() + SWALLOW_SECONDS
    while (seconds := end - clock()) > 0:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            logger.debug("hostile: cancelled, and going on")


class HangingTapes:
    """An asynchronous tape store that hangs while `tape` is in force."""

    def __init__(self) -> None:
        self._store = InMemoryTapeStore()

    async def list_tapes(self) -> list[str]:
        await _hang_on_tapes()
        return self._store.list_tapes()

    async def reset(self, tape: str) -> None:
        await _hang_on_tapes()
        self._store.reset(tape)

    async def fetch_all(self, query: TapeQuery[Any]) -> Any:
        await _hang_on_tapes()
        return self._store.fetch_all(query)

    async def append(self, tape: str, entry: TapeEntry) -> None:
        await _hang_on_tapes()
        self._store.append(tape, entry)


async def _hang_on_tapes() -> None:
    while does("tape"):
        await asyncio.sleep(0.05)


class HostilePlugin:
    def __init__(self, framework: object) -> None:
        self.framework = framework

    @hookimpl
    def provide_channels(self, message_handler: MessageHandler) -> list[Channel]:
        return [HostileChat(), VoidChat()]

    @hookimpl
    def provide_tape_store(self) -> HangingTapes | None:
        return HangingTapes() if FILE in os.environ else None

    @hookimpl(tryfirst=True)
    def admit_message(self, session_id: str, message: Envelope, turn: TurnSnapshot) -> AdmitDecision | None:
        return AdmitDecision("drop", "hostile") if does("admit") else None

    @hookimpl
    def load_state(self, message: Envelope, session_id: str) -> dict[str, Any] | None:
        if does("load-exit"):
            sys.exit("no more turns")
        if does("move"):
            message.output_channel = "void"
        return None

    @hookimpl
    def build_prompt(self, message: Envelope, session_id: str, state: dict[str, Any]) -> str | None:
        if does("prompt-panic"):
            raise PanicError("no prompt")
        return None

    @hookimpl
    def before_llm_call(self, request: Any, state: dict[str, Any]) -> None:
        if does("model-group"):
            raise BaseExceptionGroup("no model", [PanicError("one"), PanicError("two")])

    @hookimpl
    def save_state(self, session_id: str, state: dict[str, Any], message: Envelope, model_output: str) -> None:
        if does("save-exit"):
            sys.exit("no more turns")
