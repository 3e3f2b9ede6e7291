"""A house whose chats have users: what they write comes in, and the model calls the tools that the test says.

A house with a clock of its own can put it forward, for the gateway, the ticks and the commands alike, where Debian's
libfaketime is installed; elsewhere, passing time is waiting.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from chaos import find_library
from gateway_kit import House, until
from stand_in_model import Messages, tool_calls

type Call = tuple[str, dict[str, Any]]
_MARK = re.compile(r"\[turn (\d+)\]")


class Part(NamedTuple):
    calls: tuple[Call, ...]
    at_once: bool


class Script:
    """A model that plays what a test wrote: for each message, tool calls, then a reply.

    A message names its part of the script by a mark at its end, so turns may run at once and in any order.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._parts: dict[str, Part] = {}

    def mark(self, *calls: Call, at_once: bool = False) -> str:
        """Return the mark of a new part: its calls, one a step or all in one, then what the tools gave as the reply."""
        number = str(next(self._numbers))
        self._parts[number] = Part(calls, at_once)
        return f"[turn {number}]"

    def __call__(self, messages: Messages) -> str | dict[str, Any]:
        at = max(index for index, message in enumerate(messages) if message["role"] == "user")
        found = _MARK.search(_text(messages[at]["content"]))
        if found is None:
            return "the model's reply"
        part = self._parts[found[1]]
        results = [_text(message["content"]) for message in messages[at:] if message["role"] == "tool"]
        left = part.calls[len(results) :]
        if left:
            return tool_calls(*left if part.at_once else left[:1])
        return "\n".join(results) or "done"


@dataclass(slots=True)
class Turn:
    """What a turn came to, as the model saw it."""

    results: list[str]  # of its tool calls, in order
    tools: list[dict[str, Any]]  # that it was offered
    system: str  # the system prompt of its last step

    @property
    def result(self) -> str:
        """The result of its only tool call."""
        [only] = self.results
        return only


class ChatHouse(House):
    """A house with users in its chats."""

    def __init__(self, *, has_clock: bool = False) -> None:
        self.script = Script()
        super().__init__(self.script)
        self.made_in_chat = self.home / "reminders.d" / "chat.yaml"
        self._ahead = 0.0  # seconds by which the house's clock is before the machine's
        self._clock = self.home / "clock"
        library = find_library() if has_clock else None
        self._is_faked = library is not None
        if library is not None:
            self._write_clock()
            self.environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",  # to read the file at each look at the clock takes ten times the CPU
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }

    # --- Time

    def now(self) -> float:
        return time.time() + self._ahead

    def pass_time(self, seconds: float) -> None:
        """Put the house's clock forward, or wait."""
        if not self._is_faked:
            time.sleep(seconds)
            return
        self._ahead += seconds
        self._write_clock()
        time.sleep(2.2)  # until everyone has read it: what is cached for a second may be read once more after one

    def pass_time_until(self, moment: float) -> None:
        """Put the clock forward to a moment, or wait for it."""
        self.pass_time(max(0.0, moment - self.now()))

    def _write_clock(self) -> None:
        aside = self._clock.with_suffix(".new")
        aside.write_text(f"+{self._ahead:f}")
        aside.rename(self._clock)

    # --- The chats

    def write(self, chat_id: str, text: str, **more: Any) -> None:
        """Let a user write in a chat; return at once."""
        with socket.socket(socket.AF_UNIX) as inbox:
            inbox.connect(str(self.inbox))
            inbox.sendall(json.dumps({"chat_id": chat_id, "text": text, **more}).encode() + b"\n")

    def wait_for_the_end(self, text: str) -> None:
        """Wait until the turn that a user's `text` began is over."""
        until(lambda: {"turn_over": text} in self.chat(), f"the end of the turn of {text!r}")

    def say(self, chat_id: str, text: str, *calls: Call, at_once: bool = False, **more: Any) -> Turn:
        """Let a user write in a chat and the model make these calls; return what came of it once the turn is over."""
        marked = f"{text} {self.script.mark(*calls, at_once=at_once)}"
        self.write(chat_id, marked, **more)
        self.wait_for_the_end(marked)
        return self.turn(marked)

    def command_in_chat(self, chat_id: str, line: str, **more: Any) -> str:
        """Let a user write a comma command; return what the chat was told."""
        before = len(self.messages())
        self.write(chat_id, line, **more)
        return until(lambda: self._told(chat_id, before), f"an answer to {line!r}")

    def _told(self, chat_id: str, before: int) -> str | None:
        return next((text for chat, text in self.messages()[before:] if chat == chat_id), None)

    def turn(self, text: str) -> Turn:
        """Return the turn whose message has `text` in it."""
        for request in reversed(self.model.requests):
            messages = request["messages"]
            users = [index for index, message in enumerate(messages) if message["role"] == "user"]
            if users and _as_written(text) in _text(messages[users[-1]]["content"]):
                results = [_text(message["content"]) for message in messages[users[-1] :] if message["role"] == "tool"]
                system = "\n".join(_text(message["content"]) for message in messages if message["role"] == "system")
                return Turn(results, request.get("tools") or [], system)
        raise AssertionError(f"the model was not asked about {text!r}")


def _as_written(text: str) -> str:
    """Return the mark in a text, which stands the same in JSON and in a prompt; the text itself if it has none."""
    found = _MARK.search(text)
    return found[0] if found else text


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
