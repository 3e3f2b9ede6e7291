"""What Bub would run as a command, and whether this gateway lets it.

Invariants: nothing that Bub would run as a command passes as a prompt, whatever the gateway's prefix; and a command
passes only where the gateway's owner allowed commands, as a gate only where gates are. It is asked when a request comes and again when its turn begins,
since a restart in between may have changed either.
"""

from __future__ import annotations

from bub_cron.gateway.turns import bub_message
from bub_cron.wire import COMMAND, PROMPT, Request


class CommandRule:
    """The gateway's command prefix, and whether its owner allowed commands (`BUB_CRON_ALLOW_COMMANDS`) and gates
    (`BUB_CRON_ALLOW_GATES`).
    """

    def __init__(self, prefix: str, *, allowed: bool, gates_allowed: bool = False) -> None:
        self._prefix = prefix
        self._allowed = allowed
        self._gates_allowed = gates_allowed

    def refusal(self, request: Request) -> str | None:
        """Return why a request may not run here, None if it may."""
        if request.gate is not None and not self._gates_allowed:
            return "gates are not allowed in this gateway (its owner may set BUB_CRON_ALLOW_GATES=true)"
        if request.kind == COMMAND and not self._allowed:
            return "commands are not allowed in this gateway (its owner may set BUB_CRON_ALLOW_COMMANDS=true)"
        if request.kind == COMMAND and not self._is_command(request.body):
            return f"a command begins with {self._prefix!r} in this gateway"
        # Bub asks twice: of the message's content, and of the prompt, which begins with the message's context.
        if request.kind == PROMPT and any(map(self._is_command, (request.body, bub_message(request, "").context_str))):
            return f"a prompt that begins with {self._prefix!r} would run as a command: use `command`"
        return None

    def _is_command(self, text: str) -> bool:
        # Bub's own words: bub.builtin.commands.strip_command_prefix (a test holds the two against each other).
        return text.strip().startswith(self._prefix)
