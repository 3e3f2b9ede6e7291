"""Send one message to its chat through the live gateway, and say only what was seen.

Invariants:
- `send` returns when, and only when, an enabled channel that is neither ours nor an `Interface`, and whose class overrides
  `send()`, took a non-empty message and returned, and no other code logged a warning meanwhile in the task that sent.
- Refused (`SendRefusedError`) is only what is proven not to have arrived; `proof.py` says by what. All else that goes wrong
  once a send has begun is not seen (`SendUnseenError`): it may have arrived, so nobody repeats it.
- Whatever a `send()` does (raises any `BaseException`, never returns, swallows its cancellation, calls `sys.exit`), `send`
  ends within its limit, and the event loop goes on.
- A message goes by `to` alone: its session id is `to`, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from bub import BubFramework
from bub.channels import Channel, Interface
from loguru import logger

from bub_cron.channel_facts import SETTINGS
from bub_cron.checkers import split_to
from bub_cron.errors import BubCronError, described
from bub_cron.gateway import proof
from bub_cron.gateway.channels import GENERAL, facts_of
from bub_cron.gateway.channels.facts import Facts
from bub_cron.gateway.parts import parts
from bub_cron.gateway.turns import CHANNEL, GatewayStopsError
from bub_cron.gateway.watch import Ears, Watch

SEND_SECONDS = 60.0


class SendRefusedError(BubCronError):
    """Nothing arrived, and that is proven. `for_good`: it would be refused again; else not before `retry_after` seconds."""

    def __init__(self, message: str, for_good: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.for_good = for_good
        self.retry_after = retry_after


class SendUnseenError(BubCronError):
    """A send began and its end was not seen: the message may have arrived."""


class Channels(Protocol):
    """What the gateway's channel manager tells about its channels."""

    def get_channel(self, name: str) -> Channel | None: ...
    def enabled_channels(self) -> list[Channel]: ...


class Delivery:
    """The way from a text to a chat."""

    def __init__(self, framework: BubFramework, channels: Channels, *, send_seconds: float = SEND_SECONDS) -> None:
        self._framework = framework
        self._channels = channels
        self._send_seconds = send_seconds
        self._ears = Ears()
        self._last_enabled: list[Channel] = []

    def close(self) -> None:
        """Leave the process's logging as it was before the first send."""
        self._ears.close()

    def targets(self) -> list[str]:
        """Return the names of the channels that messages can be delivered to."""
        return sorted(channel.name for channel in self._enabled() if self._no_way(channel.name) is None)

    def not_enabled(self) -> dict[str, str]:
        """Return which known channels are installed and not enabled: `not configured`, or `left out` by the operator."""
        found = {}
        for name in SETTINGS:
            channel = self._channels.get_channel(name)
            if channel is None or any(channel is enabled for enabled in self._enabled()):
                continue
            try:
                found[name] = "left out" if channel.enabled else "not configured"
            except BaseException as error:  # a property of the channel's own
                logger.warning("cron.channels: {}", described(error))
        return found

    def refusal(self, to: str) -> str | None:
        """Return why nothing can be delivered to `channel:chat_id` in this gateway, None if it can."""
        name, chat_id = split_to(to)
        return self._no_way(name) or self._facts(name).bad_chat_id(chat_id)

    def parts(self, to: str, content: str) -> list[str]:
        """Return the content in pieces that the chat takes in one message each; one piece if no limit is known."""
        return parts(content, self._facts(split_to(to)[0]).limit)

    def limit_words(self, to: str) -> str | None:
        """Return what the model should know about the length of a message to this chat, None if nothing is known."""
        limit = self._facts(split_to(to)[0]).limit
        if limit is None:
            return None
        return (
            f"A message to this chat may have at most {limit.most:,} {limit.unit}; "
            "a longer reply is delivered as several messages, cut between paragraphs where possible."
        )

    async def send(self, to: str, content: str, context: Mapping[str, str]) -> None:
        """Send one message; see the module's words for what the four ends mean."""
        name, chat_id = split_to(to)
        channel = self._channels.get_channel(name)
        if channel is None or not content.strip():
            raise SendRefusedError(self.refusal(to) or "the message is empty", for_good=True)
        facts = facts_of(channel)
        if why := facts.not_connected(channel):
            raise SendRefusedError(why)
        message = {
            "channel": name,
            "chat_id": facts.chat_id(chat_id),
            "session_id": to,
            "content": facts.content(content),
            "context": dict(context),
        }
        task = asyncio.ensure_future(self._dispatch(message, self._ears.watch(facts)))
        try:
            # Not asyncio.timeout: a send() that swallows its cancellation must not hold us.
            done, _ = await asyncio.wait({task}, timeout=self._send_seconds)
        finally:
            task.cancel()
        if not done:
            raise SendUnseenError(f"{name}'s send() did not return within {self._send_seconds:g} s")
        if task.cancelled():
            raise SendUnseenError(f"{name}'s send() was cancelled in the middle")
        if (error := task.result()) is not None:
            raise error

    async def _dispatch(self, message: dict[str, Any], watch: Watch) -> BubCronError | None:
        """Send a message; return what to raise, since what leaves this task may end the event loop. None if it arrived."""
        name, clock = message["channel"], asyncio.get_running_loop().time
        began = clock()
        watch.begin()
        try:
            taken = await self._framework.dispatch_via_channel_router(message)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return _judged(name, error, watch, clock() - began)
        if taken is False:
            # The channel is there (send() saw to that). Without a router, nothing was sent and the gateway is stopping.
            if getattr(self._framework, "_channel_router", None) is None:
                return GatewayStopsError("Bub's router is unbound")
            return SendRefusedError(f"Bub's router did not take the message for {name}")
        if (doubt := watch.doubt()) is not None:
            return SendUnseenError(f"{name} logged while it sent: {doubt}")
        if taken is not True:
            return SendUnseenError(f"the router said neither that {name} took the message nor that it didn't")
        return None

    def _facts(self, name: str) -> Facts:
        channel = self._channels.get_channel(name)
        return GENERAL if channel is None else facts_of(channel)

    def _enabled(self) -> list[Channel]:
        """Return the enabled channels; those that were, while one of them can't be asked."""
        try:
            self._last_enabled = self._channels.enabled_channels()
        except BaseException as error:
            # Each channel is asked by a property of its own, which may raise anything. No other one suffers for it.
            logger.warning("cron.channels: {}", described(error))
        return self._last_enabled

    def _no_way(self, name: str) -> str | None:
        channel = self._channels.get_channel(name)
        if channel is None:
            return f"this gateway has no channel {name}"
        if name == CHANNEL or isinstance(channel, Interface):
            return f"the channel {name} reaches no chat"
        if all(channel is not enabled for enabled in self._enabled()):
            return f"the channel {name} is installed but not enabled in this gateway"
        if type(channel).send is Channel.send:
            return f"the channel {name} can't send: its class has no send() of its own"
        return None


def _judged(name: str, error: BaseException, watch: Watch, seconds: float) -> BubCronError:
    """Return what an exception that left a `send()` after so many seconds means."""
    text = f"{name}'s send() raised {described(error)}"
    if (doubt := watch.doubt(error)) is not None:
        return SendUnseenError(f"{text}, after it had logged: {doubt}")
    refusal = proof.refusal(error)
    if refusal is None or _hides_a_try(watch.facts, refusal, seconds):
        return SendUnseenError(text)
    if refusal.text is not None:
        text = f"{text} ({refusal.text})"
    return SendRefusedError(text, for_good=refusal.for_good, retry_after=refusal.retry_after)


def _hides_a_try(facts: Facts, refusal: proof.Refusal, seconds: float) -> bool:
    """Tell whether an earlier try within the same send may have arrived, although the last one found no connection."""
    after = facts.tries_again_after
    return not refusal.answered and after is not None and seconds >= after
