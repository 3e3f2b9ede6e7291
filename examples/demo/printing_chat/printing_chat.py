"""A Bub plugin: a chat that prints what it is sent. Chats such as Telegram's differ in how messages come and go alone.

What alice writes comes in at the Unix socket named by PRINTING_CHAT; it stays open until something was sent to the chat.
"""

from __future__ import annotations

import asyncio
import os

from bub import hookimpl
from bub.channels import Channel, ChannelMessage
from bub.channels.contracts import MessageHandler


class PrintingChat(Channel):
    name = "printing"

    def __init__(self, on_receive: MessageHandler) -> None:
        self._on_receive = on_receive
        self._answered = asyncio.Event()

    async def start(self, stop_event: asyncio.Event) -> None:
        if "PRINTING_CHAT" in os.environ:
            self._server = await asyncio.start_unix_server(self._hear, os.environ["PRINTING_CHAT"])

    async def stop(self) -> None:
        """The socket ends with the process."""

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = (await reader.read()).decode()
        print(f"  [chat alice] alice: {text}", flush=True)
        self._answered.clear()
        await self._on_receive(
            ChannelMessage("printing:alice", "printing", text, chat_id="alice", context={"sender": "alice"})
        )
        await self._answered.wait()
        writer.close()

    async def send(self, message: ChannelMessage) -> None:
        print(f"  [chat {message.chat_id}] {message.content}", flush=True)
        self._answered.set()


@hookimpl
def provide_channels(message_handler: MessageHandler) -> list[Channel]:
    return [PrintingChat(message_handler)]
