"""Chats for the tests of a real gateway: one that writes down what it is sent, and some that can't be sent to.

What `testchat` does with a message is up to its chat id: `hang...` never returns, `refuse...` raises until the file named
by RELEASE is there. What happens is written down, a JSON object a line, on disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from bub import hookimpl
from bub.channels import Channel, ChannelMessage
from bub.channels.contracts import MessageHandler
from bub.store import InMemoryTapeStore
from bub.tape import TapeEntry

OUT = "TESTCHAT_OUT"
RELEASE = "TESTCHAT_RELEASE"
SHORT_TAPES = "TESTCHAT_SHORT_TAPES"
SLOW_START = "TESTCHAT_SLOW_START"  # seconds that the chat takes to start


class RecordingChat(Channel):
    name = "testchat"

    async def start(self, stop_event: asyncio.Event) -> None:
        await asyncio.sleep(float(os.environ.get(SLOW_START, "0")))
        self._write({"started": True})

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, message: ChannelMessage) -> None:
        if message.chat_id.startswith("hang"):
            self._write({"hangs": message.chat_id})
            await asyncio.Event().wait()
        if message.chat_id.startswith("refuse") and not Path(os.environ[RELEASE]).exists():
            self._write({"refused": message.chat_id})
            raise ConnectionRefusedError("not now")
        entry = {"chat_id": message.chat_id, "content": message.content, "kind": message.kind, "time": time.time()}
        self._write(entry)

    @staticmethod
    def _write(entry: dict[str, object]) -> None:
        with open(os.environ[OUT], "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


class SinkChat(Channel):
    """Takes everything and writes nothing down, so that thousands cost little."""

    name = "sink"

    async def start(self, stop_event: asyncio.Event) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, message: ChannelMessage) -> None:
        await asyncio.sleep(0)


class MuteChat(Channel):
    """Never overrode send(): the base class takes everything and does nothing."""

    name = "mute"

    async def start(self, stop_event: asyncio.Event) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""


class OffChat(RecordingChat):
    """Installed, but not enabled."""

    name = "off"

    @property
    def enabled(self) -> bool:
        return False


class ShortTapes(InMemoryTapeStore):
    """Tapes that keep their last entries only. Bub's own keep each entry in memory for as long as the gateway runs."""

    def append(self, tape: str, entry: TapeEntry) -> None:
        super().append(tape, entry)
        del self._tapes[tape][:-20]


@hookimpl
def provide_tape_store() -> InMemoryTapeStore | None:
    return ShortTapes() if os.environ.get(SHORT_TAPES) else None


@hookimpl
def provide_channels(message_handler: MessageHandler) -> list[Channel]:
    return [SinkChat(), RecordingChat(), MuteChat(), OffChat()]
