"""Send a message to its chat through the live gateway, and say only what was seen.

Kept true here: `send` returns when, and only when, an enabled channel that is neither ours nor an `Interface`, and whose
class overrides `send()`, took a non-empty message and returned. All else is told apart: no way to deliver there at all
(`refusal`), refused (`SendRefusedError`: nothing arrived, it may be sent again), not seen to the end (`SendUnseenError`:
it may have arrived, so nobody repeats it), the gateway stopping (`GatewayStopsError`: nothing was sent).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Protocol

from bub import BubFramework
from bub.channels import Channel, Interface
from bub.channels.telegram import TelegramChannel

from bub_cron.errors import BubCronError, described
from bub_cron.gateway.turns import CHANNEL, GatewayStopsError, look
from bub_cron.wire import split_to

SEND_SECONDS = 60.0
# Timeouts before anything left: getting a connection, from a pool or from the network (httpx, aiohttp, urllib3, ...).
_BEFORE_THE_REQUEST = ("connecttimeout", "pooltimeout", "connectiontimeout")


class SendRefusedError(BubCronError):
    """The channel did not take the message."""

    def __init__(self, text: str, for_good: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.for_good = for_good
        self.retry_after = retry_after


class SendUnseenError(BubCronError):
    """A send began and its end was not seen: the message may have arrived."""


class Channels(Protocol):
    """What the gateway's channel manager tells about its channels."""

    def get_channel(self, name: str) -> Channel | None: ...
    def enabled_channels(self) -> list[Channel]: ...


class Delivery:
    """The way from a kept reply to a chat."""

    def __init__(self, framework: BubFramework, channels: Channels, *, send_seconds: float = SEND_SECONDS) -> None:
        self._framework = framework
        self._channels = channels
        self._send_seconds = send_seconds

    def targets(self) -> list[str]:
        """Return the names of the channels that messages can be delivered to."""
        return sorted(
            channel.name for channel in self._channels.enabled_channels() if self.refusal(f"{channel.name}:-") is None
        )

    def refusal(self, to: str) -> str | None:
        """Return why nothing can be delivered to `channel:chat_id` in this gateway, None if it can."""
        name, _ = split_to(to)
        channel = self._channels.get_channel(name)
        if channel is None:
            return f"this gateway has no channel {name}"
        if name == CHANNEL or isinstance(channel, Interface):
            return f"the channel {name} reaches no chat"
        if all(channel is not enabled for enabled in self._channels.enabled_channels()):
            return f"the channel {name} is installed but not enabled in this gateway"
        if type(channel).send is Channel.send:
            return f"the channel {name} can't send: its class has no send() of its own"
        return None

    def parts(self, to: str, content: str) -> list[str]:
        return [content]

    async def send(self, to: str, content: str, context: Mapping[str, str]) -> None:
        """Send `content` to the firing's chat; see the module's words for what the four ends mean."""
        name, chat_id = split_to(to)
        channel = self._channels.get_channel(name)
        if channel is None or not content.strip():
            raise SendRefusedError(self.refusal(to) or "the message is empty")
        message = {
            "channel": name,
            "chat_id": chat_id,
            "session_id": to,
            "content": _as_taken(channel, content),
            "context": dict(context),
        }
        task = asyncio.ensure_future(self._framework.dispatch_via_channel_router(message))
        try:
            # Not asyncio.timeout: a send() that swallows its cancellation must not hold us.
            done, _ = await asyncio.wait({task}, timeout=self._send_seconds)
        finally:
            task.cancel()
        if not done:
            task.add_done_callback(look)
            raise SendUnseenError(f"{name}'s send() did not return within {self._send_seconds:g} s")
        self._judge(task, name)

    @staticmethod
    def _judge(task: asyncio.Future[bool], name: str) -> None:
        try:
            taken = task.result()
        except asyncio.CancelledError as error:
            raise SendUnseenError(f"{name}'s send() was cancelled in the middle") from error
        except Exception as error:
            text = f"{name}'s send() raised {described(error)}"
            if _may_have_left(error):
                raise SendUnseenError(text) from error
            raise SendRefusedError(text) from error
        if not taken:
            # The channel is there (refusal() saw to that), so it is the router that is gone.
            raise GatewayStopsError("Bub's router is unbound")


def _as_taken(channel: Channel, content: str) -> str:
    """Return the content in the form in which the channel's `send()` passes it on unchanged.

    Telegram's send() takes whatever parses as JSON for an envelope and sends its `message` field: a reply such as `42`
    would raise, `{"a": 1}` would vanish. So what parses goes in such an envelope.
    """
    if not isinstance(channel, TelegramChannel):
        return content
    try:
        json.loads(content)
    except json.JSONDecodeError:
        return content
    except (ValueError, RecursionError):
        pass  # too long a number, too deep a nesting: its send() would raise just the same
    return json.dumps({"message": content}, ensure_ascii=False)


def _may_have_left(error: BaseException) -> bool:
    """Tell whether an exception is a timeout after which the request may be on its way.

    HTTP libraries have timeouts of their own names and wrap each other's. That it was one before the request only the
    error itself and its causes can vouch for; what it came up during (`__context__`) may be an earlier try's.
    """
    if any(name.startswith(_BEFORE_THE_REQUEST) for name in _names(error, contexts=False)):
        return False
    return any("timeout" in name or "timedout" in name for name in _names(error, contexts=True))


def _names(error: BaseException | None, *, contexts: bool) -> list[str]:
    """Return the class names, in lower case, of an exception and of what led to it."""
    names: list[str] = []
    for _ in range(10):
        if error is None:
            break
        names += [kind.__name__.lower() for kind in type(error).__mro__]
        error = error.__cause__ or (error.__context__ if contexts else None)
    return names
