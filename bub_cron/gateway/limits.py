"""What a firing's turn may use: which tools, how many tokens; and what it has used.

Invariants:
- The limits hold for everything that runs within the turn, a subagent's calls too: they are asked by the turn's state,
  which a subagent inherits.
- A tool that isn't allowed is refused where it is called. A subagent that would run a comma command, which no hook of Bub's
  sees, counts as one that isn't.
- Once a limit is reached, no further call of a model begins. Where nothing can be counted, the first call's end is the
  limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bub.hooks.interception import LlmCallDecision, ToolCall, ToolCallDecision

from bub_cron.wire import PROMPT, Request

_SUBAGENT = "subagent"
_MOST_TOKENS = 1 << 53


def is_limited(request: Request) -> bool:
    """Tell whether a request's tokens must be counted."""
    return request.max_tokens is not None or request.budget is not None


class Meter:
    """The limits of one turn. `tokens` is None while no provider has told any; `over` says which limit ended the turn."""

    def __init__(self, request: Request, spent: int, command_prefix: str) -> None:
        """`spent` is what earlier attempts of the firing took."""
        self.tokens: int | None = None
        self.over = ""
        self._tools = None if request.tools is None else frozenset(map(_spelled, request.tools))
        self._most = request.max_tokens
        self._counts = is_limited(request)
        self._runs_model = request.kind == PROMPT  # a command may
        self._spent = spent
        self._prefix = command_prefix

    def before_model(self) -> LlmCallDecision | None:
        """Return what ends the turn in the place of a model's call, None while it may go on."""
        if not self.over and self._most is not None and self._spent + (self.tokens or 0) >= self._most:
            self.over = f"over its limit of {self._most:,} tokens"
        return LlmCallDecision.finish(self.over) if self.over else None

    def after_model(self, usage: object, error: Exception | None = None) -> None:
        """Count a model's call that has ended. One that failed need not tell what it took: its attempt fails, too."""
        if error is not None and usage is None:
            return
        more = usage.get("total_tokens") if isinstance(usage, Mapping) else None
        if isinstance(more, int) and 0 <= more < _MOST_TOKENS - (self.tokens or 0):
            self.tokens = (self.tokens or 0) + more
        elif self._counts:
            self.over = "its tokens can't be counted: the model's provider doesn't tell them"

    def before_tool(self, call: ToolCall) -> ToolCallDecision | None:
        """Return why a tool may not be called, None if it may."""
        if self._tools is None:
            return None
        name = _spelled(call.tool)
        if name not in self._tools:
            return ToolCallDecision.deny(f"the tool {call.tool} is not among those that this reminder may use")
        if name == _SUBAGENT and str(call.arguments.get("prompt", "")).strip().startswith(self._prefix):
            return ToolCallDecision.deny("a subagent may not run commands in this reminder")
        return None

    def close(self) -> None:
        """Let nothing of a turn that is over, and was left behind, call a model or a tool any more."""
        self.over = self.over or "the turn is over"
        self._tools = frozenset()

    def judge_end(self) -> str:
        """Return why a turn that has ended counts as one over its limits, "" if it doesn't."""
        if not self.over and self._counts and self._runs_model and self.tokens is None:
            return "its tokens can't be counted: another plugin runs the model here"
        if not self.over and self._most is not None and self._spent + (self.tokens or 0) > self._most:
            return f"over its limit of {self._most:,} tokens"
        return self.over


def unknown_tools(request: Request, known: Mapping[str, Any]) -> list[str]:
    """Return the names in a request's `tools` that are none of Bub's."""
    spelled = set(map(_spelled, known))
    return [name for name in request.tools or () if _spelled(name) not in spelled]


def period_start(period: str, now: float, zone: str | None) -> float:
    """Return the instant at which the day, week (from Monday) or month began, on the clock of a zone, or the machine's."""
    local = datetime.fromtimestamp(now, _zone(zone))
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "week":
        day -= timedelta(days=day.weekday())
    elif period == "month":
        day = day.replace(day=1)
    return day.timestamp() if zone else day.replace(tzinfo=None).timestamp()


def _zone(name: str | None) -> tzinfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None  # one that this machine doesn't know


def _spelled(name: str) -> str:
    """Return a tool's name as the model sees it: `tape.info` is `tape_info`."""
    return name.strip().replace(".", "_").casefold()
