"""Messages on their way to their chats: replies and notices alike.

Invariants:
- The beginning of a send is on disk before the send, and its end after it. What was not seen is not repeated, unless its
  reminder asks for `at-least-once`.
- A refused message is sent again at least twice, then while its time lasts, and not before the platform asked for.
- At most `_SENDS_AT_ONCE` sends to one channel go on at once. Nobody holds that place while waiting for anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from loguru import logger

from bub_cron.errors import BubCronError, described
from bub_cron.gateway.delays import LATER_DELAY, send_delay
from bub_cron.gateway.delivery import Delivery, SendRefusedError, SendUnseenError
from bub_cron.gateway.firing import Firing, Message
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.turns import GatewayStopsError
from bub_cron.states import UNDELIVERED, UNKNOWN, WAITING
from bub_cron.wire import TEXT, split_to

_SENDS_AT_ONCE = 8  # to one channel: chats limit how fast a bot may talk
_SENDS_AT_LEAST = 3
_PAST_GRACE = 3600.0  # seconds past a message's time that a platform may ask to wait
TOO_LATE = "too late to start by the time it could"


class Sends:
    """Sends messages. `now` gives epoch seconds, `sleep` waits seconds."""

    def __init__(
        self,
        inbox: Inbox,
        delivery: Delivery,
        *,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._inbox = inbox
        self._delivery = delivery
        self._now = now
        self._sleep = sleep
        self._lanes: dict[str, asyncio.Semaphore] = {}

    async def next_reply(self, firing: Firing, on_send: Callable[[bool], None]) -> Firing:
        """Make one send of a firing whose text is kept: its next message's. Return the firing as it is afterwards.

        `on_send` is told when the send begins and when it is over: a stop leaves such a firing a few seconds.
        """
        request = firing.request
        if refusal := self._delivery.refusal(request.to):
            return await self._inbox.end(firing, "refuse", self._now(), reason="no_channel", error=refusal)
        if not firing.replies:
            firing = replace(firing, messages=(*self._planned(firing), *firing.messages))
        message = next(reply for reply in firing.replies if reply.state == WAITING)
        await self._wait_until(message.not_before)
        # A text's grace ends when its first send begins; a reply has begun its turn in time.
        limit = request.expires if request.kind == TEXT and not firing.sends else None
        try:
            async with self._lane(message.to, limit):
                on_send(True)
                return await self._send(firing, message)
        except TimeoutError:
            return await self._inbox.end(firing, "miss", self._now(), reason="late", error=TOO_LATE)
        finally:
            on_send(False)

    async def notices(self, firing: Firing) -> Firing:
        """Send what is to be told about a firing that has ended, each message until its own end."""
        while message := next((m for m in firing.messages if not m.decides and not m.is_final), None):
            if refusal := self._delivery.refusal(message.to):
                firing = await self._inbox.move_message(
                    firing, message, "refuse", self._now(), reason="no_channel", error=refusal
                )
                continue
            await self._wait_until(message.not_before)
            async with self._lane(message.to, None):
                firing = await self._send(firing, message)
        return firing

    def _planned(self, firing: Firing) -> list[Message]:
        """Return the messages that a firing's text makes; the whole text is not stored a second time."""
        request, text = firing.request, firing.text or ""
        parts = self._delivery.parts(request.to, text)
        return [
            Message(number, "reply", request.to, request.expires, None if len(parts) == 1 else part)
            for number, part in enumerate(parts, 1)
        ]

    async def _wait_until(self, instant: float | None) -> None:
        while instant is not None and (seconds := instant - self._now()) > 0:
            # In pieces, and an instant that is too far away was written by a clock that was ahead.
            if seconds > _PAST_GRACE + LATER_DELAY:
                break
            await self._sleep(min(seconds, LATER_DELAY))

    @asynccontextmanager
    async def _lane(self, to: str, limit: float | None) -> AsyncIterator[None]:
        """Hold one of the places for sends to a channel; TimeoutError if none comes until `limit`."""
        channel, _ = split_to(to)
        lane = self._lanes.setdefault(channel, asyncio.Semaphore(_SENDS_AT_ONCE))
        async with asyncio.timeout(None if limit is None else max(0.0, limit - self._now())):
            await lane.acquire()
        try:
            if limit is not None and self._now() > limit:
                raise TimeoutError
            yield
        finally:
            lane.release()

    async def _send(self, firing: Firing, message: Message) -> Firing:
        """Make one send of a message, with its beginning and its end on disk."""
        number = message.number
        begun = False
        try:
            firing = await self._inbox.begin_send(firing, message, self._now())
            message = _numbered(firing, number)
            begun = True
            content = firing.text if message.content is None else message.content
            await self._delivery.send(message.to, content or "", firing.request.context)
        except asyncio.CancelledError:
            await self._stopped(firing, message, begun=begun)
            raise
        except GatewayStopsError:
            await self._give_back(firing, message)
            raise
        except SendRefusedError as error:
            return await self._refused(firing, message, error)
        except SendUnseenError as error:
            return await self._unseen(firing, message, str(error))
        except BaseException as error:
            if not begun:
                raise
            return await self._unseen(firing, message, described(error))
        return await self._inbox.move_message(firing, message, "deliver", self._now(), error=None)

    async def _refused(self, firing: Firing, message: Message, error: SendRefusedError) -> Firing:
        now, again, until = self._now(), self._now() + send_delay(message.sends), message.until
        if error.retry_after is not None:
            again, until = max(again, now + error.retry_after), until + _PAST_GRACE
        if error.for_good:
            return await self._end(firing, message, "refuse", "refused_for_good", str(error))
        if again <= until or (message.sends < _SENDS_AT_LEAST and again <= now + LATER_DELAY):
            return await self._again(firing, message, str(error), again)
        return await self._end(firing, message, "refuse", "refused", str(error))

    async def _unseen(self, firing: Firing, message: Message, error: str) -> Firing:
        again = self._now() + send_delay(message.sends)
        if message.decides and firing.request.delivery == "at-least-once" and again <= message.until:
            return await self._again(firing, message, error, again)
        return await self._end(firing, message, "lose", "not_seen", error)

    async def _again(self, firing: Firing, message: Message, error: str, again: float) -> Firing:
        logger.warning("cron.send_again id={} sends={} error={}", firing.id, message.sends, error)
        return await self._inbox.move_message(firing, message, "retry", self._now(), error=error, not_before=again)

    async def _end(self, firing: Firing, message: Message, event: str, reason: str, error: str) -> Firing:
        if not message.decides:
            logger.warning("cron.{} id={} {}: {}", message.kind, firing.id, event, error)
        return await self._inbox.move_message(firing, message, event, self._now(), reason=reason, error=error)

    async def _give_back(self, firing: Firing, message: Message, *, once: bool = False) -> None:
        sends = max(0, message.sends - 1)
        await self._inbox.move_message(firing, message, "give_back", self._now(), sends=sends, once=once)

    async def _stopped(self, firing: Firing, message: Message, *, begun: bool) -> None:
        """Record a send that the gateway's stop has ended: it was not seen, or it had not begun."""
        error = "the gateway stopped while the message was on its way"
        try:
            if not begun:
                # Its beginning may be on disk, or on its way there; it is taken back behind it.
                await self._give_back(firing, replace(message, sends=message.sends + 1), once=True)
            elif message.decides and firing.request.delivery == "at-least-once":
                await self._inbox.move_message(firing, message, "retry", self._now(), error=error, once=True)
            else:
                await self._inbox.move_message(
                    firing, message, "lose", self._now(), reason="not_seen", error=error, once=True
                )
        except BubCronError as failure:
            # Not repeated, since the gateway is going: what is on disk is settled at the next start.
            logger.warning("cron.stop id={} not recorded: {}", firing.id, failure)


def _numbered(firing: Firing, number: int) -> Message:
    return next(message for message in firing.messages if message.number == number)


def is_bad(message: Message) -> bool:
    """Tell whether a message's end is one that somebody should look at."""
    return message.state in (UNDELIVERED, UNKNOWN)
