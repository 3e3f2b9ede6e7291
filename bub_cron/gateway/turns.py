"""Run one turn through the live framework and tell what came of it.

Invariants:
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
from dataclasses import dataclass
from itertools import count
from typing import Any

from bub import BubFramework
from bub.channels import ChannelMessage
from bub.configure import get_value
from bub.envelope import Envelope, content_of, field_of
from bub.streaming import StreamEvent
from bub.tools import REGISTRY
from bub.turn import TurnResult
from loguru import logger

from bub_cron.checkers import split_to
from bub_cron.errors import BubCronError, described, one_line, whole_characters
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.gates import prompt_with
from bub_cron.gateway.late import told
from bub_cron.gateway.limits import Meter, unknown_tools
from bub_cron.wire import COMMAND, NO_REPLY, PROMPT, Request

CHANNEL = "cron"
TURN_KEY = "_bub_cron_turn"  # Bub shows the model no context key that begins with "_"
_SECONDS_TO_END_AFTER_CANCEL = 5.0
MOST_REPLY = 65_536  # characters of a reply that are kept: many times what any chat shows in one message
_CUT_MARK = f"\n\n[cut here: the reply was longer than {MOST_REPLY:,} characters]"
_MOST_TOKENS = 1 << 53
_MOST_TOLD = 100  # reminders with names of tools that are not known
_BUILTIN = "builtin"  # the name of Bub's own plugin


class GatewayStopsError(BubCronError):
    """Bub has unbound its router: the gateway is stopping, and what was going on belongs to its next start."""


@dataclass(slots=True, eq=False)
class Turn:
    """One turn, and what it came to."""

    firing: Firing | None
    about_chat: str | None = None
    streamed: bool = False
    text: str = ""
    """Its reply, "" where there is none."""
    error: str | None = None
    """Why the attempt failed: the first error that came up, though Bub may have gone on."""
    moved: bool = False
    """Another plugin moved its output to another channel: what became of it can't be known."""
    tokens: int | None = None
    """What it took, where the provider tells."""
    meter: Meter | None = None
    limit: str = ""
    """Which limit it is over, "" if none."""

    def fail(self, error: str) -> None:
        self.error = self.error or one_line(error)


class Turns:
    """Our turns in the live framework. The plugin's hooks and the channel hand it what concerns them."""

    def __init__(self, framework: BubFramework) -> None:
        self._framework = framework
        self._running: dict[str, Turn] = {}
        self._numbers = count(1)
        self.unknown_tools: dict[str, list[str]] = {}
        """The names in `tools` that this gateway doesn't have, by reminder; those of the last firings."""

    async def run(self, firing: Firing, about_chat: str | None = None) -> Turn:
        """Run one attempt and return what it came to; the model is told `about_chat` what it should know about the chat.

        Raises `GatewayStopsError` if Bub's router was unbound while it ran.
        """
        key, request = str(next(self._numbers)), firing.request
        meter = Meter(request, firing.tokens or 0, str(get_value("command_prefix", ",")))
        turn = self._running[key] = Turn(firing, about_chat, meter=meter)
        self._look_for_tools(request)
        try:
            result = await self._finish_in_time(turn, request.timeout, bub_message(request, key, _content(firing)))
            if result is not None and turn.error is None:
                await self._judge(turn, request, result)
            if meter.tokens is not None:  # a subagent's are not in the stream
                turn.tokens = meter.tokens
            turn.limit = meter.over or ("" if turn.error else meter.judge_end())
            return turn
        finally:
            meter.close()
            del self._running[key]

    async def _judge(self, turn: Turn, request: Request, result: TurnResult) -> None:
        """Take the text of a turn that ended without error."""
        if request.reply_mode == "agent":
            return  # nothing is sent for it, wherever its output went
        ours = [content_of(outbound) for outbound in result.outbounds if _is_ours(outbound)]
        # Without the router, or with another channel's stream, we saw no steps. A command's output is whole all the same.
        if ours and (turn.streamed or request.kind == COMMAND):
            text = whole_characters("\n\n".join(text for text in ours if text.strip()))
            turn.text = text if len(text) <= MOST_REPLY else text[:MOST_REPLY] + _CUT_MARK
        # A message to our own channel, which shows it to nobody, is the public way to ask whether Bub can still send.
        elif await self._framework.dispatch_via_channel_router({"channel": CHANNEL, "content": ""}):
            turn.moved, turn.error = True, "another plugin moved the turn's output away"
        else:
            raise GatewayStopsError("the turn ran while Bub's router was unbound")

    async def _finish_in_time(self, turn: Turn, timeout: float, message: ChannelMessage) -> TurnResult | None:
        task = asyncio.ensure_future(self._guarded(turn, message))
        try:
            await asyncio.wait({task}, timeout=timeout)
        finally:
            in_time = task.done()
            if not in_time:  # it gets a little time to end; one that won't is left behind, and no longer listened to
                task.cancel()
                await asyncio.wait({task}, timeout=_SECONDS_TO_END_AFTER_CANCEL)
        if in_time and not task.cancelled():
            return task.result()
        turn.error = "the turn was cancelled from outside" if in_time else f"the turn did not end within {timeout:g} s"
        return None

    async def _guarded(self, turn: Turn, message: ChannelMessage) -> TurnResult | None:
        try:
            return await self._framework.process_inbound(message, stream_output=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # in here, since a SystemExit that leaves a task ends the whole loop
            turn.error = described(error)
            return None

    def other_model(self) -> str | None:
        """Return the name of a plugin that runs the model in the place of Bub's own loop, None if there is none."""
        for name in ("run_model", "run_model_stream"):
            for found in getattr(self._framework.plugin_manager.hook, name).get_hookimpls():
                if found.plugin_name != _BUILTIN and not (found.wrapper or found.hookwrapper):
                    return str(found.plugin_name)
        return None

    def _look_for_tools(self, request: Request) -> None:
        """Note which of a request's `tools` this gateway doesn't have; the log hears of them once."""
        name, unknown = request.reminder or request.id, unknown_tools(request, REGISTRY)
        if not unknown:
            self.unknown_tools.pop(name, None)
        elif self.unknown_tools.get(name) != unknown and len(self.unknown_tools) < _MOST_TOLD:
            self.unknown_tools[name] = unknown
            logger.warning("cron.tools reminder={}: this gateway has no tool {}", name, ", ".join(unknown))

    # --- What Bub's hooks bring

    @staticmethod
    def meter(state: Mapping[str, Any]) -> Meter | None:
        """Return the limits of our turn that a state belongs to, a subagent's too; None for a turn of others."""
        turn = state.get(TURN_KEY)
        return turn.meter if isinstance(turn, Turn) else None

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
        if not isinstance(turn, Turn) or turn.firing is None:
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
        turn = self._running.get(_key_of(message) or "") or Turn(None)  # or one that was given up
        turn.streamed = True
        text = before = ""
        async for event in stream:
            if event.kind == "text":
                delta = event.data.get("delta")
                if delta is None:  # a run_model hook that returned None
                    turn.fail("no model gave a reply")
                elif len(text) <= MOST_REPLY:  # the rest of a text without end is not kept
                    text += str(delta)
                continue
            if event.kind == "final":
                if event.data.get("ok") is False:
                    turn.fail(str(event.data.get("text") or "the model's step failed"))
                before, text = (text if text.strip() else before), ""
            elif event.kind == "error":
                turn.fail(str(event.data.get("message") or "the model's stream broke off"))
            elif event.kind == "usage":
                turn.tokens = add_tokens(turn.tokens, _total_tokens(event.data.get("usage")))
            yield event
        yield StreamEvent("text", {"delta": text if text.strip() else before})


def _content(firing: Firing) -> str:
    """Return what a firing's turn is asked. A gate's output can't become part of a command."""
    body = firing.request.body
    has_output = firing.request.kind == PROMPT and firing.gate is not None and firing.gate.strip()
    return prompt_with(body, firing.gate or "") if has_output else body


def bub_message(request: Request, key: str, content: str | None = None) -> ChannelMessage:
    """Return the message with which a firing goes through Bub; `key` is how its turn is known again.

    `content` is its body unless given.
    """
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
        content=request.body if content is None else content,
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
    due = told(request, firing.started_at or firing.accepted_at)
    when = f", {due}" if due else ""
    lines = [
        f"This turn was started by {what}{when}, not by a message that somebody has just written.",
        "It is the reminder itself: do not set it up again. Reminders can't be added or changed in this turn.",
    ]
    if request.tools is not None:
        lines.append(f"Of the tools you may use {', '.join(request.tools) or 'none'}; any other is refused.")
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
