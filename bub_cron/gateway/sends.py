"""Messages on their way: replies, copies, alerts and notices to their chats, pings to their monitors.

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
from itertools import count
from typing import Any

from bub_cron.alerts import ping_address
from bub_cron.checkers import split_to
from bub_cron.errors import described
from bub_cron.gateway import pings
from bub_cron.gateway.delays import LATER_DELAY, send_delay, wait_until
from bub_cron.gateway.delivery import Delivery, SendRefusedError, SendUnseenError
from bub_cron.gateway.faults import LogLimit
from bub_cron.gateway.firing import PING, Firing, Message
from bub_cron.gateway.hand import SEND, STARTING, WAITING, Hand
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.late import mark
from bub_cron.gateway.turns import GatewayStopsError

_SENDS_AT_ONCE = 8  # to one channel: chats limit how fast a bot may talk
_SENDS_AT_LEAST = 3
_PINGS_AT_ONCE = 64  # each is a connection, and the gateway needs some for its chats
_PAST_GRACE = 3600.0  # seconds past a message's time that a platform may ask to wait
TOO_LATE = "too late to start by the time it could"


type Post = Callable[[str, str], Awaitable[None]]


class Sends:
    """Sends messages. `now` gives epoch seconds."""

    def __init__(
        self, inbox: Inbox, delivery: Delivery, lines: LogLimit, *, post: Post = pings.post, now: Callable[[], float]
    ) -> None:
        self._inbox = inbox
        self._delivery = delivery
        self._lines = lines
        self._post = post
        self._now = now
        self._pings = asyncio.Semaphore(_PINGS_AT_ONCE)
        self._lanes: dict[str, asyncio.Semaphore] = {}

    async def next(self, hand: Hand) -> None:
        """Make one send: of the next message of a firing that has its text, or has ended."""
        if not hand.firing.is_final and not hand.firing.replies:
            hand.firing = self._with_replies(hand.firing)
        firing, message = hand.firing, hand.firing.next_message
        if message is None:
            raise RuntimeError(f"{firing.id} is {firing.state} and has no message to send")
        if message.kind == PING:
            await self._ping(hand, message)
            return
        if refusal := self._delivery.refusal(message.to):
            hand.firing = await self._end(firing, message, "refuse", "no_channel", refusal)
            return
        await wait_until(message.not_before, message.until + _PAST_GRACE + LATER_DELAY, self._now)
        # A text's grace ends when its first send begins; a reply has begun its turn in time.
        is_first = not firing.needs_attempt and message.decides and not firing.sends
        try:
            async with self._lane(message.to, firing.request.expires if is_first else None):
                if is_first and firing.started_at is None:  # how late it starts is known now
                    hand.firing = self._with_replies(firing)
                await self._send(hand, message.number)
        except TimeoutError:
            hand.firing = await self._inbox.move(firing, "miss", self._now(), reason="late", error=TOO_LATE)

    def _with_replies(self, firing: Firing) -> Firing:
        """Return a firing with the messages that its text makes; the whole text is not stored a second time."""
        request, text = firing.request, firing.text or ""
        if late := mark(request, firing.started_at or self._now()):
            text = f"{late}\n{text}"
        numbers = count(1)
        replies = [
            Message(next(numbers), kind, to, request.expires, None if part == firing.text else part)
            for kind, to in (("reply", request.to), *(("copy", to) for to in request.also))
            for part in self._delivery.parts(to, text)
        ]
        return firing._replace(messages=(*replies, *(one for one in firing.messages if not one.decides)))

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

    async def _send(self, hand: Hand, number: int) -> None:
        """Make one send of a message, with its beginning and its end on disk."""
        hand.phase = STARTING
        firing = hand.firing = await self._inbox.move_message(
            hand.firing, _numbered(hand.firing, number), "begin", self._now()
        )
        message = _numbered(firing, number)
        content = firing.text if message.content is None else message.content
        hand.phase = SEND
        try:
            # The context (a topic, say) is that of `to`, and means nothing in another chat.
            context = firing.request.context if message.to == firing.request.to else {}
            await self._delivery.send(message.to, content or "", context)
        except asyncio.CancelledError:
            raise
        except GatewayStopsError:
            hand.firing = await self._inbox.move_message(firing, message, "give_back", self._now())
            hand.phase = WAITING
            raise
        except SendRefusedError as error:
            hand.firing = await self._refused(firing, message, error)
        except BaseException as error:
            text = str(error) if isinstance(error, SendUnseenError) else described(error)
            hand.firing = await self._not_seen(firing, message, text)
        else:
            hand.firing = await self._inbox.move_message(
                firing, message, "deliver", self._now(), reason=None, error=None
            )

    async def _ping(self, hand: Hand, message: Message) -> None:
        """Make one try of a ping. Its address is in no log and in no error."""
        await wait_until(message.not_before, message.until, self._now)
        async with self._pings:
            hand.phase = STARTING
            firing = hand.firing = await self._inbox.move_message(hand.firing, message, "begin", self._now())
            message = _numbered(firing, message.number)
            hand.phase = SEND
            try:
                await self._post(ping_address(firing.request.ping or "", firing.state), firing.state)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                known = isinstance(error, pings.PingRefusedError)
                hand.firing = await self._ping_refused(firing, message, str(error) if known else type(error).__name__)
            else:
                hand.firing = await self._inbox.move_message(firing, message, "deliver", self._now(), error=None)

    async def _ping_refused(self, firing: Firing, message: Message, error: str) -> Firing:
        if message.sends <= len(pings.DELAYS):
            return await self._again(firing, message, error, self._now() + pings.DELAYS[message.sends - 1])
        return await self._end(firing, message, "refuse", "refused", error)

    async def _refused(self, firing: Firing, message: Message, error: SendRefusedError) -> Firing:
        now, again, until = self._now(), self._now() + send_delay(message.sends), message.until
        if error.retry_after is not None:
            again, until = max(again, now + error.retry_after), until + _PAST_GRACE
        if error.for_good:
            return await self._end(firing, message, "refuse", "refused_for_good", str(error))
        if again <= until or (message.sends < _SENDS_AT_LEAST and again <= now + LATER_DELAY):
            return await self._again(firing, message, str(error), again)
        return await self._end(firing, message, "refuse", "refused", str(error))

    async def _not_seen(self, firing: Firing, message: Message, error: str) -> Firing:
        again = self._now() + send_delay(message.sends)
        if message.decides and firing.request.delivery == "at-least-once" and again <= message.until:
            return await self._again(firing, message, error, again, reason="not_seen")  # kept through later refusals
        return await self._end(firing, message, "lose", "not_seen", error)

    async def _again(self, firing: Firing, message: Message, error: str, again: float, **changes: Any) -> Firing:
        self._lines.log("WARNING", "cron.send_again id={} sends={} error={}", firing.id, message.sends, error)
        return await self._inbox.move_message(
            firing, message, "retry", self._now(), error=error, not_before=again, **changes
        )

    async def _end(self, firing: Firing, message: Message, event: str, reason: str, error: str) -> Firing:
        if not message.decides:
            self._lines.log("WARNING", "cron.{} id={} {}: {}", message.kind, firing.id, event, error)
        return await self._inbox.move_message(firing, message, event, self._now(), reason=reason, error=error)


def _numbered(firing: Firing, number: int) -> Message:
    return next(message for message in firing.messages if message.number == number)
