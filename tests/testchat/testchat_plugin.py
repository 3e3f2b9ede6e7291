"""Chats for the tests of a real gateway: one that writes down what it is sent, and some that can't be sent to.

What `testchat` does with a message is up to its chat id: `hang...` never returns, `refuse...` raises until the file named
by RELEASE is there. What happens is written down, a JSON object a line, on disk.

What users write comes in at the socket named by INBOX, a JSON object a line: `channel` (default `testchat`), `chat_id`,
`text`, and optionally `sender`, `session_id`, `context`. With a `sender`, the message is made as Bub's Telegram channel
makes it: its content is JSON with who wrote it, and the turn's plain reply goes nowhere. Without one it is plain, and the
reply comes back to the chat. When its turn is over, `turn_over` with the text is written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bub import hookimpl
from bub.channels import Channel, ChannelMessage
from bub.channels.contracts import MessageHandler
from bub.store import InMemoryTapeStore
from bub.tape import TapeEntry

OUT = "TESTCHAT_OUT"
INBOX = "TESTCHAT_INBOX"
RELEASE = "TESTCHAT_RELEASE"
SHORT_TAPES = "TESTCHAT_SHORT_TAPES"
SLOW_START = "TESTCHAT_SLOW_START"  # seconds that the chat takes to start


def write(entry: dict[str, object]) -> None:
    with open(os.environ[OUT], "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Inbox:
    """Where users' messages come in. Bub hands every chat the same handler, so one inbox serves them all."""

    def __init__(self, message_handler: MessageHandler) -> None:
        self._message_handler = message_handler
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        if INBOX in os.environ:
            self._server = await asyncio.start_unix_server(self._read, os.environ[INBOX])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            await self._message_handler(message_from(json.loads(line)))
        writer.close()


def message_from(entry: dict[str, Any]) -> ChannelMessage:
    """Make a message as Bub's Telegram channel does, with `sender`; else a plain one."""
    channel, chat_id, text = entry.get("channel", "testchat"), entry["chat_id"], entry["text"]
    message = ChannelMessage(
        session_id=entry.get("session_id", f"{channel}:{chat_id}"),
        channel=channel,
        chat_id=chat_id,
        content=text,
        context=entry.get("context", {}),
        is_active=True,
        lifespan=note_the_end(text),
    )
    if text.startswith(","):
        message.kind = "command"
    elif "sender" in entry:
        name = entry["sender"]
        who = {"username": name, "full_name": name.title(), "sender_id": "7", "sender_is_bot": False}
        message.content = json.dumps({"message": text, "message_id": 1, "type": "text", **who, "date": time.time()})
        message.output_channel = "null"
    return message


@contextlib.asynccontextmanager
async def note_the_end(text: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        write({"turn_over": text})


class RecordingChat(Channel):
    name = "testchat"

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def start(self, stop_event: asyncio.Event) -> None:
        await asyncio.sleep(float(os.environ.get(SLOW_START, "0")))
        await self._inbox.open()
        write({"started": True})

    async def stop(self) -> None:
        await self._inbox.close()

    async def send(self, message: ChannelMessage) -> None:
        if message.chat_id.startswith("hang"):
            write({"hangs": message.chat_id})
            await asyncio.Event().wait()
        if message.chat_id.startswith("refuse") and not Path(os.environ[RELEASE]).exists():
            write({"refused": message.chat_id})
            raise ConnectionRefusedError("not now")
        entry = {"chat_id": message.chat_id, "content": message.content, "kind": message.kind, "time": time.time()}
        write(entry)


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
    inbox = Inbox(message_handler)
    return [SinkChat(), RecordingChat(inbox), MuteChat(), OffChat(inbox)]
