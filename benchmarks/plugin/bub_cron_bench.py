"""What a gateway needs to be measured: a chat that takes everything at once, a model that answers at once, and a socket
over which the benchmark has turns run directly and asks when others began.

Found as a plugin of Bub's wherever this folder is on PYTHONPATH. It costs the same with and without bub-cron.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from bub import BubFramework, hookimpl
from bub.channels import Channel, ChannelMessage, Lifecycle
from bub.channels.contracts import MessageHandler
from bub.envelope import Envelope, content_of

CONTROL = "BENCH_CONTROL"  # the path of the socket
MODEL = (
    "BENCH_MODEL"  # "hook": this plugin is the model; else it is Bub's own agent that runs, with the model it is told
)
HOLD = "BENCH_HOLD"  # if set, the chat never returns from a send: firings wait
MARK = "mark "  # a message that begins so has the instant noted at which its turn began


class BenchChat(Channel):
    name = "benchchat"

    def __init__(self) -> None:
        self.sent = 0
        self.more = asyncio.Condition()

    async def start(self, stop_event: asyncio.Event) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, message: ChannelMessage) -> None:
        if HOLD in os.environ:
            await asyncio.Event().wait()
        self.sent += 1
        async with self.more:
            self.more.notify_all()


class BenchPlugin:
    """Bub's hooks."""

    def __init__(self, framework: BubFramework) -> None:
        self._framework = framework
        self._chat = BenchChat()
        self.began: dict[str, float] = {}

    @hookimpl
    def provide_channels(self, message_handler: MessageHandler) -> list[Channel]:
        return [self._chat, Harness(self._framework, self, self._chat)]

    @hookimpl(tryfirst=True)
    def resolve_session(self, message: Envelope) -> str | None:
        """Note when a turn begins: this is the first hook that it calls."""
        content = content_of(message)
        if content.startswith(MARK):
            self.began[content] = time.monotonic()
        return None


class BenchPluginWithModel(BenchPlugin):
    """The same, and a model that answers without looking."""

    @hookimpl
    def run_model(self, prompt: str | list[dict[str, Any]], session_id: str, state: dict[str, Any]) -> str:
        return "Nothing urgent."


def plugin(framework: BubFramework) -> BenchPlugin:
    return (BenchPluginWithModel if os.environ.get(MODEL) == "hook" else BenchPlugin)(framework)


class Harness(Lifecycle):
    """Takes the benchmark's commands, one JSON object a line, and answers each once it is carried out."""

    name = "bench"

    def __init__(self, framework: BubFramework, plugin: BenchPlugin, chat: BenchChat) -> None:
        self._framework = framework
        self._plugin = plugin
        self._chat = chat
        self._server: asyncio.Server | None = None

    async def start(self, stop_event: asyncio.Event) -> None:
        self._server = await asyncio.start_unix_server(self._serve, os.environ[CONTROL])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            answer = await self._carry_out(**json.loads(line))
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _carry_out(self, command: str, **given: Any) -> Any:
        if command == "direct":
            return await self._run_directly(**given)
        if command == "start":
            before = time.monotonic()
            await self._turn(given["content"], "benchchat:direct")
            return self._plugin.began.pop(given["content"]) - before
        if command == "began":
            return self._plugin.began.pop(given["content"])
        if command == "wait_for_sent":
            async with self._chat.more:
                await self._chat.more.wait_for(lambda: self._chat.sent >= given["count"])
        return self._chat.sent

    async def _run_directly(self, count: int, at_once: int, chats: int) -> int:
        """Run turns by `process_inbound`, so many at once, in the sessions of so many chats by turns."""
        numbers = iter(range(count))
        await asyncio.gather(*(self._run_each(numbers, chats) for _ in range(at_once)))
        return self._chat.sent

    async def _run_each(self, numbers: Iterator[int], chats: int) -> None:
        for number in numbers:
            await self._turn(f"Anything urgent in the inbox? {number}", f"benchchat:direct-{number % chats}")

    async def _turn(self, content: str, session: str) -> None:
        chat_id = session.partition(":")[2]
        message = ChannelMessage(session_id=session, channel=BenchChat.name, chat_id=chat_id, content=content)
        await self._framework.process_inbound(message)
