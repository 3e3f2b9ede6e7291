"""A channel's real class in a live router, in this process, and the way of our messages to it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bub import BubFramework, hookimpl
from bub.channels import Channel, ChannelManager
from fake_bub import bub_home, framework_in

from bub_cron.gateway.delivery import Delivery, SendRefusedError, SendUnseenError

CHANNELS = Path(sys.prefix) / "channels"
"""Where `make` puts the channels that install from PyPI: apart, for every real gateway would start them."""


def channel_class(name: str) -> type[Channel]:
    """Return the class of a channel that isn't Bub's own, as `module.Class`; skip the test where it isn't installed."""
    if str(CHANNELS) not in sys.path:
        sys.path.append(str(CHANNELS))  # last: what both have is the environment's own
    module, _, kind = name.rpartition(".")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        if os.environ.get("BUB_CRON_REQUIRE_REAL") and module.partition(".")[0] in (
            "bub_feishu",
            "bub_discord",
            "bub_qq",
        ):
            pytest.fail(f"{module} is missing: `make channels` installs it")
        pytest.skip(f"{module} is not installed")
    found: type[Channel] = getattr(importlib.import_module(module), kind)
    return found


class Provider:
    """A plugin with one channel."""

    def __init__(self, make: Callable[[Any], Channel]) -> None:
        self._make = make

    @hookimpl
    def provide_channels(self, message_handler: Callable[[Any], Awaitable[None]]) -> list[Channel]:
        return [self._make(message_handler)]


class Rig:
    """One channel, enabled and started, and our delivery to it."""

    def __init__(self, framework: BubFramework, manager: ChannelManager, name: str, send_seconds: float) -> None:
        self.framework = framework
        self.manager = manager
        self.delivery = Delivery(framework, manager, send_seconds=send_seconds)
        channel = manager.get_channel(name)
        assert channel is not None
        self.channel: Any = channel

    async def send(self, to: str, content: str = "hello", **context: str) -> str:
        """Send, and return what came of it in words: `sent`, `refused`, `refused for good` or `not seen`."""
        try:
            await self.delivery.send(to, content, context)
        except SendRefusedError as error:
            self.error = error
            return "refused for good" if error.for_good else "refused"
        except SendUnseenError as error:
            self.error = error
            return "not seen"
        return "sent"

    error: SendRefusedError | SendUnseenError


@asynccontextmanager
async def rig(
    path: Path,
    name: str,
    environ: Mapping[str, str],
    make: Callable[[Any], Channel] | None = None,
    *,
    start: bool = True,
    send_seconds: float = 10.0,
) -> AsyncIterator[Rig]:
    """Start the channel `name` (Bub's own, or what `make` makes) with these settings."""
    with bub_home(path, {"NO_PROXY": "127.0.0.1", **environ}):
        framework = framework_in(path)
        if make is not None:
            framework.plugin_manager.register(Provider(make))
        manager = ChannelManager(framework, enabled_channels=[name], stream_output=False)
        framework.bind_channel_router(manager)
        made = Rig(framework, manager, name, send_seconds)
        stop = asyncio.Event()
        if start:
            await made.channel.start(stop)
        try:
            yield made
        finally:
            stop.set()
            if start:
                await made.channel.stop()
            made.delivery.close()
