"""Run one turn through the live framework and tell what came of it.

Kept true here:
- A turn's reply comes to us and to nobody else: the message goes in with our channel as its own and as its output, so
  Bub's answers and error notices end in our `send()`, which shows nobody anything. Sending is `delivery.py`'s.
- A normal return proves nothing. Error events in the stream, a model that gave nothing (Bub then returns the prompt as
  if it were the reply) and a stream that was never ours are told apart from a reply.
- The reply is the text of the last step that has any: earlier steps' text is held back from the stream, so that Bub's
  hooks that render a reply see only that, too. Of a reply that has no end only the beginning is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from bub import BubFramework
from bub.channels import ChannelMessage
from bub.envelope import Envelope, content_of, field_of
from bub.streaming import StreamEvent
from bub.turn import TurnResult

from bub_cron.errors import BubCronError, described, one_line, whole_characters
from bub_cron.gateway.firing import Firing
from bub_cron.wire import COMMAND, NO_REPLY, Request, split_to

CHANNEL = "cron"
TURN_KEY = "_bub_cron_turn"  # Bub shows the model no context key that begins with "_"
_SECONDS_TO_END_AFTER_CANCEL = 5.0
MOST_REPLY = 65_536  # characters of a reply that are kept: many times what any chat shows in one message
_MOST_ERRORS = 10
_MOST_TOKENS = 1 << 53


class TurnFailedError(BubCronError):
    """The attempt failed; the text says how. `tokens` is what it took all the same, where the provider tells."""

    def __init__(self, message: str, tokens: int | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens


class TurnMovedError(TurnFailedError):
    """Another plugin moved the turn's output to another channel: what became of it can't be known."""


class GatewayStopsError(BubCronError):
    """Bub has unbound its router: the gateway is stopping, and what was going on belongs to its next start."""


@dataclass(slots=True)
class Reply:
    """What a turn came to: its text, "" where there is none, and the tokens it took, where the provider tells."""

    text: str
    tokens: int | None


@dataclass(slots=True, eq=False)
class _Turn:
    firing: Firing | None
    about_chat: str | None = None
    streamed: bool = False
    errors: list[str] = field(default_factory=list)
    tokens: int | None = None

    def fail(self, error: str) -> None:
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(one_line(error))


class _Step:
    """The text of one step of a turn, as much of it as is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def add(self, delta: str) -> None:
        if self._length < MOST_REPLY:
            self._parts.append(delta[: MOST_REPLY - self._length])
        self._length += len(delta)

    def text(self) -> str:
        return "".join(self._parts) + _cut_mark(self._length)

    def has_any(self) -> bool:
        return any(part.strip() for part in self._parts)


class Turns:
    """Our turns in the live framework. The plugin's hooks and the channel hand it what concerns them."""

    def __init__(self, framework: BubFramework) -> None:
        self._framework = framework
        self._running: dict[str, _Turn] = {}
        self._numbers = count(1)

    async def run(self, firing: Firing, about_chat: str | None = None) -> Reply:
        """Run one attempt; the model is told `about_chat` what it should know about the chat.

        Raises `TurnFailedError` if it failed, `TurnMovedError` if another plugin moved its output, `GatewayStopsError` if
        Bub's router was unbound while it ran.
        """
        key = str(next(self._numbers))
        turn = self._running[key] = _Turn(firing, about_chat)
        try:
            result = await self._finish_in_time(firing.request.timeout, bub_message(firing.request, key))
            if turn.errors:
                raise TurnFailedError(turn.errors[0])  # noqa: TRY301 - the tokens are added below, as for all others
            return Reply(await self._text_of(turn, result), turn.tokens)
        except TurnFailedError as error:
            error.tokens = turn.tokens
            raise
        finally:
            del self._running[key]

    async def _text_of(self, turn: _Turn, result: TurnResult) -> str:
        request = turn.firing.request if turn.firing else None
        if request is None or request.reply_mode == "agent":
            return ""  # nothing is sent for it, wherever its output went
        ours = [outbound for outbound in result.outbounds if _is_ours(outbound)]
        # Without the router, or with another channel's stream, we saw no steps. A command's output is whole all the same.
        if (not turn.streamed and request.kind != COMMAND) or not ours:
            if await self._router_is_bound():
                raise TurnMovedError("another plugin moved the turn's output away")
            raise GatewayStopsError("the turn ran while Bub's router was unbound")
        texts = [content_of(outbound) for outbound in ours]
        return _bounded(whole_characters("\n\n".join(text for text in texts if text.strip())))

    async def _router_is_bound(self) -> bool:
        """Tell whether Bub can still send: a message to our own channel, which shows it to nobody, is the public way."""
        return await self._framework.dispatch_via_channel_router({"channel": CHANNEL, "content": ""})

    async def _finish_in_time(self, timeout: float, message: ChannelMessage) -> TurnResult:
        task = asyncio.ensure_future(self._guarded(message))
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            await _cancel(task)
            raise
        if not done:
            await _cancel(task)
            raise TurnFailedError(f"the turn did not end within {timeout:g} s")
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise TurnFailedError("the turn was cancelled from outside") from error

    async def _guarded(self, message: ChannelMessage) -> TurnResult:
        # In here, since a SystemExit that leaves a task ends the whole loop.
        try:
            return await self._framework.process_inbound(message, stream_output=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise TurnFailedError(described(error)) from error

    # --- What Bub's hooks bring

    def owns(self, message: Envelope) -> bool:
        """Tell whether a message is one of ours, from a turn that runs or has run."""
        return _key_of(message) is not None

    def target(self, message: Envelope) -> str | None:
        """Return the `to` of the firing whose turn a message started, "" once it is over; None for a message of others."""
        if not self.owns(message):
            return None
        turn = self._running.get(_key_of(message) or "")
        return turn.firing.request.to if turn is not None and turn.firing is not None else ""

    def state(self, message: Envelope) -> dict[str, Any] | None:
        """Return what our turn adds to the turn's state, None for a turn that isn't ours."""
        turn = self._running.get(_key_of(message) or "")
        return None if turn is None else {TURN_KEY: turn}

    def instructions(self, state: Mapping[str, Any]) -> str | None:
        """Return the block of the system prompt for one of our turns, None for another."""
        turn = state.get(TURN_KEY)
        if not isinstance(turn, _Turn) or turn.firing is None:
            return None
        session = turn.firing.request.session
        # A turn that a tool starts inside ours has our state, but a session of its own, and nobody delivers its reply.
        return instructions(turn.firing, turn.about_chat) if state.get("session_id", session) == session else None

    def note_error(self, stage: str, error: Exception, message: Envelope) -> None:
        """Take an error that Bub reports for one of our turns; Bub itself would go on as if nothing had been."""
        turn = self._running.get(_key_of(message) or "")
        if turn is not None:
            turn.fail(f"{stage}: {described(error)}")

    async def capture(self, message: Envelope, stream: AsyncIterable[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """Pass a turn's events on, but of all text only that of the last step that has any, at the end."""
        turn = self._running.get(_key_of(message) or "") or _Turn(None)  # or one that was given up
        turn.streamed = True
        last, step = _Step(), _Step()
        async for event in stream:
            if event.kind == "text":
                delta = event.data.get("delta")
                if delta is None:  # a run_model hook that returned None
                    turn.fail("no model gave a reply")
                else:
                    step.add(str(delta))
                continue
            if event.kind == "final":
                if event.data.get("ok") is False:
                    turn.fail(str(event.data.get("text") or "the model's step failed"))
                last, step = (step if step.has_any() else last), _Step()
            elif event.kind == "error":
                turn.fail(str(event.data.get("message") or "the model's stream broke off"))
            elif event.kind == "usage":
                turn.tokens = add_tokens(turn.tokens, _total_tokens(event.data.get("usage")))
            yield event
        yield StreamEvent("text", {"delta": (step if step.has_any() else last).text()})


def bub_message(request: Request, key: str) -> ChannelMessage:
    """Return the message with which a firing goes through Bub; `key` is how its turn is known again."""
    channel, chat_id = split_to(request.to)
    # These first: Bub's prompt begins with the context, and would run it if it began with the command prefix.
    context: dict[str, Any] = {"channel": "", "chat_id": "", **request.context}
    if request.model is not None:
        context["model"] = request.model
    context[TURN_KEY] = key
    message = ChannelMessage(
        session_id=request.session,
        channel=CHANNEL,
        chat_id=chat_id,
        content=request.body,
        context=context,
        output_channel=CHANNEL,
    )
    message.context["channel"] = f"${channel}"  # what the model sees: the chat that this is about, not our channel
    return message


def instructions(firing: Firing, about_chat: str | None = None) -> str | None:
    """Return the block of the system prompt for a firing's turn: who delivers its reply, and what silence takes.

    Bub's own prompt says that a plain reply is ignored and that the model must send by a channel skill. For a turn whose
    reply we deliver the opposite holds; without these words the chat gets the message twice.
    """
    request = firing.request
    if request.kind == COMMAND:
        return None
    what = f"the reminder {request.reminder}" if request.reminder else "a scheduled reminder"
    when = f", due at {request.fire_time}" if request.fire_time else ""
    lines = [
        f"This turn was started by {what}{when}, not by a message that somebody has just written.",
        "It is the reminder itself: do not set it up again. Reminders can't be added or changed in this turn.",
    ]
    if request.reply_mode == "agent":
        lines.append("Your plain reply is NOT delivered: send what needs to be said by the channel's skill yourself.")
    else:
        lines += [
            "It overrides the response instructions above: your final reply is delivered to the chat for you, as it is.",
            "Do NOT also send it by a channel skill or tool: the chat would get it twice.",
            "Only the text of your last step is delivered, so put everything that matters into it.",
        ]
        if about_chat is not None:
            lines.append(about_chat)
        if request.quiet:
            lines.append(
                f"If there is nothing worth saying, reply with exactly {NO_REPLY} and nothing else: then nothing is sent."
            )
    body = "\n".join(f"- {line}" for line in lines)
    return f"<reminder_instruct>\n{body}\n</reminder_instruct>"


def _key_of(message: Envelope) -> str | None:
    context = field_of(message, "context")
    key = context.get(TURN_KEY) if isinstance(context, Mapping) else None
    return key if isinstance(key, str) else None


def _is_ours(outbound: Envelope) -> bool:
    return bool((field_of(outbound, "output_channel") or field_of(outbound, "channel")) == CHANNEL)


def add_tokens(tokens: int | None, more: object) -> int | None:
    """Return the sum of two counts; what a provider says goes into the store, which takes no number of any size."""
    return (tokens or 0) + more if isinstance(more, int) and 0 <= more < _MOST_TOKENS - (tokens or 0) else tokens


def _total_tokens(usage: object) -> object:
    return usage.get("total_tokens") if isinstance(usage, Mapping) else None


def _bounded(text: str) -> str:
    mark = _cut_mark(len(text))
    # What capture() cut is longer by its mark alone.
    is_cut_already = text.endswith("characters long]") and len(text) < MOST_REPLY + 100
    return text if not mark or is_cut_already else text[:MOST_REPLY] + mark


def _cut_mark(length: int) -> str:
    return "" if length <= MOST_REPLY else f"\n\n[cut here: the reply was {length:,} characters long]"


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a turn and give it a little time to end; one that won't is left behind, and no longer listened to."""
    task.cancel()
    await asyncio.wait({task}, timeout=_SECONDS_TO_END_AFTER_CANCEL)
    task.add_done_callback(look)


def look(task: asyncio.Future[Any]) -> None:
    """Look at how an abandoned task ended, so that asyncio needn't warn that nobody did."""
    if not task.cancelled():
        task.exception()
