"""A Bub plugin: a chat that prints what it is sent. Chats such as Telegram's differ in `send()` alone, as seen from here."""

from __future__ import annotations

import asyncio

from bub import hookimpl
from bub.channels import Channel, ChannelMessage
from bub.channels.contracts import MessageHandler


class PrintingChat(Channel):
    name = "printing"

    async def start(self, stop_event: asyncio.Event) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, message: ChannelMessage) -> None:
        print(f"  [chat {message.chat_id}] {message.content}", flush=True)


@hookimpl
def provide_channels(message_handler: MessageHandler) -> list[Channel]:
    return [PrintingChat()]
