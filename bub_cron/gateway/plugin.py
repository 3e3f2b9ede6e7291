"""The entry point `cron` of group `bub`: Bub's hooks, each passing on what concerns us.

Invariants: a hook is called for every turn of every channel, and an exception in one breaks that turn. So each looks
up one dictionary and returns; nothing here waits, reads or writes.
"""

from __future__ import annotations

from typing import Any

import typer
from bub import BubFramework, hookimpl
from bub.channels import Channel
from bub.channels.admission import AdmitDecision, TurnSnapshot
from bub.channels.contracts import MessageHandler
from bub.envelope import Envelope
from bub.hooks.interception import LlmCallDecision, LlmCallRequest, LlmCallResult, ToolCall, ToolCallDecision
from bub.turn import TurnState

from bub_cron.gateway.channel import CronChannel
from bub_cron.gateway.chat.callers import Desk
from bub_cron.gateway.chat.tools import offer
from bub_cron.gateway.cron_command import add_cron_command
from bub_cron.gateway.onboarding import ask
from bub_cron.gateway.readiness import Readiness
from bub_cron.gateway.seen import Seen
from bub_cron.gateway.sessions import UserTurns
from bub_cron.gateway.settings import chat_setting
from bub_cron.gateway.turns import Turns


class CronPlugin:
    """bub-cron in a live framework. What its channel and its hooks share lives here, not in the process."""

    def __init__(self, framework: BubFramework) -> None:
        self._framework = framework
        self._turns = Turns(framework)
        self._users = UserTurns()
        self._readiness = Readiness()
        self._desk = Desk()
        self._seen = Seen()
        offer(chat_setting())

    @hookimpl
    def provide_channels(self, message_handler: MessageHandler) -> list[Channel]:
        shared = (self._turns, self._users, self._readiness, self._desk, self._seen)
        return [CronChannel(self._framework, message_handler, *shared)]

    @hookimpl
    def register_cli_commands(self, app: typer.Typer) -> None:
        add_cron_command(app)

    @hookimpl
    def onboard_config(self, current_config: dict[str, Any]) -> dict[str, Any]:
        return ask(current_config)

    @hookimpl(tryfirst=True)
    def resolve_session(self, message: Envelope) -> str | None:
        """See our sentinel before a plugin that admits messages can swallow it."""
        self._readiness.see(message)
        return None

    @hookimpl(tryfirst=True)
    def admit_message(self, session_id: str, message: Envelope, turn: TurnSnapshot) -> AdmitDecision | None:
        """Drop the sentinel that tells us that the gateway is listening, before any other plugin makes a turn of it.

        Of all other messages, note the chat.
        """
        if not self._readiness.see(message):
            self._seen.note(message)
            return None
        return AdmitDecision("drop", "bub-cron: the channels have started")

    @hookimpl
    def load_state(self, message: Envelope, session_id: str) -> dict[str, Any]:
        if not self._turns.owns(message):
            self._readiness.see_turn()
            self._users.begin(session_id)
        return {**self._desk.state(message, self._turns.target(message)), **(self._turns.state(message) or {})}

    @hookimpl
    def save_state(self, session_id: str, state: dict[str, Any], message: Envelope, model_output: str) -> None:
        if not self._turns.owns(message):
            self._users.end(session_id)

    @hookimpl
    def system_prompt(self, prompt: str | list[dict[str, Any]], state: dict[str, Any]) -> str | None:
        return self._turns.instructions(state)

    @hookimpl
    def before_llm_call(self, request: LlmCallRequest, state: TurnState) -> LlmCallDecision | None:
        meter = self._turns.meter(state)
        return None if meter is None else meter.before_model()

    @hookimpl
    def after_llm_call(self, request: LlmCallRequest, result: LlmCallResult, state: TurnState) -> None:
        if (meter := self._turns.meter(state)) is not None:
            meter.after_model(result.usage, result.error)

    @hookimpl(trylast=True)
    def before_tool_call(self, call: ToolCall, state: TurnState) -> ToolCallDecision | None:
        """Refuse a tool that the reminder may not use; after plugins that change a call's arguments."""
        meter = self._turns.meter(state)
        return None if meter is None else meter.before_tool(call)

    @hookimpl
    def on_error(self, stage: str, error: Exception, message: Envelope | None) -> None:
        self._turns.note_error(stage, error, message)
